"""What `#` selects in an image's name: a frame, a slice, a window, or several images at once.

cine.dcm#frame=3                        one frame or page, counted from 0
head.nii.gz#plane=axial,slice=40        one slice of a volume
head.nii.gz#slices=8,plane=coronal      8 images, as `data prepare` stores them
ct.dcm#window=lung                      a window of Hounsfield units
"""

import re
from dataclasses import dataclass, fields
from typing import Any

from exgra_med.data.rendering import CT_WINDOWS
from exgra_med.errors import DataError

PLANES = ("sagittal", "coronal", "axial")
"""Each plane at the canonical axis that it is counted along: 0 left to right, 1 back to front,
2 feet to head."""

_NUMBERS = {"frame": 0, "frames": 1, "slice": 0, "slices": 1, "volume": 0}
"""Word that takes a number -> the least one."""
_CHOICES = {
    "plane": {plane: plane for plane in PLANES},
    "axis": {str(axis): plane for axis, plane in enumerate(PLANES)},
    "window": {window: window for window in CT_WINDOWS},
}
"""Word that takes one of some values -> these, and what they mean."""

_NAME = re.compile(r"(.*)#(\w+=[^/]*)", re.DOTALL)


@dataclass(frozen=True)
class Selection:
    """What a name selects; None where it says nothing of it.

    Args:
        frame: frame of a DICOM file, page of a TIFF, picture of an animation; from 0.
        frames: number of frames to take, evenly spaced.
        plane: one of `PLANES`.
        slice: slice along the plane's axis, from 0.
        slices: number of slices to take, evenly spaced.
        volume: volume of a series of volumes, such as a time point; from 0.
        window: one of `rendering.CT_WINDOWS`.
    """

    frame: int | None = None
    frames: int | None = None
    plane: str | None = None
    slice: int | None = None
    slices: int | None = None
    volume: int | None = None
    window: str | None = None

    def only(self, label: str, kind: str, *words: str) -> None:
        """Refuse what selects nothing in a file of this kind.

        Raises:
            DataError: another word than these is selected.
        """
        # Where one image is opened, nothing that stands for several can be meant.
        several = () if {"frames", "slices"} & set(words) else ("frames", "slices")
        for field in fields(self):
            if getattr(self, field.name) is None or field.name in words:
                continue
            if field.name in several:
                raise DataError(
                    f"{label} stands for several images.",
                    "`exgra-med data prepare` stores each of them; open one by its own name.",
                )
            known = f"Known here: {', '.join(words)}." if words else "Leave it out."
            raise DataError(f"{label}: {field.name!r} selects nothing in {kind}.", known)


def split_name(name: str) -> tuple[str, str]:
    """The file of an image name, and what `#` selects in it: empty where it selects nothing.

    A `#` without `word=` behind it is a character of the file's name.
    """
    match = _NAME.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def parse_selection(name: str, label: str) -> Selection:
    """What the name of an image selects.

    Args:
        label: how an error names the image.

    Raises:
        DataError: an unknown word, a word given twice, or a value that it does not take.
    """
    _, text = split_name(name)
    found: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        word, _, value = part.partition("=")
        if word in _NUMBERS:
            # No more digits than the largest index needs.
            if not re.fullmatch("[0-9]{1,9}", value) or int(value) < _NUMBERS[word]:
                raise DataError(
                    f"{label}: {word}={value} is not a whole number from {_NUMBERS[word]}.",
                    f"Write, for example, {word}=3.",
                )
            chosen: int | str = int(value)
        elif word in _CHOICES:
            if value not in _CHOICES[word]:
                raise DataError(
                    f"{label}: there is no {word} {value!r}.",
                    f"Known are {', '.join(_CHOICES[word])}.",
                )
            chosen = _CHOICES[word][value]
        else:
            raise DataError(
                f"{label}: {word!r} behind '#' is not known.",
                f"Known are {', '.join((*_NUMBERS, *_CHOICES))}.",
            )
        # The axes of the canonical orientation are planes, for who thinks in arrays.
        word = "plane" if word == "axis" else word
        if word in found:
            raise DataError(f"{label}: the {word} is selected twice.", "Select one.")
        found[word] = chosen
    return Selection(**found)


def evenly_spaced(wanted: int, available: int, label: str, what: str) -> list[int]:
    """Which of so many frames or slices stand for all: the middle one of each of `wanted` parts.

        index_i = floor((i + 1/2) * available / wanted),  i = 0 .. wanted - 1

    Raises:
        DataError: more are wanted than there are.
    """
    if wanted > available:
        raise DataError(f"{label}: there are {available} {what}, not {wanted}.", "Ask for fewer.")
    return [(2 * index + 1) * available // (2 * wanted) for index in range(wanted)]
