"""VQA-RAD (Lau et al. 2018): the official JSON, or the med-vqa re-packaging, to records.

Published by question, not by image: 202 of the 203 official test images are in train too. The
variant `image-disjoint` is this project's split of the same rows without that leak.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.json_text import read_json, read_json_list
from exgra_med.data.options import closed_options
from exgra_med.data.record import Record, parse_record
from exgra_med.data.source import Collected, Dropped, Options, Source
from exgra_med.data.split import images_for_share
from exgra_med.errors import DataError

NAME = "vqa-rad"
OFFICIAL_FILE = "VQA_RAD Dataset Public.json"
MED_VQA_FILES = {"train": "trainset.json", "test": "testset.json"}
OFFICIAL_ROWS = 2248
EXPECTED = {
    "official": {
        ("train", "CLOSED"): 1027,
        ("train", "OPEN"): 770,
        ("test", "CLOSED"): 272,
        ("test", "OPEN"): 179,
    },
    "med-vqa": {("train", None): 3064, ("test", None): 451},
}
"""Rows of the complete releases, by published split and answer type."""

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2

_TYPO = {"ATRIB": "ATTRIB", "PRSE": "PRES", "Other": "OTHER"}


def collect(source: Path, options: Options) -> Collected:
    """Read a folder with the official release, or for `med-vqa` with `trainset.json`.

    Raises:
        DataError: a file is missing or a row cannot be understood; names file and row.
    """
    dropped: list[Dropped] = []
    if options.variant == "med-vqa":
        files = {split: _find(source, name) for split, name in MED_VQA_FILES.items()}
        rows = {
            split: [(split, row) for row in read_json_list(path)] for split, path in files.items()
        }
        published = rows["train"] + rows["test"]
        paths = list(files.values())
    else:
        paths = [_find(source, OFFICIAL_FILE)]
        published = [
            (_published_split(row, number, paths[0]), row)
            for number, row in enumerate(read_json_list(paths[0]))
        ]
    notes: dict[str, Any] = {}
    items = _items(published, paths[0].parent.name, dropped)
    notes["completeness"] = _check_counts(published, items, options.variant)
    split_of = _splits(items, options)
    splits: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for item in items:
        split = split_of[item["meta"]["official_split"], item["image"]]
        item["id"] = f"{NAME}/{split}/{item['meta']['published_id']}"
        item["meta"]["split"] = split
        splits[split].append(parse_record(item, item["id"]))
    notes["closed_without_options"] = [
        record.id
        for records in splits.values()
        for record in records
        if record.answer_type == "CLOSED" and "options" not in record.meta
    ]
    notes["duplicate_triples"] = _duplicates(splits)
    images = ImageFolder(_image_root(source), options.max_pixels)
    return Collected(splits, images, paths, dropped, notes)


def _find(source: Path, name: str) -> Path:
    for path in (source / name, source / "med-vqa-split" / name):
        if path.is_file():
            return path
    raise DataError(
        f"{source}: {name!r} is missing.", "Get the release from https://osf.io/89kps/ (CC0)."
    )


def _image_root(source: Path) -> Path:
    for name in ("images", "VQA_RAD Image Folder"):
        if (source / name).is_dir():
            return source / name
    raise DataError(f"{source}: the folder 'images' is missing.")


def _published_split(row: dict[str, Any], number: int, path: Path) -> str:
    phrase = str(row.get("phrase_type", "")).strip()
    if phrase in ("test_freeform", "test_para"):
        return "test"
    if phrase in ("freeform", "para"):
        return "train"
    raise DataError(f"{path}: row {number} (qid {row.get('qid')}): phrase_type {phrase!r}.")


def _items(
    published: list[tuple[str, dict[str, Any]]], file: str, dropped: list[Dropped]
) -> list[dict[str, Any]]:
    """Rows as dicts of record fields, without the id, which the split decides."""
    items = []
    table = read_json(Path(__file__).with_name("vqa_rad_options.json"))
    seen: set[tuple[str, str]] = set()
    for split, row in published:
        where = f"{NAME} ({file}): qid {row.get('qid')!r}"
        qid = _text(row, "qid", where)
        # med-vqa's two files share one numbering, so an id is unique over both.
        if (split, qid) in seen:
            raise DataError(f"{where}: the qid comes twice in {split}.")
        seen.add((split, qid))
        question, raw_question = _both(row, "question", where)
        answer, raw_answer = _both(row, "answer", where)
        if not question or not answer:
            empty = "answer" if question else "question"
            dropped.append(Dropped(f"{NAME}/{split}/{qid}", f"empty {empty}"))
            continue
        answer_type = _text(row, "answer_type", where)
        if answer_type not in ("OPEN", "CLOSED"):
            raise DataError(
                f"{where}: unknown answer_type {row['answer_type']!r}.",
                "Known are OPEN and CLOSED.",
            )
        meta: dict[str, Any] = {
            "published_id": qid,
            "official_split": split,
            "split": split,
            "organ": _text(row, "image_organ", where),
            "question_type": ", ".join(
                _TYPO.get(part.strip(), part.strip())
                for part in _text(row, "question_type", where).split(",")
            ),
            "phrase_type": _text(row, "phrase_type", where),
        }
        if raw_question != question:
            meta["raw_question"] = raw_question
        if raw_answer != answer:
            meta["raw_answer"] = raw_answer
        choices = table.get(question) or closed_options(question, answer)
        if answer_type == "CLOSED" and choices:
            meta["options"] = choices
        items.append(
            {
                "image": _text(row, "image_name", where),
                "turns": [
                    {"role": "user", "text": question},
                    {"role": "assistant", "text": answer},
                ],
                "answer_type": answer_type,
                "meta": meta,
            }
        )
    return items


def _both(row: dict[str, Any], key: str, where: str) -> tuple[str, Any]:
    """The text of a field without outer blanks, and the published value."""
    return _text(row, key, where), row[key]


def _text(row: dict[str, Any], key: str, where: str) -> str:
    if key not in row:
        raise DataError(f"{where}: the field {key!r} is missing.")
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"{where}: {key!r} is neither text nor a whole number.")
    return str(value).strip()


def _check_counts(
    published: list[tuple[str, dict[str, Any]]], items: list[dict[str, Any]], variant: str
) -> str:
    """A file as long as the release must have the release's counts; a part is said to be one."""
    kind = "med-vqa" if variant == "med-vqa" else "official"
    expected = EXPECTED[kind]
    rows = sum(expected.values())
    if len(published) != rows:
        return f"partial: {len(published)} of {rows} rows"
    # Counted over the published rows: a dropped row is listed, and does not look like a lost one.
    found: Counter[tuple[str, str | None]] = Counter(
        (split, str(row["answer_type"]).strip() if kind == "official" else None)
        for split, row in published
    )
    for key, count in expected.items():
        if found[key] != count:
            name = " ".join(part for part in key if part)
            raise DataError(
                f"{NAME} ({kind}): {name}: expected {count} rows, found {found[key]}.",
                "This is not the published file; a random re-split goes by the same name.",
            )
    return "complete"


def _splits(items: list[dict[str, Any]], options: Options) -> dict[tuple[str, str], str]:
    """(published split, image) -> split of the prepared folder."""
    pairs = {(item["meta"]["official_split"], item["image"]) for item in items}
    if options.variant == "image-disjoint":
        organ_images: dict[str, dict[str, int]] = defaultdict(dict)
        for item in items:
            images = organ_images[item["meta"]["organ"]]
            images[item["image"]] = images.get(item["image"], 0) + 1
        chosen: dict[str, str] = {}
        for images in organ_images.values():
            test = images_for_share(images, TEST_SHARE, options.seed, "test")
            rest = {name: count for name, count in images.items() if name not in test}
            share = VALIDATION_SHARE / (1 - TEST_SHARE)
            validation = images_for_share(rest, share, options.seed, "validation")
            chosen |= dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
        return {pair: chosen.get(pair[1], "train") for pair in pairs}
    train = Counter(item["image"] for item in items if item["meta"]["official_split"] == "train")
    validation = images_for_share(train, VALIDATION_SHARE, options.seed, "validation")
    return {
        (split, image): "validation" if split == "train" and image in validation else split
        for split, image in pairs
    }


def _duplicates(splits: dict[str, list[Record]]) -> list[list[str]]:
    """Ids of records with equal image, question and answer, over all splits."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for records in splits.values():
        for record in records:
            groups[(*record.images, record.question, record.answer)].append(record.id)
    return [ids for ids in groups.values() if len(ids) > 1]


SOURCE = Source(
    name=NAME,
    title="VQA-RAD: 315 radiology images, 2,248 questions by clinicians",
    licence="CC0 1.0",
    variants={
        "official": "published train and test; validation images are taken from train",
        "image-disjoint": "the same rows, no image in two splits (this project's split)",
        "med-vqa": "the med-vqa/MEVF files with templated rows, 3,064 / 451 (leaks, see docs)",
    },
    collect=collect,
)
