"""Parquet files of the hub (extra `parquet`): rows in batches, images by hash, VQA-RAD and PathVQA.

The hub's copies of these two have image, question, answer, and nothing else. Without ids and answer
types, a question counts as CLOSED only where the answer is yes or no: the hub's VQA-RAD has 251
closed test questions where the official release has 272.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exgra_med.data.images import MAX_IMAGE_BYTES, decode_image
from exgra_med.data.records import SPLITS, Record
from exgra_med.data.sources.rows import vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions
from exgra_med.data.subset import images_for_share
from exgra_med.errors import DataError
from exgra_med.plugins import import_extra

VALIDATION_SHARE = 0.1
_COLUMNS = ["image", "question", "answer"]


def iterate_rows(
    paths: list[Path],
    columns: list[str],
    optional: Sequence[str] = (),
    batch_size: int = 64,
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Yield (path, row number, row) of parquet files without holding a file.

    Args:
        columns: names that must be there.
        optional: names that are read where they are there.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: a file is no parquet file or lacks a column.
    """
    import_extra("pyarrow.parquet", "Reading parquet files", "parquet")
    pyarrow = import_extra("pyarrow", "Reading parquet files", "parquet")
    for path in paths:
        try:
            file = pyarrow.parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: not a complete parquet file.") from error
        names = set(file.schema_arrow.names)
        missing = [name for name in columns if name not in names]
        if missing:
            raise DataError(f"{path}: the column {missing[0]!r} is missing.")
        number = 0
        wanted = [*columns, *(name for name in optional if name in names)]
        for batch in file.iter_batches(batch_size, columns=wanted):
            for row in batch.to_pylist():
                yield path, number, row
                number += 1


@dataclass
class BytesImages:
    """Images that came as bytes, named by their hash, so that equal images are stored once."""

    max_pixels: int
    content: dict[str, bytes] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)

    def add(self, content: Any, where: str) -> str:
        """Keep an image until it is written, and return its name.

        Raises:
            DataError: not bytes, or too many.
        """
        name = self.name(content, where)
        if name not in self.delivered:
            self.content[name] = _image_bytes(content, where)
        return name

    def name(self, content: Any, where: str) -> str:
        """The name of an image: the beginning of its sha256.

        Raises:
            DataError: not bytes, or too many.
        """
        value = _image_bytes(content, where)
        ending = "png" if value.startswith(b"\x89PNG") else "jpg"
        return f"{hashlib.sha256(value).hexdigest()[:24]}.{ending}"

    def stored_name(self, name: str) -> str:
        """The image's name in a prepared folder: unchanged."""
        return name

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The bytes of an image, after it was decoded once; they are not kept any longer.

        Raises:
            DataError: the image is broken.
        """
        content = self.content.pop(name)
        self.delivered.add(name)
        decode_image(io.BytesIO(content), self.max_pixels, name, where)
        return content


def _image_bytes(content: Any, where: str) -> bytes:
    """The bytes of a hub image column, which is bytes or `{"bytes", "path"}`."""
    value = content.get("bytes") if isinstance(content, dict) else content
    if not isinstance(value, bytes):
        raise DataError(f"{where}: the image is not stored as bytes.")
    if len(value) > MAX_IMAGE_BYTES:
        raise DataError(f"{where}: the image is larger than {MAX_IMAGE_BYTES} bytes.")
    return value


def collect_parquet(name: str, source: Path, options: PrepareOptions) -> Collected:
    """Read `train-*.parquet`, `test-*.parquet` and, where published, `validation-*.parquet`.

    Without a published validation split, whole images of train that no test question shows are
    taken.

    Args:
        source: folder with the files, at any depth.

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
