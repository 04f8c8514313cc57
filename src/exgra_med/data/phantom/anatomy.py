"""What the phantom world is made of: modalities, regions, organs, kinds of lesion, devices.

Lengths are shares of the picture's side, x to the right, y downwards. Sides are those of the
picture: "left" is where x is below the middle.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
SIZES = ("small", "large")
CONTRASTS = ("bright", "dark")
MODALITIES = ("X-ray", "CT", "MRI", "ultrasound")
DEVICES = ("catheter", "screw", "stent", "pacemaker")

SHAPES = {
    "nodule": "round",
    "abscess": "ring",
    "tumour": "star",
    "scar": "bar",
    "infarct": "wedge",
}
"""Kind of lesion -> its shape, one to one."""
KINDS = tuple(SHAPES)

RADII = {"small": 0.055, "large": 0.095}
"""Radius of a lesion's disc of equal extent: diameters of 7 and 12 pixels at 64."""

REACHES = {"round": 1.0, "ring": 1.12, "star": 1.5, "bar": 1.49, "wedge": 1.36}
"""Shape -> how far its outermost point is from its centre, in radii."""

Tissue = Literal["air", "soft", "fluid", "bone"]


@dataclass(frozen=True)
class Organ:
    """An organ's usual place; an ellipse, or two of them.

    Args:
        region: where it is.
        x: distance of its centre from the middle line; 0 for an organ across it.
        y: height of its centre.
        radius_x: half its width.
        radius_y: half its height.
        tissue: decides its grey level.
        paired: whether there is one on each side. An organ with `x` that is not paired lies there,
            and on the other side in a scene that is mirrored.
    """

    region: str
    x: float
    y: float
    radius_x: float
    radius_y: float
    tissue: Tissue
    paired: bool = False

    @property
    def is_central(self) -> bool:
        """Whether it lies across the middle line, so that it has a left and a right half."""
        return self.x == 0


ORGANS = {
    "eye": Organ("head", 0.19, 0.25, 0.132, 0.132, "fluid", paired=True),
    "brain": Organ("head", 0.0, 0.53, 0.32, 0.16, "soft"),
    "cerebellum": Organ("head", 0.0, 0.82, 0.23, 0.12, "bone"),
    "shoulder": Organ("chest", 0.345, 0.155, 0.13, 0.13, "bone", paired=True),
    "lung": Organ("chest", 0.24, 0.50, 0.17, 0.25, "air", paired=True),
    "heart": Organ("chest", 0.0, 0.80, 0.24, 0.14, "soft"),
    "liver": Organ("abdomen", -0.20, 0.33, 0.22, 0.17, "soft"),
    "stomach": Organ("abdomen", 0.24, 0.33, 0.15, 0.14, "air"),
    "kidney": Organ("abdomen", 0.22, 0.71, 0.13, 0.16, "bone", paired=True),
    "bowel": Organ("pelvis", 0.0, 0.28, 0.31, 0.14, "air"),
    "bladder": Organ("pelvis", 0.0, 0.77, 0.21, 0.15, "fluid"),
    "hip": Organ("pelvis", 0.335, 0.55, 0.13, 0.14, "bone", paired=True),
}
"""Three organs in each of four regions."""
REGIONS = tuple(dict.fromkeys(organ.region for organ in ORGANS.values()))

BODIES = {
    "head": (0.54, 0.43, 0.45),
    "chest": (0.53, 0.49, 0.50),
    "abdomen": (0.52, 0.48, 0.43),
    "pelvis": (0.51, 0.49, 0.42),
}
"""Region -> height of the body's centre, half its width, half its height."""


def organs_of(region: str) -> tuple[str, ...]:
    """The names of a region's organs."""
    return tuple(name for name, organ in ORGANS.items() if organ.region == region)


@cache
def held_out_pairs() -> frozenset[tuple[str, str]]:
    """Organ and kind of lesion that meet in the split `test_composition` only.

    One pair of each organ, so that each organ is seen with every other kind, and each kind with at
    least nine organs. The same for every seed: folders made apart never disagree.
    """
    return frozenset(
        (organ, KINDS[(2 * number + number // len(KINDS)) % len(KINDS)])
        for number, organ in enumerate(ORGANS)
    )
