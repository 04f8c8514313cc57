"""The data set `pocket`: three invented records. Their images are drawn here, not read."""

import io
from pathlib import Path

from PIL import Image, ImageDraw

from exgra_med.data.records import Record
from exgra_med.data.sources.rows import vqa_record
from exgra_med.data.sources.source import Collected, Dropped, ImageBytes, PrepareOptions, Source
from exgra_med.errors import DataError

NAME = "pocket"
SIDES = {"train": "left", "validation": "right", "test": "left"}
"""Split -> the side of the bright disc in its one image."""


class DrawnImages(ImageBytes):
    """Images that are drawn when they are asked for. For files there is `ImageFolder`."""

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """A PNG file of 64 x 64 pixels."""
        image = Image.new("L", (64, 64), 40)
        x = 8 if SIDES[name.removesuffix(".png")] == "left" else 36
        ImageDraw.Draw(image).ellipse((x, 22, x + 20, 42), fill=220)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Make the three records.

    Args:
        source: the folder to read; this data set reads none.
        options: variant, seed, limits, and the settings a user gave.

    Raises:
        DataError: a setting was given, and there are none.
    """
    if options.settings:
        raise DataError(f"{NAME} has no setting {next(iter(options.settings))!r}.", "Leave it out.")
    dropped: list[Dropped] = []
    splits: dict[str, list[Record]] = {}
    for split, side in SIDES.items():
        record = vqa_record(
            f"{NAME}/{split}/0",
            {"question": "On which side is the disc, left or right?", "answer": side},
            split,
            image=f"{split}.png",
            answer_type="CLOSED",
            meta={"split": split, "modality": "drawing"},
            dropped=dropped,
        )
        splits[split] = [record] if record else []
    return Collected(splits, DrawnImages(), files=[], dropped=dropped)


SOURCE = Source(
    name=NAME,
    title="three invented records, from the example of a plug-in",
    licence="CC0 1.0",
    variants={"all": "one record a split"},
    collect=collect,
    needs_files=False,
)
