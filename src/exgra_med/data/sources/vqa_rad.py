"""VQA-RAD (Lau et al. 2018): the official JSON, or the med-vqa re-packaging, to records.

Published by question, not by image: 202 of the 203 official test images are in train too. The
variant `image-disjoint` is this project's split of the same rows without that leak; `yang-2024`
is the one of Med-Gemini's authors, on which MedGemma's scores are given.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import SPLITS, Record, read_json_list
from exgra_med.data.sources.hub_copies import collect_parquet
from exgra_med.data.sources.rows import (
    answer_type_field,
    check_counts,
    facts,
    find_path,
    text_field,
    vqa_record,
)
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.subset import held_out_images, untested_images
from exgra_med.errors import DataError
from exgra_med.reading import read_json

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

_HINT = "The release is at https://osf.io/89kps/; the hub's parquet needs --split-variant hub."
_PHRASES = dict.fromkeys(("test_freeform", "test_para"), "test")
_PHRASES |= dict.fromkeys(("freeform", "para"), "train")
_TYPO = {"ATRIB": "ATTRIB", "PRSE": "PRES", "Other": "OTHER"}


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read a folder with the official release, or for `med-vqa` with `trainset.json`.

    Raises:
        DataError: a file is missing or a row cannot be understood; names file and row.
    """
    if options.variant == "hub":
        return collect_parquet(NAME, source, options)
    kind = "med-vqa" if options.variant == "med-vqa" else "official"
    names = MED_VQA_FILES.values() if kind == "med-vqa" else [OFFICIAL_FILE]
    files = [find_path(source, (name, f"med-vqa-split/{name}"), _HINT) for name in names]
    if kind == "med-vqa":
        pairs = zip(MED_VQA_FILES, files, strict=True)
        published = [(split, row) for split, path in pairs for row in read_json_list(path)]
    else:
        published = []
        for number, row in enumerate(read_json_list(files[0])):
            phrase = str(row.get("phrase_type", "")).strip()
            if phrase not in _PHRASES:
                where = f"{files[0]}: row {number} (qid {row.get('qid')})"
                raise DataError(f"{where}: phrase_type {phrase!r}.")
            published.append((_PHRASES[phrase], row))
    found = Counter(
        (split, str(row.get("answer_type")).strip()) if kind == "official" else (split,)
        for split, row in published
    )
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
        types = text_field(row, "question_type", where)
        meta: dict[str, Any] = {
            "published_id": qid,
            "official_split": official,
            "split": split,
            "organ": text_field(row, "image_organ", where),
            "question_type": ", ".join(_TYPO.get(t.strip(), t.strip()) for t in types.split(",")),
            "phrase_type": text_field(row, "phrase_type", where),
        }
        record = vqa_record(
            f"{NAME}/{split}/{qid}",
            row,
            where,
            image=text_field(row, "image_name", where),
            answer_type=answer_type_field(row, where),
            meta=meta,
            options=table.get(text_field(row, "question", where)),
            dropped=dropped,
        )
        if record:
            splits[split].append(record)
    notes = {"completeness": completeness, **facts(splits)}
    root = find_path(source, ("images", "VQA_RAD Image Folder"), is_folder=True)
    return Collected(
        splits, ImageFolder(root, options.max_pixels, within=source), files, dropped, notes
    )


def _splits(
    published: list[tuple[str, dict[str, Any]]], options: PrepareOptions
) -> dict[tuple[str, str], str]:
    """(published split, image) -> split of the prepared folder."""
    rows = Counter((split, str(row.get("image_name")).strip()) for split, row in published)
    if options.variant == "image-disjoint":
        organs: dict[str, Counter[str]] = defaultdict(Counter)
        for _, row in published:
            organs[str(row.get("image_organ")).strip()][str(row.get("image_name")).strip()] += 1
        chosen: dict[str, str] = {}
        for counts in organs.values():
            chosen |= held_out_images(counts, VALIDATION_SHARE, TEST_SHARE, options.seed)
        return {pair: chosen.get(pair[1], "train") for pair in rows}
    if options.variant == "yang-2024":
        chosen = _yang(published)
        return {pair: chosen[pair[1]] for pair in rows}
    train = {image: count for (split, image), count in rows.items() if split == "train"}
    tested = {image for split, image in rows if split == "test"}
    validation = untested_images(train, tested, VALIDATION_SHARE, options.seed)
    return {pair: "validation" if pair[1] in validation else pair[0] for pair in rows}


def _yang(published: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Image -> split of Yang et al. 2024, who published it by qid; no image is in two.

    Raises:
        DataError: a qid that is not theirs, or an image whose questions are in two splits.
    """
    table = read_json(Path(__file__).with_name("vqa_rad_split_yang.json"))
    by_qid = {str(qid): split for split in SPLITS for qid in table[split]}
    chosen: dict[str, str] = {}
    for _, row in published:
        qid, image = (str(row.get(key)).strip() for key in ("qid", "image_name"))
        split = by_qid.get(qid)
        if split is None or chosen.setdefault(image, split) != split:
            raise DataError(
                f"{NAME}: qid {qid} about {image} does not fit the split of Yang et al. 2024.",
                f"It is for the official {OFFICIAL_FILE!r}, whose qids are 0 to 2247.",
            )
    return chosen


SOURCE = Source(
    name=NAME,
    title="VQA-RAD: 315 radiology images, 2,248 questions by clinicians",
    licence="CC0 1.0",
    variants={
        "official": "published train and test; validation takes whole images of train",
        "image-disjoint": "the same rows, no image in two splits (this project's split)",
        "yang-2024": "the same rows by Yang et al. 2024, 785 / 728 / 735, no image in two splits",
        "hub": "the hub's parquet copy, 1,793 / 451, lower-cased, without ids and answer types",
        "med-vqa": "the med-vqa/MEVF files with templated rows, 3,064 / 451 (leaks, see docs)",
    },
    collect=collect,
    hub="flaviagiammarino/vqa-rad",
)
