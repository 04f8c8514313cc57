"""Images scaled to a model's size once, without loss, so that no epoch decodes the originals.

The short side becomes `shortest_pixels` by PIL's bicubic filter and the result is stored as PNG:
exactly the first step of CLIP's image processor, which then has nothing left to resize. Pixel
values are therefore bit-equal to those of the full image.
"""

import io
from dataclasses import dataclass

from PIL import Image

from exgra_med.data.images import ImageFolder


@dataclass(frozen=True)
class ResizedImages:
    """The images of a folder, their short side scaled to a length.

    Args:
        folder: the full images.
        shortest_pixels: new length of the short side; the long one keeps the proportion.
    """

    folder: ImageFolder
    shortest_pixels: int

    def stored_name(self, name: str) -> str:
        """The name in the new folder; the format is PNG now."""
        return name if name.endswith(".png") else f"{name}.png"

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The scaled image as PNG.

        Raises:
            DataError: the image is missing or broken.
        """
        image = self.folder.open(name, where)
        size = resized_size(image.size, self.shortest_pixels)
        stream = io.BytesIO()
        image.resize(size, Image.Resampling.BICUBIC).save(stream, "PNG", compress_level=4)
        return stream.getvalue()


def resized_size(size: tuple[int, int], shortest_pixels: int) -> tuple[int, int]:
    """(width, height) with the given short side; the long side is rounded down, as CLIP does."""
    short = min(size)
    width, height = (
        shortest_pixels if side == short else int(shortest_pixels * side / short) for side in size
    )
    return width, height
