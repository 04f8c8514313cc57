"""The hub's parquet copies of VQA-RAD and PathVQA: image, question, answer, and nothing else.

Without ids and answer types, a question counts as CLOSED only where the answer is yes or no: the
hub's VQA-RAD has 251 closed test questions where the official release has 272.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exgra_med.data.record import Record
from exgra_med.data.sources.parquet import BytesImages, iterate_rows
from exgra_med.data.sources.rows import vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions
from exgra_med.data.subset import images_for_share
from exgra_med.errors import DataError

SPLITS = ("train", "validation", "test")
VALIDATION_SHARE = 0.1
_COLUMNS = ["image", "question", "answer"]


def collect_parquet(name: str, source: Path, options: PrepareOptions) -> Collected:
    """Read `train-*.parquet`, `test-*.parquet` and, where published, `validation-*.parquet`.

    Without a published validation split, whole images of train that no test question shows are
    taken.

    Args:
        name: of the dataset, for ids.
        source: folder with the files, at any depth.
        options: seed and limits.

    Raises:
        DataError: a split is missing or a file is broken.
        MissingExtraError: pyarrow is not installed.
    """
    files = {split: sorted(source.rglob(f"{split}-*.parquet")) for split in SPLITS}
    for split in ("train", "test"):
        if not files[split]:
            raise DataError(f"{source}: there is no {split}-*.parquet.")
    images = BytesImages(options.max_pixels)
    dropped: list[Dropped] = []
    held: set[str] = set()
    if not files["validation"]:
        tested = Counter(_image_names(files["test"], images))
        train = Counter(_image_names(files["train"], images))
        free = {image: count for image, count in train.items() if image not in tested}
        share = min(1.0, VALIDATION_SHARE * train.total() / max(1, sum(free.values())))
        held = images_for_share(free, share, options.seed, "validation")
    # Generators: an image's bytes are kept only until its first record is written.
    splits = {
        split: _records(name, split, files[split] or files["train"], images, held, dropped)
        for split in SPLITS
    }
    every = [path for paths in files.values() for path in paths]
    return Collected(splits, images, every, dropped, {"layout": "hub parquet"})


def _image_names(paths: list[Path], images: BytesImages) -> Iterator[str]:
    for path, number, row in iterate_rows(paths, ["image"]):
        yield images.name(row["image"], f"{path.name}: row {number}")


def _records(
    name: str,
    split: str,
    paths: list[Path],
    images: BytesImages,
    held: set[str],
    dropped: list[Dropped],
) -> Iterator[Record]:
    count = 0
    for path, number, row in iterate_rows(paths, _COLUMNS):
        where = f"{path.name}: row {number}"
        image = images.name(row["image"], where)
        published = count
        count += 1
        if held and split != "test" and (image in held) != (split == "validation"):
            continue
        images.add(row["image"], where)
        closed = str(row["answer"]).strip().lower() in ("yes", "no")
        meta: dict[str, Any] = {"split": split, "row": published}
        record = vqa_record(
            f"{name}/{split}/{published}",
            row,
            where,
            image=image,
            answer_type="CLOSED" if closed else "OPEN",
            meta=meta,
            dropped=dropped,
        )
        if record:
            yield record
