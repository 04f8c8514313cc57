"""Parquet files (extra `parquet`): rows in batches, and images that came as bytes, by hash."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exgra_med.data.images import MAX_IMAGE_BYTES, stored_image
from exgra_med.data.sources.source import ImageBytes
from exgra_med.data.sources.values import Row
from exgra_med.errors import DataError
from exgra_med.plugins import import_extra

BATCH_ROWS = 64
"""Rows decoded at once."""


def iterate_rows(
    paths: list[Path], columns: list[str] | None = None, optional: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield where each row of parquet files stands, and the row, without holding a file.

    Args:
        columns: names that are read; all of them where absent.
        optional: names that are read where they are there.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DataError: a file is no parquet file, lacks a column, or has one twice.
    """
    import_extra("pyarrow.parquet", "Reading parquet files", "parquet")
    pyarrow = import_extra("pyarrow", "Reading parquet files", "parquet")
    for path in paths:
        try:
            file = pyarrow.parquet.ParquetFile(path)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: not a complete parquet file.") from error
        names = file.schema_arrow.names
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise DataError(f"{path}: the column {twice[0]!r} is there twice.")
        missing = [name for name in columns or [] if name not in names]
        if missing:
            raise DataError(
                f"{path}: the column {missing[0]!r} is missing.", f"It has {', '.join(names)}."
            )
        wanted = names
        if columns is not None:
            wanted = [*columns, *(name for name in optional if name in names)]
        batches = iter(file.iter_batches(BATCH_ROWS, columns=wanted))
        number = 0
        while True:
            try:
                # Pages behind a whole header may be damaged, and texts be no UTF-8.
                rows = next(batches).to_pylist()
            except StopIteration:
                break
            except (OSError, ValueError, pyarrow.ArrowException) as error:
                raise DataError(
                    f"{path}: damaged behind row {number}.", "Download it again."
                ) from error
            for row in rows:
                yield f"{path.name}: row {number}", row
                number += 1


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
