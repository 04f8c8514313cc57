"""Hub parquet files with `image`, `question`, `answer`, read in batches (extra `parquet`)."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exgra_med.data.images import MAX_IMAGE_BYTES, decode_image
from exgra_med.errors import DataError, import_extra


def iterate_rows(
    paths: list[Path],
    columns: list[str],
    optional: Sequence[str] = (),
    batch_size: int = 64,
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Yield (path, row number, row) of parquet files without holding a file.

    Args:
        paths: files, in order.
        columns: names that must be there.
        optional: names that are read where they are there.
        batch_size: rows decoded at once.

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
            raise DataError(f"{path}: not a whole parquet file.") from error
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
