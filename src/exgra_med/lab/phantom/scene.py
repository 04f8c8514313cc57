"""A scene decides everything before it is drawn, so that the answer to each question is known.

First stands what the world is made of: modalities, regions, organs, kinds of lesion, devices.
Lengths are shares of the picture's side, x to the right, y downwards. Sides are those of the
picture: "left" is where x is below the middle.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import numpy as np

from exgra_med.lab.phantom.shapes import device_distance

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
    """An organ's usual place: an ellipse around `x, y`, or two of them where it is paired.

    `x` is measured from the middle line; an organ with `x` that is not paired lies there, and on
    the other side in a scene that is mirrored. The tissue decides the grey level.
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


SPLITS = (
    "train", "validation", "test", "test_composition", "vision", "language", "finetune",
    "existence",
)  # fmt: skip
"""Splits of the world. Their order is part of every scene's seed: only ever add at the end."""

_NUM_LESIONS = (0.2, 0.4, 0.25, 0.15)
"""How often a scene has none, one, two, three lesions."""
_GAP = 0.015
_MAX_TRIES = 1000


@dataclass(frozen=True)
class PlacedOrgan:
    """An ellipse of one organ: its centre and half axes."""

    name: str
    side: Side | None
    x: float
    y: float
    radius_x: float
    radius_y: float


@dataclass(frozen=True)
class Lesion:
    """A lesion; `x, y` is its centre, `angle` in radians."""

    organ: str
    side: Side
    kind: str
    size: str
    contrast: str
    x: float
    y: float
    angle: float

    @property
    def shape(self) -> str:
        """What it looks like."""
        return SHAPES[self.kind]

    @property
    def radius(self) -> float:
        """Of the disc of equal extent."""
        return RADII[self.size]

    @property
    def reach(self) -> float:
        """From its centre to its outermost point."""
        return REACHES[self.shape] * self.radius

    @property
    def pair(self) -> tuple[str, str]:
        """What a composition is made of."""
        return self.organ, self.kind


@dataclass(frozen=True)
class Device:
    """A device of metal; `x, y` is its centre, or the end of a catheter's tip."""

    kind: str
    x: float
    y: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """Everything that is in a picture; where it is mirrored, the liver is on the right.

    It has none to three lesions, no two in one place.
    """

    split: str
    number: int
    modality: str
    region: str
    mirrored: bool
    organs: tuple[PlacedOrgan, ...]
    lesions: tuple[Lesion, ...]
    device: Device | None
    texture_seed: int = field(repr=False)
    """Of noise and speckle."""


def sample_scene(seed: int, split: str, number: int) -> Scene:
    """Scene `number` of a split; the same whatever else is made.

    Lesions of `test_composition` are held-out pairs of organ and kind, those of every other split
    never are.
    """
    random = np.random.default_rng([seed, SPLITS.index(split), number])
    modality = _one_of(random, MODALITIES)
    region = _one_of(random, REGIONS)
    mirrored = bool(random.integers(2))
    organs = _place_organs(random, region, mirrored)
    counts = np.array(_NUM_LESIONS)
    if split == "test_composition":
        counts = np.array([0, *counts[1:]]) / counts[1:].sum()
    num_lesions = int(random.choice(len(counts), p=counts))
    lesions = _place_lesions(random, organs, num_lesions, split == "test_composition")
    device = _place_device(random, lesions) if random.integers(2) else None
    texture_seed = int(random.integers(2**32))
    return Scene(split, number, modality, region, mirrored, organs, lesions, device, texture_seed)


def _one_of(random: np.random.Generator, values: Any) -> Any:
    return values[int(random.integers(len(values)))]


def _place_organs(
    random: np.random.Generator, region: str, mirrored: bool
) -> tuple[PlacedOrgan, ...]:
    shift_x, shift_y = random.uniform(-0.015, 0.015, 2).tolist()
    placed = []
    for name in organs_of(region):
        organ = ORGANS[name]
        stretch_x, stretch_y = random.uniform(0.95, 1.06, 2).tolist()
        radii = organ.radius_x * stretch_x, organ.radius_y * stretch_y
        for x, side in _centres(organ, mirrored):
            away_x, away_y = random.uniform(-0.008, 0.008, 2).tolist()
            centre = 0.5 + x + shift_x + away_x, organ.y + shift_y + away_y
            placed.append(PlacedOrgan(name, side, *centre, *radii))
    return tuple(placed)


def _centres(organ: Organ, mirrored: bool) -> list[tuple[float, Side | None]]:
    if organ.is_central:
        return [(0.0, None)]
    if organ.paired:
        return [(-organ.x, "left"), (organ.x, "right")]
    x = -organ.x if mirrored else organ.x
    return [(x, "left" if x < 0 else "right")]


def _place_lesions(
    random: np.random.Generator, organs: tuple[PlacedOrgan, ...], number: int, held_out: bool
) -> tuple[Lesion, ...]:
    # What lesions are is settled before where they are, so that no attribute depends on the room
    # there is: "small" must not be the likelier answer in a crowded organ. About one scene in ten
    # thousand has no room at all for what was settled, and is settled anew.
    for _ in range(_MAX_TRIES):
        lesions = _choose_lesions(random, organs, number, held_out)
        for _ in range(_MAX_TRIES):
            lesions = [_moved(random, organs, lesion) for lesion in lesions]
            if all(_apart(a, b) for place, a in enumerate(lesions) for b in lesions[:place]):
                return tuple(lesions)
    raise AssertionError("some lesions always find room")


def _choose_lesions(
    random: np.random.Generator, organs: tuple[PlacedOrgan, ...], number: int, held_out: bool
) -> list[Lesion]:
    """Lesions without a position, each in another organ or in the other of a pair."""
    names = tuple(dict.fromkeys(organ.name for organ in organs))
    chosen: dict[tuple[str, Side | None], Lesion] = {}
    while len(chosen) < number:
        name = _one_of(random, names)
        wanted: Side = _one_of(random, SIDES)
        parts = [organ for organ in organs if organ.name == name]
        host = next((part for part in parts if part.side == wanted), parts[0])
        kinds = [kind for kind in KINDS if ((name, kind) in held_out_pairs()) == held_out]
        kind, size, contrast = (_one_of(random, each) for each in (kinds, SIZES, CONTRASTS))
        place = host.x, host.y, float(random.uniform(0, 2 * math.pi))
        lesion = Lesion(name, host.side or wanted, kind, size, contrast, *place)
        chosen.setdefault((name, host.side), lesion)
    return list(chosen.values())


def _moved(random: np.random.Generator, organs: tuple[PlacedOrgan, ...], lesion: Lesion) -> Lesion:
    """The lesion somewhere in its organ, on its side."""
    sides = (None, lesion.side)
    [host] = [each for each in organs if each.name == lesion.organ and each.side in sides]
    room_x = max(0.0, host.radius_x - lesion.radius - 0.01)
    room_y = max(0.0, host.radius_y - lesion.radius - 0.01)
    y = host.y + 0.6 * room_y * float(random.uniform(-1, 1))
    if host.side is not None:
        x = host.x + 0.6 * room_x * float(random.uniform(-1, 1))
        return replace(lesion, x=x, y=y)
    # Far enough from the middle line that a person sees the side.
    least = lesion.radius + 0.02
    offset = float(random.uniform(least, max(least, room_x)))
    x = host.x + (-offset if lesion.side == "left" else offset)
    return replace(lesion, x=x, y=y)


def _apart(first: Lesion, second: Lesion) -> bool:
    distance = math.hypot(first.x - second.x, first.y - second.y)
    return distance > first.reach + second.reach + _GAP


def _place_device(random: np.random.Generator, lesions: tuple[Lesion, ...]) -> Device:
    kind = _one_of(random, DEVICES)
    for _ in range(_MAX_TRIES):
        device = Device(kind, *random.uniform((0.2, 0.3, 0), (0.8, 0.8, 2 * math.pi)).tolist())
        centres = np.array([[lesion.x, lesion.y] for lesion in lesions]).reshape(-1, 2)
        distance = device_distance(device, centres[:, 0], centres[:, 1])
        reaches = np.array([lesion.reach for lesion in lesions])
        if (distance > reaches + _GAP).all():
            return device
    raise AssertionError("a device always finds room beside three lesions")
