"""Hub parquet files with `image`, `question`, `answer`, read in batches (extra `parquet`)."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exgra_med.data.images import MAX_IMAGE_BYTES, decode_image
from exgra_med.errors import DataError, MissingExtraError


def iterate_rows(paths: list[Path], columns: list[str], batch_size: int = 64) -> Iterator[Any]:
    """Yield (path, row number, row) of parquet files without holding a file.

    Args:
        paths: files, in order.
        columns: names that must be there.
        batch_size: rows decoded at once.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: a file is no parquet file or lacks a column.
    """
    try:
        import pyarrow  # pyrefly: ignore
        import pyarrow.parquet  # pyrefly: ignore
    except ImportError as error:
        raise MissingExtraError("reading parquet files", "parquet") from error
    for path in paths:
        try:
            file = pyarrow.parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: not a whole parquet file.") from error
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise DataError(f"{path}: the column {missing[0]!r} is missing.")
        number = 0
        for batch in file.iter_batches(batch_size, columns=columns):
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
        """Keep an image and return its name.

        Raises:
            DataError: not bytes, or too many.
        """
        if isinstance(content, dict):
            content = content.get("bytes")
        if not isinstance(content, bytes):
            raise DataError(f"{where}: the image is not stored as bytes.")
        if len(content) > MAX_IMAGE_BYTES:
            raise DataError(f"{where}: the image is larger than {MAX_IMAGE_BYTES} bytes.")
        ending = "png" if content.startswith(b"\x89PNG") else "jpg"
        name = f"{hashlib.sha256(content).hexdigest()[:24]}.{ending}"
        if name not in self.delivered:
            self.content[name] = content
        return name

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
