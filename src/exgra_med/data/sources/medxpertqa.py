"""MedXpertQA MM (Zuo et al. 2025): examination questions with pictures, five options each.

The published question repeats its options behind "Answer Choices:". They are taken off, as they are
asked once more from `options`; the whole text is `raw_question`.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import (
    check_counts,
    choice_record,
    facts,
    image_folder,
    text_field,
    text_fields,
)
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.sources.tables import read_rows
from exgra_med.data.sources.values import Row
from exgra_med.errors import DataError

NAME = "medxpertqa"
SPLITS = {"validation": "dev", "test": "test"}
EXPECTED = {("validation",): 5, ("test",): 2000}
"""Rows of the complete release."""

_LIST = "Answer Choices:"


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read `MM/dev.jsonl` and `MM/test.jsonl`, or the hub's parquet of them, and `images/`.

    Raises:
        DataError: there is no test, or a row cannot be understood; names file and row.
        MissingExtraError: parquet files, and pyarrow is not installed.
    """
    files = {split: _files(source, name) for split, name in SPLITS.items()}
    if not files["test"]:
        raise DataError(
            f"{source}: there is no 'MM/test.jsonl'.",
            "Get MedXpertQA from the hub: TsinghuaC3I/MedXpertQA. Its subset Text has no pictures.",
        )
    images = RowImages.of(_images(source, options))
    dropped: list[Dropped] = []
    found: Counter[Any] = Counter()
    # Generators: pictures that come as bytes are kept only until their first record is written.
    splits = {
        split: _records(split, paths, images, dropped, found) for split, paths in files.items()
    }
    every = [path for paths in files.values() for path in paths]
    if not any(path.suffix == ".parquet" for path in every):
        listed = {split: list(records) for split, records in splits.items()}
        notes = {"completeness": check_counts(NAME, found, EXPECTED), **facts(listed)}
        return Collected({"train": [], **listed}, images, every, dropped, notes)
    return Collected({"train": [], **splits}, images, every, dropped, {"layout": "hub parquet"})


def _files(source: Path, name: str) -> list[Path]:
    """The files of a split: JSON Lines in `MM/` or in the folder itself, else parquet."""
    for folder in (source / "MM", source):
        if (path := folder / f"{name}.jsonl").is_file():
            return [path]
        if found := sorted([*folder.glob(f"{name}*.parquet"), *folder.glob(f"{name}/*.parquet")]):
            return found
    return []


def _images(source: Path, options: PrepareOptions) -> ImageFolder:
    if (source / "images.zip").is_file() and not (source / "images").exists():
        raise DataError(
            f"{source}: 'images.zip' is not unpacked.", "Unpack it there, as the folder images/."
        )
    inner = source / "images" / "images"
    if inner.is_dir():
        return ImageFolder(inner, options.max_pixels, within=source)
    return image_folder(source, options)


def _records(
    split: str,
    paths: list[Path],
    images: RowImages,
    dropped: list[Dropped],
    found: Counter[Any],
) -> Iterator[Record]:
    for row in chain.from_iterable(map(read_rows, paths)):
        found[split,] += 1
        if (record := _record(split, row, images, dropped)) is not None:
            yield record


def _record(split: str, row: Row, images: RowImages, dropped: list[Dropped]) -> Record | None:
    where, values = row
    published = text_field(values, "id", where)
    name = f"{NAME}/{split}/{published}"
    names = images.names(values.get("images"), where)
    if not names:
        dropped.append(Dropped(name, "no image"))
        return None
    meta: dict[str, Any] = {
        "published_id": published,
        "split": split,
        **text_fields(values, where, question_type="question_type"),
        **text_fields(values, where, medical_task="medical_task", organ="body_system"),
    }
    question = text_field(values, "question", where)
    stem = _stem(question, values.get("options"))
    if stem != question:
        meta["raw_question"] = question
    return choice_record(
        name,
        {"question": stem},
        where,
        options=values.get("options"),
        right=values.get("label"),
        image=names,
        meta=meta,
        dropped=dropped,
    )


def _stem(question: str, options: Any) -> str:
    """The question without its list of options, where that list is the options and nothing else."""
    stem, mark, tail = question.rpartition(_LIST)
    if not mark or not isinstance(options, dict):
        return question
    listed = " ".join(f"({mark}) {text}" for mark, text in options.items() if text is not None)
    return stem.rstrip() if tail.split() == listed.split() else question


SOURCE = Source(
    name=NAME,
    title="MedXpertQA MM: 2,000 examination questions with pictures, five options, test only",
    licence="MIT",
    variants={"mm": "published dev (5, as validation) and test"},
    collect=collect,
    hub="TsinghuaC3I/MedXpertQA",
)
