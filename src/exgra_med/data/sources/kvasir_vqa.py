"""Kvasir-VQA (Gautam et al. 2024): endoscopy; the hub's parquet, and Kvasir-VQA-x1's longer texts.

Kvasir-VQA has no published split. Kvasir-VQA-x1 has one; its tables name pictures of Kvasir-VQA,
which stand beside them as `images/<img_id>.jpg`. A question with several right answers has all of
them as its answer, as it is published.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exgra_med.data.records import SPLITS, Record, type_by_answer
from exgra_med.data.sources.parquet import iterate_rows
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import completeness, image_folder, text_field, vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.sources.values import json_value, plain_text
from exgra_med.data.subset import held_out_images, untested_images
from exgra_med.errors import DataError

NAME = "kvasir-vqa"
ROWS = {"all": 58_849, "x1": 159_549}
"""Of the complete releases."""
VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2
_COLUMNS = ["img_id", "question", "answer"]
_OPTIONAL = ("image", "source", "complexity", "question_class", "original")


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read every `*.parquet` of a folder, or for `x1` those of `train` and `test`.

    Raises:
        DataError: a file is missing or broken, or a row cannot be understood.
        MissingExtraError: pyarrow is not installed.
    """
    every = sorted(source.rglob("*.parquet"))
    if not every:
        raise DataError(
            f"{source}: there is no parquet file.",
            "Get SimulaMet-HOST/Kvasir-VQA from the hub, or SimulaMet/Kvasir-VQA-x1 for x1.",
        )
    images = RowImages.of(image_folder(source, options))
    dropped: list[Dropped] = []
    files = dict.fromkeys(SPLITS, every)
    notes: dict[str, Any] = {}
    if options.variant == "x1":
        for split in ("train", "test"):
            files[split] = [path for path in every if _is_of(split, path.relative_to(source))]
            if not files[split]:
                raise DataError(f"{source}: there is no {split}-*.parquet of Kvasir-VQA-x1.")
        files["validation"] = files["train"]
        shown, tested = _shown(files["train"], images), _shown(files["test"], images)
        held = untested_images(shown, tested, VALIDATION_SHARE, options.seed)
        places = dict.fromkeys(shown, "train") | dict.fromkeys(held, "validation")
        rows = shown.total() + tested.total()
        notes = {"test_images_in_train": len(tested.keys() & shown.keys())}
    else:
        shown = _shown(every, images)
        places = dict.fromkeys(shown, "test" if options.variant == "all-test" else "train")
        if options.variant == "image-disjoint":
            places |= held_out_images(shown, VALIDATION_SHARE, TEST_SHARE, options.seed)
        rows = shown.total()
    notes["completeness"] = completeness(rows, ROWS["x1" if options.variant == "x1" else "all"])
    splits = {
        # The published test of x1 stays whole, whatever of it is in train.
        split: _records(
            split,
            files[split],
            None if (options.variant, split) == ("x1", "test") else places,
            images,
            dropped,
        )
        for split in SPLITS
    }
    return Collected(splits, images, every, dropped, notes)


def _is_of(split: str, path: Path) -> bool:
    return any(part.lower().startswith(split) for part in path.parts)


def _shown(paths: list[Path], images: RowImages) -> Counter[str]:
    """Picture -> how many questions show it."""
    return Counter(
        _image(row, where, images, keep=False)
        for where, row in iterate_rows(paths, ["img_id"], ["image"])
    )


def _image(row: Mapping[str, Any], where: str, images: RowImages, keep: bool) -> str:
    """The name of a row's picture: of its bytes, or of a file. x1 has addresses in their place."""
    value = row.get("image")
    content = value.get("bytes") if isinstance(value, dict) else value
    images.keep_bytes = keep
    named = content if isinstance(content, bytes) else f"{text_field(row, 'img_id', where)}.jpg"
    return images.names(named, where)[0]


def _records(
    split: str,
    paths: list[Path],
    places: Mapping[str, str] | None,
    images: RowImages,
    dropped: list[Dropped],
) -> Iterator[Record]:
    for count, (where, row) in enumerate(iterate_rows(paths, _COLUMNS, _OPTIONAL)):
        image = _image(row, where, images, keep=False)
        if places is not None and places[image] != split:
            continue
        meta: dict[str, Any] = {"split": split, "published_image": text_field(row, "img_id", where)}
        meta |= {
            name: json_value(row[column])
            for name, column in (
                ("source", "source"),
                ("complexity", "complexity"),
                ("question_type", "question_class"),
                ("original", "original"),
            )
            if row.get(column) is not None
        }
        record = vqa_record(
            f"{NAME}/{split}/{count}",
            row,
            where,
            image=_image(row, where, images, keep=True),
            answer_type=type_by_answer(plain_text(row["answer"], f"{where}: the answer")),
            meta=meta,
            dropped=dropped,
        )
        if record:
            yield record


SOURCE = Source(
    name=NAME,
    title="Kvasir-VQA: 6,500 endoscopic pictures, 58,849 questions; and Kvasir-VQA-x1",
    licence="CC BY-NC 4.0",
    variants={
        "image-disjoint": "70 / 10 / 20 % by whole pictures (this project's split)",
        "all-test": "every question is a test question, as nothing is published",
        "x1": "Kvasir-VQA-x1 with its published train and test; pictures in images/",
    },
    collect=collect,
    hub="SimulaMet-HOST/Kvasir-VQA",
)
