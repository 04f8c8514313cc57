"""OmniMedVQA: multiple choice over 73 datasets, 42 of them open, a test set only.

Every JSON file below `QA_information/Open-access` is one published dataset; image paths are
relative to the root. The ground truth is text that may differ from its option in case or a final
full stop.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, read_json_list
from exgra_med.data.sources.options import plain_option
from exgra_med.data.sources.rows import completeness, text_field, vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.errors import DataError
from exgra_med.reading import read_json

NAME = "omnimedvqa"
ROWS = {"open-access": 88_996, "all": 127_995}
"""Of the complete release, by variant."""
MODALITIES = {
    "ct(computed tomography)": "CT",
    "mr (mag-netic resonance imaging)": "MR",
    "x-ray": "X-Ray",
    "ultrasound": "Ultrasound",
    "dermoscopy": "Dermoscopy",
    "fundus photography": "Fundus Photography",
    # The published string lacks its closing bracket.
    "oct (optical coherence tomography": "OCT",
    "microscopy images": "Microscopy",
}
"""Published modality strings, in lower case -> short names; others stay as they are published."""


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read `QA_information/<access>/*.json` below a folder, or its own JSON files of that layout.

    Raises:
        DataError: no file of the layout, or a row that cannot be understood; names file and row.
    """
    if (source / "OmniMedVQA" / "QA_information").is_dir():
        source = source / "OmniMedVQA"
    files, others, restricted = _files(source, options.variant)
    dropped: list[Dropped] = []
    records: list[Record] = []
    seen: set[str] = set()
    for path in files:
        for number, row in enumerate(read_json_list(path)):
            where = f"{path.name}: row {number} ({row.get('question_id')})"
            record = _record(row, where, dropped)
            if record is None:
                continue
            if record.id in seen:
                raise DataError(f"{where}: the question_id comes twice.")
            seen.add(record.id)
            records.append(record)
    rows = len(records) + len(dropped)
    tally = Counter(record.meta["modality"] for record in records)
    notes: dict[str, Any] = {
        "completeness": completeness(rows, ROWS[options.variant]),
        "records_by_modality": dict(sorted(tally.items())),
        "datasets": len({record.meta["dataset"] for record in records}),
        "files_of_another_layout": others,
        "restricted_files_left_out": restricted,
    }
    splits: dict[str, list[Record]] = {"train": [], "validation": [], "test": records}
    return Collected(splits, ImageFolder(source, options.max_pixels), files, dropped, notes)


def _files(source: Path, variant: str) -> tuple[list[Path], list[str], list[str]]:
    """The files that are read, and the names of those of another layout or without pictures."""
    root = source / "QA_information"
    if root.is_dir():
        restricted = sorted((root / "Restricted-access").glob("*.json"))
        files = sorted((root / "Open-access").glob("*.json"))
        if variant == "all":
            files, restricted = files + restricted, []
        if not files:
            raise DataError(f"{root}: there are no JSON files in Open-access.")
        return files, [], [path.name for path in restricted]
    files, others = [], []
    for path in sorted(source.glob("*.json")):
        value = read_json(path)
        fits = isinstance(value, list) and value and isinstance(value[0], dict)
        (files if fits and "gt_answer" in value[0] else others).append(path)
    if not files:
        raise DataError(
            f"{source}: neither 'QA_information' nor a JSON file with 'gt_answer' is there.",
            "Unpack OmniMedVQA.zip and give its folder.",
        )
    return files, [path.name for path in others], []


def _record(row: dict[str, Any], where: str, dropped: list[Dropped]) -> Record | None:
    published = text_field(row, "question_id", where)
    name = f"{NAME}/test/{published}"
    letters = [letter for letter in "ABCD" if row.get(f"option_{letter}") is not None]
    choices = [text_field(row, f"option_{letter}", where) for letter in letters]
    if len(choices) < 2:
        dropped.append(Dropped(name, f"{len(choices)} options"))
        return None
    answer = plain_option(text_field(row, "gt_answer", where))
    plain = [plain_option(choice) for choice in choices]
    if answer and answer not in plain:
        dropped.append(Dropped(name, "the answer is none of the options"))
        return None
    # One entry of "Chest CT Scan.json" has the key `modality` instead.
    modality = text_field(row, "modality_type" if "modality_type" in row else "modality", where)
    meta: dict[str, Any] = {
        "published_id": published,
        "split": "test",
        "dataset": text_field(row, "dataset", where),
        "modality": MODALITIES.get(modality.lower(), modality),
        "published_modality": modality,
        "question_type": text_field(row, "question_type", where),
        "answer_index": plain.index(answer) if answer else None,
    }
    return vqa_record(
        name,
        row,
        where,
        image=text_field(row, "image_path", where),
        answer_type="CLOSED",
        meta=meta,
        options=choices,
        answer_key="gt_answer",
        dropped=dropped,
    )


SOURCE = Source(
    name=NAME,
    title="OmniMedVQA: multiple choice over 42 open datasets of 73, 88,996 questions, test only",
    licence="per source dataset; the collection states none",
    variants={
        "open-access": "the files of Open-access; Restricted-access is named and left out",
        "all": "Restricted-access too, 127,995 questions; get its images from their publishers",
    },
    collect=collect,
    hub="foreverbeliever/OmniMedVQA",
)
