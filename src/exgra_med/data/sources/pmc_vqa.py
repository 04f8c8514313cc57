"""PMC-VQA (Zhang et al. 2023): multiple choice about figures of open-access articles.

Version 1 has compound figures, version 2 single ones. Version 1 writes the right option as text and
as letter (`Answer`, `Answer_label`), version 2 as letter (`Answer`).
"""

from collections import Counter
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, image_names
from exgra_med.data.sources.options import option_columns, plain_option
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import choice_record, facts, find_path, text_field
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.sources.tables import read_rows
from exgra_med.data.sources.values import plain_text
from exgra_med.data.subset import untested_images
from exgra_med.errors import DataError

NAME = "pmc-vqa"
VALIDATION_SHARE = 0.01
_COLUMNS = ("Figure_path", "Question", "Answer", "Answer_label", "Choice A", "Caption", "split")
_FILES = {
    "v2": {"train": ("train_2.csv", "train2.csv"), "test": ("test_2.csv", "test2.csv")},
    "v1": {"train": ("train.csv",), "test": ("test.csv",)},
    "v1-clean": {"train": ("train.csv",), "test": ("test_clean.csv",)},
}
_FOLDERS = {
    # The archive `images_2.zip` holds a folder `figures`.
    "v2": ("images_2/figures", "images_2", "images2", "figures", "images"),
    "v1": ("images/images", "images"),
}


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read the training and test table of one version, or the one of them that is there.

    Raises:
        DataError: neither is there, or a row cannot be understood; names file and line.
    """
    version = options.variant.partition("-")[0]
    named = _FILES[options.variant]
    files = {
        split: next((source / name for name in names if (source / name).is_file()), None)
        for split, names in named.items()
    }
    if not any(files.values()):
        wanted = " nor ".join(repr(names[0]) for names in named.values())
        raise DataError(
            f"{source}: neither {wanted} is there.",
            "Get them from the hub: RadGenome/PMC-VQA; see --split-variant for the versions.",
        )
    archive = "images_2.zip" if version == "v2" else "images.zip"
    root = find_path(
        source, _FOLDERS[version], f"Unpack {archive} beside the tables.", is_folder=True
    )
    images = RowImages.of(ImageFolder(root, options.max_pixels, within=source))
    dropped: list[Dropped] = []
    notes: Counter[str] = Counter(answers_that_differ_from_their_letter=0)
    splits: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for split, path in files.items():
        for number, (where, row) in enumerate(read_rows(path, _COLUMNS) if path else ()):
            record = _record(f"{NAME}/{split}/{number}", row, where, images, dropped, notes)
            if record:
                splits[split].append(record)
    # No validation is published: whole images of train that no test question shows.
    shown = Counter(image for record in splits["train"] for image in record.images)
    tested = image_names(splits["test"])
    held = untested_images(shown, tested, VALIDATION_SHARE, options.seed)
    whole, splits["train"] = splits["train"], []
    for record in whole:
        splits["validation" if held.issuperset(record.images) else "train"].append(record)
    found = {**notes, "test_images_in_train": len(tested & shown.keys()), **facts(splits)}
    return Collected(splits, images, [path for path in files.values() if path], dropped, found)


def _record(
    name: str,
    row: dict[str, Any],
    where: str,
    images: RowImages,
    dropped: list[Dropped],
    notes: Counter[str],
) -> Record | None:
    columns = option_columns(list(row))
    if not columns:
        raise DataError(f"{where}: there are no columns 'Choice A' to 'Choice D'.")
    answer = plain_text(row.get("Answer"), f"{where}: 'Answer'")
    label = plain_text(row.get("Answer_label"), f"{where}: 'Answer_label'")
    figures = images.names(text_field(row, "Figure_path", where), where)
    if not figures:
        dropped.append(Dropped(name, "no image"))
        return None
    meta: dict[str, Any] = {"published_image": Path(figures[0]).name}
    if caption := plain_text(row.get("Caption"), f"{where}: 'Caption'"):
        meta["caption"] = caption
    record = choice_record(
        name,
        row,
        where,
        options={column: row[column] for column in columns},
        right=label or answer,
        image=figures,
        meta=meta,
        question_key="Question",
        dropped=dropped,
    )
    if record and label and plain_option(record.answer) != plain_option(answer):
        notes["answers_that_differ_from_their_letter"] += 1
    return record


SOURCE = Source(
    name=NAME,
    title="PMC-VQA: multiple choice about figures of PubMed Central, 227,000 questions",
    licence="CC BY-SA; figures CC0 or CC BY, article by article",
    variants={
        "v2": "train_2.csv and test_2.csv: single figures",
        "v1": "train.csv and test.csv: compound figures",
        "v1-clean": "train.csv, and the part of the test that people have checked",
    },
    collect=collect,
    hub="RadGenome/PMC-VQA",
    revision="b56ae594f794867893143b337b4118a835794647",
)
