"""VQA-RAD (Lau et al. 2018): the official JSON, or the med-vqa re-packaging, to records.

Published by question, not by image: 202 of the 203 official test images are in train too. The
variant `image-disjoint` is this project's split of the same rows without that leak.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, read_json, read_json_list
from exgra_med.data.sources.parquet import collect_parquet
from exgra_med.data.sources.rows import (
    answer_type_field,
    check_counts,
    facts,
    text_field,
    vqa_record,
)
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.subset import images_for_share
from exgra_med.errors import DataError

NAME = "vqa-rad"
OFFICIAL_FILE = "VQA_RAD Dataset Public.json"
MED_VQA_FILES = {"train": "trainset.json", "test": "testset.json"}
EXPECTED = {
    "official": {
        ("train", "CLOSED"): 1027,
        ("train", "OPEN"): 770,
        ("test", "CLOSED"): 272,
        ("test", "OPEN"): 179,
    },
    "med-vqa": {("train",): 3064, ("test",): 451},
}
"""Rows of the complete releases, by published split and answer type."""

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2

_TYPO = {"ATRIB": "ATTRIB", "PRSE": "PRES", "Other": "OTHER"}


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read a folder with the official release, or for `med-vqa` with `trainset.json`.

    Raises:
        DataError: a file is missing or a row cannot be understood; names file and row.
    """
    if options.variant == "hub":
        return collect_parquet(NAME, source, options)
    kind = "med-vqa" if options.variant == "med-vqa" else "official"
    if kind == "med-vqa":
        paths = {split: _find(source, name) for split, name in MED_VQA_FILES.items()}
        published = [(split, row) for split, path in paths.items() for row in read_json_list(path)]
        files = list(paths.values())
    else:
        files = [_find(source, OFFICIAL_FILE)]
        published = [
            (_published_split(row, number, files[0]), row)
            for number, row in enumerate(read_json_list(files[0]))
        ]
    found = Counter(_kind(kind, split, row) for split, row in published)
    completeness = check_counts(f"{NAME} ({kind})", found, EXPECTED[kind])
    dropped: list[Dropped] = []
    split_of = _splits(published, options)
    table = read_json(Path(__file__).with_name("vqa_rad_options.json"))
    splits: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    seen: set[tuple[str, str]] = set()
    for official, row in published:
        where = f"{files[0].parent.name}: qid {row.get('qid')!r}"
        qid = text_field(row, "qid", where)
        if (official, qid) in seen:
            raise DataError(f"{where}: the qid comes twice in {official}.")
        seen.add((official, qid))
        split = split_of[official, text_field(row, "image_name", where)]
        record = _record(row, where, qid, official, split, table, dropped)
        if record:
            splits[split].append(record)
    notes = {"completeness": completeness, **facts(splits)}
    images = ImageFolder(_image_root(source), options.max_pixels)
    return Collected(splits, images, files, dropped, notes)


def _record(
    row: dict[str, Any],
    where: str,
    qid: str,
    official: str,
    split: str,
    table: dict[str, list[str]],
    dropped: list[Dropped],
) -> Record | None:
    types = text_field(row, "question_type", where)
    meta: dict[str, Any] = {
        "published_id": qid,
        "official_split": official,
        "split": split,
        "organ": text_field(row, "image_organ", where),
        "question_type": ", ".join(_TYPO.get(t.strip(), t.strip()) for t in types.split(",")),
        "phrase_type": text_field(row, "phrase_type", where),
    }
    return vqa_record(
        f"{NAME}/{split}/{qid}",
        row,
        where,
        image=text_field(row, "image_name", where),
        answer_type=answer_type_field(row, where),
        meta=meta,
        options=table.get(text_field(row, "question", where)),
        dropped=dropped,
    )


def _kind(kind: str, split: str, row: dict[str, Any]) -> tuple[str, ...]:
    answer_type = str(row.get("answer_type")).strip()
    return (split, answer_type) if kind == "official" else (split,)


def _find(source: Path, name: str) -> Path:
    for path in (source / name, source / "med-vqa-split" / name):
        if path.is_file():
            return path
    raise DataError(
        f"{source}: {name!r} is missing.",
        "The release is at https://osf.io/89kps/; the hub's parquet needs --split-variant hub.",
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


def _splits(
    published: list[tuple[str, dict[str, Any]]], options: PrepareOptions
) -> dict[tuple[str, str], str]:
    """(published split, image) -> split of the prepared folder.

    Validation images of the published splits come from the images that no test question shows:
    choosing a checkpoint must not see test images, and train keeps its published overlap.
    """
    rows = Counter((split, str(row.get("image_name")).strip()) for split, row in published)
    if options.variant == "image-disjoint":
        organs: dict[str, Counter[str]] = defaultdict(Counter)
        for _, row in published:
            organs[str(row.get("image_organ")).strip()][str(row.get("image_name")).strip()] += 1
        chosen: dict[str, str] = {}
        for counts in organs.values():
            test = images_for_share(counts, TEST_SHARE, options.seed, "test")
            rest = {name: count for name, count in counts.items() if name not in test}
            share = VALIDATION_SHARE / (1 - TEST_SHARE)
            validation = images_for_share(rest, share, options.seed, "validation")
            chosen |= dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
        return {pair: chosen.get(pair[1], "train") for pair in rows}
    tested = {image for split, image in rows if split == "test"}
    total = sum(count for (split, _), count in rows.items() if split == "train")
    free = {image: rows["train", image] for _, image in rows if image not in tested}
    share = min(1.0, VALIDATION_SHARE * total / max(1, sum(free.values())))
    validation = images_for_share(free, share, options.seed, "validation")
    return {pair: "validation" if pair[1] in validation else pair[0] for pair in rows}


SOURCE = Source(
    name=NAME,
    title="VQA-RAD: 315 radiology images, 2,248 questions by clinicians",
    licence="CC0 1.0",
    variants={
        "official": "published train and test; validation takes whole images of train",
        "image-disjoint": "the same rows, no image in two splits (this project's split)",
        "hub": "the hub's parquet copy, 1,793 / 451, lower-cased, without ids and answer types",
        "med-vqa": "the med-vqa/MEVF files with templated rows, 3,064 / 451 (leaks, see docs)",
    },
    collect=collect,
    hub="flaviagiammarino/vqa-rad",
)
