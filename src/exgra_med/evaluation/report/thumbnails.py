"""Small copies of images for pages."""

import base64
from io import BytesIO

from PIL import Image

_QUALITY = 80


def jpeg(image: Image.Image, side_pixels: int) -> str:
    """A copy that fits a square, as base64 JPEG without any metadata of the file."""
    small = image.convert("RGB")
    small.thumbnail((side_pixels, side_pixels))
    small.info.clear()
    stream = BytesIO()
    small.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
