"""Uploads: bytes -> checked pixels, kept in memory for a while and within a size limit.

Only pixels are kept: no file name, no tag, no metadata. What is held lies in memory alone.
"""

import io
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from PIL import Image

from exgra_med.data.dicom import is_dicom
from exgra_med.data.images import decode_image
from exgra_med.errors import DataError
from exgra_med.web.limits import MEGABYTE

_BYTES_PER_PIXEL = 3
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")
"""Of PNG, JPEG and TIFF in both byte orders."""


def read_picture(content: bytes, max_pixels: int) -> Image.Image:
    """Decode a PNG, JPEG, TIFF or DICOM upload to RGB, by its first bytes, not by its file name;
    one with more than `max_pixels` is refused before it is decoded.

    Raises:
        DataError: of another format, broken, too large, or with text in its pixels.
        MissingExtraError: DICOM without pydicom.
    """
    try:
        if is_dicom(content[:132]) or content.startswith(_BEGINNINGS):
            return _pixels(decode_image(io.BytesIO(content), max_pixels, "upload"))
    except DataError as error:
        # The hints of data preparation name recipes and files, which a visitor does not have.
        raise DataError(
            error.message[:1].upper() + error.message[1:],
            f"Send a whole picture of at most {max_pixels:,} pixels without text burned into it.",
        ) from error
    raise DataError("The upload is not a PNG, JPEG, TIFF or DICOM file.")


class PictureStore:
    """Pictures in memory, those of a conversation under one random name that nobody can guess.

    The least recently used are dropped for want of room, any when they were not used for so long.
    """

    def __init__(
        self,
        max_megabytes: int,
        forget_after_minutes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_megabytes * MEGABYTE
        self._forget_after_seconds = 60 * forget_after_minutes
        self._clock = clock
        self._held: OrderedDict[str, tuple[list[Image.Image], float]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Memory that all pictures take."""
        return sum(_num_bytes(pictures) for pictures, _ in self._held.values())

    def put(self, pictures: Sequence[Image.Image]) -> str:
        """Keep the pictures of a conversation, in their order; returns their name.

        Raises:
            DataError: they are larger than the limit of all pictures.
        """
        self.require_room(pictures)
        with self._lock:
            self._forget_old()
            while self._held and self.held_bytes + _num_bytes(pictures) > self._max_bytes:
                self._held.popitem(last=False)
            name = secrets.token_urlsafe(16)
            self._held[name] = (list(pictures), self._clock())
            return name

    def require_room(self, pictures: Sequence[Image.Image]) -> None:
        """Refuse what `put` will refuse, before more of it is decoded.

        Raises:
            DataError: the pictures are larger than the limit of all pictures.
        """
        if _num_bytes(pictures) > self._max_bytes:
            raise DataError(
                "The upload is larger than the memory this page has for pictures.",
                "Send fewer or smaller ones.",
            )

    def get(self, name: str) -> list[Image.Image]:
        """Pictures that are still there; this counts as a use.

        Raises:
            DataError: they were dropped.
        """
        with self._lock:
            self._forget_old()
            if name not in self._held:
                raise DataError("The picture is no longer in memory.", "Upload it again.")
            pictures, _ = self._held.pop(name)
            self._held[name] = (pictures, self._clock())
            return pictures

    def drop(self, name: str | None) -> None:
        """Delete the pictures of a name, if they are there."""
        with self._lock:
            self._held.pop(name or "", None)

    def _forget_old(self) -> None:
        oldest = self._clock() - self._forget_after_seconds
        for name in [name for name, (_, used) in self._held.items() if used < oldest]:
            del self._held[name]


def _pixels(image: Image.Image) -> Image.Image:
    """The picture without metadata of its file, such as EXIF."""
    return Image.frombytes("RGB", image.size, image.tobytes())


def _num_bytes(pictures: Sequence[Image.Image]) -> int:
    return sum(each.width * each.height * _BYTES_PER_PIXEL for each in pictures)
