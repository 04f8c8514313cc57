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

from exgra_med.data.images import MAX_IMAGE_BYTES, stored_image
from exgra_med.data.records import SPLITS, Record
from exgra_med.data.sources.rows import vqa_record
from exgra_med.data.sources.source import Collected, Dropped, ImageBytes, PrepareOptions
from exgra_med.data.subset import untested_images
from exgra_med.errors import DataError
from exgra_med.plugins import import_extra

VALIDATION_SHARE = 0.1
BATCH_ROWS = 64
"""Rows decoded at once."""
_COLUMNS = ["image", "question", "answer"]


def iterate_rows(
    paths: list[Path], columns: list[str], optional: Sequence[str] = ()
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Yield (path, row number, row) of parquet files without holding a file.

    Args:
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
        wanted = [*columns, *(name for name in optional if name in names)]
        batches = file.iter_batches(BATCH_ROWS, columns=wanted)
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            yield path, number, row


@dataclass
class BytesImages(ImageBytes):
    """Images that came as bytes, named by their hash, so that equal images are stored once."""

    max_pixels: int
    content: dict[str, bytes] = field(default_factory=dict)
    delivered: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, content: bytes) -> None:
        """Keep an image until it is written."""
        if name not in self.delivered:
            self.content[name] = content

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The image for the prepared folder, as `stored_image`; it is not kept any longer.

        Raises:
            DataError: the image is broken.
        """
        content = self.content.pop(name)
        self.delivered[name] = name
        stream = io.BytesIO(content)
        self.delivered[name], stored = stored_image(stream, self.max_pixels, name, where)
        return stored

    def stored_name(self, name: str) -> str:
        """Its name, or with `.png` where it was rendered; known once it was read."""
        return self.delivered[name]


def named_image(content: Any, where: str) -> tuple[str, bytes]:
    """The name of an image, which begins its sha256, and its bytes.

    Args:
        content: of a hub image column: bytes or `{"bytes", "path"}`.

    Raises:
        DataError: not bytes, or too many.
    """
    value = content.get("bytes") if isinstance(content, dict) else content
    if not isinstance(value, bytes):
        raise DataError(f"{where}: the image is not stored as bytes.")
    if len(value) > MAX_IMAGE_BYTES:
        raise DataError(f"{where}: the image is larger than {MAX_IMAGE_BYTES} bytes.")
    kinds = ((b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"BM", ".bmp"), (b"\xff\xd8", ".jpg"))
    # What is none of these is rendered, and gets its ending then.
    ending = next((ending for start, ending in kinds if value.startswith(start)), "")
    return f"{hashlib.sha256(value).hexdigest()[:24]}{ending}", value


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
    images = BytesImages(options.max_pixels)
    dropped: list[Dropped] = []
    held: set[str] = set()
    if not files["validation"]:
        tested = set(_image_names(files["test"]))
        train = Counter(_image_names(files["train"]))
        held = untested_images(train, tested, VALIDATION_SHARE, options.seed)
    # Generators: an image's bytes are kept only until its first record is written.
    splits = {
        split: _records(name, split, files[split] or files["train"], images, held, dropped)
        for split in SPLITS
    }
    every = [path for paths in files.values() for path in paths]
    return Collected(splits, images, every, dropped, {"layout": "hub parquet"})


def _image_names(paths: list[Path]) -> Iterator[str]:
    for path, number, row in iterate_rows(paths, ["image"]):
        yield named_image(row["image"], f"{path.name}: row {number}")[0]


def _records(
    name: str,
    split: str,
    paths: list[Path],
    images: BytesImages,
    held: set[str],
    dropped: list[Dropped],
) -> Iterator[Record]:
    for count, (path, number, row) in enumerate(iterate_rows(paths, _COLUMNS)):
        where = f"{path.name}: row {number}"
        image, content = named_image(row["image"], where)
        if held and split != "test" and (image in held) != (split == "validation"):
            continue
        images.add(image, content)
        closed = str(row["answer"]).strip().lower() in ("yes", "no")
        record = vqa_record(
            f"{name}/{split}/{count}",
            row,
            where,
            image=image,
            answer_type="CLOSED" if closed else "OPEN",
            meta={"split": split, "row": count},
            dropped=dropped,
        )
        if record:
            yield record
