"""The hub's parquet copies of VQA-RAD and PathVQA: image, question, answer, and nothing else.

Without ids and answer types, a question counts as CLOSED only where the answer is yes or no: the
hub's VQA-RAD has 251 closed test questions where the official release has 272.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from exgra_med.data.records import SPLITS, Record, type_by_answer
from exgra_med.data.sources.parquet import iterate_rows
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import image_folder, vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions
from exgra_med.data.sources.values import plain_text
from exgra_med.data.subset import untested_images
from exgra_med.errors import DataError

VALIDATION_SHARE = 0.1
_COLUMNS = ["image", "question", "answer"]


def collect_parquet(name: str, source: Path, options: PrepareOptions) -> Collected:
    """Read `train-*.parquet`, `test-*.parquet` and, where published, `validation-*.parquet`.

    Without a published validation split, whole images of train that no test question shows are
    taken.

    Raises:
        DataError: a split is missing or a file is broken.
        MissingExtraError: pyarrow is not installed.
    """
    files = {split: sorted(source.rglob(f"{split}-*.parquet")) for split in SPLITS}
    for split in ("train", "test"):
        if not files[split]:
            raise DataError(f"{source}: there is no {split}-*.parquet.")
    images = RowImages.of(image_folder(source, options))
    dropped: list[Dropped] = []
    held: set[str] | None = None
    if not files["validation"]:
        images.keep_bytes = False
        tested = set(_image_names(files["test"], images))
        train = Counter(_image_names(files["train"], images))
        held = set(untested_images(train, tested, VALIDATION_SHARE, options.seed))
    images.keep_bytes = True
    # Generators: an image's bytes are kept only until its first record is written.
    splits = {
        split: _records(name, split, files[split] or files["train"], images, held, dropped)
        for split in SPLITS
    }
    every = [path for paths in files.values() for path in paths]
    return Collected(splits, images, every, dropped, {"layout": "hub parquet"})


def _image_names(paths: list[Path], images: RowImages) -> Iterator[str]:
    for where, row in iterate_rows(paths, ["image"]):
        yield from images.names(row["image"], where)


def _records(
    name: str,
    split: str,
    paths: list[Path],
    images: RowImages,
    held: set[str] | None,
    dropped: list[Dropped],
) -> Iterator[Record]:
    for count, (where, row) in enumerate(iterate_rows(paths, _COLUMNS)):
        name_of_row = f"{name}/{split}/{count}"
        names = images.names(row["image"], where)
        if held is not None and split != "test":
            inside = [each in held for each in names]
            # A row with several images may share one with validation; it is in neither split then.
            if split == "train" and any(inside) and not all(inside):
                dropped.append(Dropped(name_of_row, "shares an image with validation"))
            if any(inside) if split == "train" else not all(inside) or not inside:
                continue
        if not names:
            dropped.append(Dropped(name_of_row, "no image"))
            continue
        record = vqa_record(
            name_of_row,
            row,
            where,
            image=names,
            answer_type=type_by_answer(plain_text(row["answer"], "an answer")),
            meta={"split": split, "row": count},
            dropped=dropped,
        )
        if record:
            yield record
