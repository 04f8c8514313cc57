"""Scene -> picture, in the look of its modality."""

import io
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exgra_med.lab.phantom.scene import BODIES, ORGANS, Lesion, Scene

if TYPE_CHECKING:
    from exgra_med.lab.phantom.scene import Device, Lesion


# Shapes as signed distances: below 0 inside, in the unit of the coordinates.


Floats = NDArray[np.floating[Any]]


def ellipse(x: Floats, y: Floats, radius_x: float, radius_y: float) -> Floats:
    """Distance to an ellipse around the origin; exact at its edge, close elsewhere."""
    scaled = np.hypot(x / radius_x, y / radius_y)
    slope = np.hypot(x / radius_x**2, y / radius_y**2)
    return scaled * (scaled - 1) / np.maximum(slope, 1e-6)


def segment(
    x: Floats, y: Floats, start: tuple[float, float], end: tuple[float, float], width: float
) -> Floats:
    """Distance to a line with round ends.

    Args:
        x: horizontal coordinates, any shape.
        y: vertical coordinates, of that shape.
        start: one end.
        end: the other end.
        width: half the line's width.
    """
    run_x, run_y = end[0] - start[0], end[1] - start[1]
    share = ((x - start[0]) * run_x + (y - start[1]) * run_y) / (run_x**2 + run_y**2)
    share = np.clip(share, 0, 1)
    return np.hypot(x - start[0] - share * run_x, y - start[1] - share * run_y) - width


def box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    """Distance to an upright rectangle around the origin."""
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def lesion_distance(lesion: "Lesion", x: Floats, y: Floats) -> Floats:
    """Distance to a lesion of whichever shape."""
    x, y = _turned(x - lesion.x, y - lesion.y, lesion.angle)
    radius = lesion.radius
    if lesion.shape == "ring":
        return np.abs(np.hypot(x, y) - 0.82 * radius) - 0.3 * radius
    if lesion.shape == "bar":
        half = 1.15 * radius
        return segment(x, y, (-half, 0.0), (half, 0.0), 0.34 * radius)
    if lesion.shape == "wedge":
        return _triangle(x, y, 0.68 * radius)
    if lesion.shape == "star":
        return _star(x, y, 1.5 * radius, 0.6 * radius)
    return np.hypot(x, y) - radius


def _triangle(x: Floats, y: Floats, inner_radius: float) -> Floats:
    sides = [
        x * math.cos(angle) + y * math.sin(angle) - inner_radius
        for angle in (0.0, 2 * math.pi / 3, 4 * math.pi / 3)
    ]
    return np.maximum.reduce(sides)


def _star(x: Floats, y: Floats, outer: float, inner: float) -> Floats:
    """Five points; `outer` and `inner` are the radii of tips and notches."""
    half = math.pi / 5
    around = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    # One edge runs from the tip at (outer, 0) to the notch; by symmetry all others are this one.
    run_x, run_y = inner * math.cos(half) - outer, inner * math.sin(half)
    along, across = radius * np.cos(around) - outer, radius * np.sin(around)
    return (along * run_y - across * run_x) / math.hypot(run_x, run_y)


def device_distance(device: "Device", x: Floats, y: Floats) -> Floats:
    """Distance to a device of whichever kind."""
    if device.kind == "catheter":
        return _catheter(device, x, y)
    x, y = _turned(x - device.x, y - device.y, device.angle)
    if device.kind == "screw":
        thread = segment(x, y, (-0.13, 0.0), (0.11, 0.0), 0.017)
        head = segment(x, y, (-0.13, -0.05), (-0.13, 0.05), 0.02)
        return np.minimum(thread, head)
    if device.kind == "stent":
        rails = np.abs(np.abs(y) - 0.045) - 0.009
        rungs = np.abs((x + 0.14) % 0.07 - 0.035) - 0.009
        return np.maximum(np.minimum(rails, rungs), box(x, y, 0.14, 0.054))
    wire = segment(x, y, (0.0, 0.0), (0.17, 0.02), 0.009)
    tip = segment(x, y, (0.17, 0.02), (0.20, 0.12), 0.009)
    return np.minimum.reduce([box(x, y, 0.06, 0.048), wire, tip])


def _catheter(device: "Device", x: Floats, y: Floats) -> Floats:
    bend = 0.12 * math.sin(device.angle)
    points = [(device.x + 0.1 * math.cos(device.angle), -0.05)]
    points += [(device.x + bend, 0.4 * device.y), (device.x + 0.6 * bend, 0.75 * device.y)]
    points += [(device.x, device.y)]
    lines = [segment(x, y, a, b, 0.012) for a, b in pairwise(points)]
    return np.minimum.reduce(lines)


def _turned(x: Floats, y: Floats, angle: float) -> tuple[Floats, Floats]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine


_LEVELS = {
    "X-ray": {"outside": 0.06, "body": 0.40, "air": 0.3, "soft": 0.52, "fluid": 0.55, "bone": 0.62},
    "CT": {"outside": 0.0, "body": 0.14, "air": 0.32, "soft": 0.47, "fluid": 0.40, "bone": 0.58},
    "MRI": {"outside": 0.02, "body": 0.16, "air": 0.33, "soft": 0.45, "fluid": 0.6, "bone": 0.36},
    "ultrasound": {
        "outside": 0.15,
        "body": 0.21,
        "air": 0.36,
        "soft": 0.46,
        "fluid": 0.37,
        "bone": 0.52,
    },
}
"""Grey level of each tissue, 0 black to 1 white; organs leave room for brighter and darker."""

_SOFTNESS = {"X-ray": 3.0, "CT": 1.0, "MRI": 1.6, "ultrasound": 1.6}
"""Width of an organ's edge in pixels at 64."""

_CONTRAST = 0.3
"""How much a lesion is brighter or darker than its organ."""
_BRIGHTEST = 0.92


def draw_scene(scene: Scene, pixels: int) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: what is seen.
        pixels: side of the picture.

    Returns:
        [pixels, pixels] uint8 grey levels.
    """
    x, y = _grid(pixels)
    random = np.random.default_rng(scene.texture_seed)
    levels = _LEVELS[scene.modality]
    softness = _SOFTNESS[scene.modality] * pixels / 64
    centre_y, radius_x, radius_y = BODIES[scene.region]
    body = ellipse(x - 0.5, y - centre_y, radius_x, radius_y)
    picture = np.full((pixels, pixels), levels["outside"])
    picture = _over(picture, _cover(body, pixels, softness), levels["body"])
    picture = _surroundings(scene, picture, body, x, y)
    for organ in scene.organs:
        distance = ellipse(x - organ.x, y - organ.y, organ.radius_x, organ.radius_y)
        level = levels[ORGANS[organ.name].tissue]
        picture = _over(picture, _cover(distance, pixels, softness), level)
        if scene.modality in ("CT", "MRI"):
            # A thin darker seam keeps neighbours of like grey apart.
            seam = _cover(np.abs(distance) - 0.006, pixels, softness)
            picture = _over(picture, 0.5 * seam, levels["outside"])
    for lesion in scene.lesions:
        level = levels[ORGANS[lesion.organ].tissue]
        sign = 1 if lesion.contrast == "bright" else -1
        level = float(np.clip(level + sign * _CONTRAST, 0.02, _BRIGHTEST))
        picture = _over(picture, lesion_cover(lesion, pixels), level)
    picture = _texture(scene, picture, x, y, random)
    if scene.device:
        metal = _cover(device_distance(scene.device, x, y), pixels, pixels / 64)
        picture = _over(picture, metal, 1.0)
    if scene.modality == "ultrasound":
        picture = picture * _fan(x, y, pixels)
    return np.clip(255 * picture + 0.5, 0, 255).astype(np.uint8)


def lesion_cover(lesion: Lesion, pixels: int) -> Floats:
    """How much of each pixel a lesion covers: [pixels, pixels], 0..1."""
    x, y = _grid(pixels)
    return _cover(lesion_distance(lesion, x, y), pixels, 1.2 * pixels / 64)


def png_bytes(picture: np.ndarray) -> bytes:
    """A picture as a PNG file of one grey channel."""
    stream = io.BytesIO()
    Image.fromarray(picture, mode="L").save(stream, "PNG")
    return stream.getvalue()


def _grid(pixels: int) -> tuple[Floats, Floats]:
    """Coordinates of the pixels' centres, each [pixels, pixels]."""
    middle = (np.arange(pixels) + 0.5) / pixels
    x, y = np.meshgrid(middle, middle)
    return x, y


def _cover(distance: Floats, pixels: int, softness: float) -> Floats:
    return np.clip(0.5 - distance * pixels / softness, 0, 1)


def _over(picture: Floats, cover: Floats, level: float) -> Floats:
    return picture + cover * (level - picture)


def _surroundings(scene: Scene, picture: Floats, body: Floats, x: Floats, y: Floats) -> Floats:
    """What tells the modality beside its texture: bones, a bright rim, the table."""
    pixels = len(picture)
    softness = _SOFTNESS[scene.modality] * pixels / 64
    rim = _cover(np.abs(body + 0.012) - 0.012, pixels, softness)
    if scene.modality == "X-ray":
        bone = _cover(np.abs(x - 0.5) - 0.035, pixels, softness)
        if scene.region == "head":
            bone = 1.4 * rim
        for height in np.arange(0.3, 0.95, 0.13) if scene.region == "chest" else ():
            arc = np.abs(y - height - 0.5 * (np.abs(x - 0.5) - 0.25) ** 2) - 0.012
            bone = np.maximum(bone, 0.8 * _cover(arc, pixels, softness))
        return picture + 0.13 * bone * (body < 0)
    if scene.modality == "CT":
        if scene.region == "head":
            return _over(picture, rim, 0.85)
        table = segment(x, y, (0.1, 0.985), (0.9, 0.985), 0.008)
        return _over(_over(picture, _cover(table, pixels, softness), 0.6), 0.6 * rim, 0.35)
    if scene.modality == "MRI":
        return _over(picture, rim, 0.7)
    return picture


def _texture(
    scene: Scene, picture: Floats, x: Floats, y: Floats, random: np.random.Generator
) -> Floats:
    noise = random.standard_normal(picture.shape)
    if scene.modality == "X-ray":
        return picture + 0.035 * noise + 0.05 * (y - 0.5)
    if scene.modality == "CT":
        return np.round(28 * picture) / 28 + 0.008 * noise
    if scene.modality == "MRI":
        tilt, wave = random.uniform(-0.25, 0.25, 2)
        bias = 1 + tilt * (x - 0.5) * 2 + wave * np.cos(np.pi * y)
        other = random.standard_normal(picture.shape)
        return np.hypot(picture * bias + 0.03 * noise, 0.03 * other)
    blurred = (noise + np.roll(noise, 1, axis=1)) / np.sqrt(2)
    return picture * (1 + 0.15 * blurred) * (1.1 - 0.2 * y) + 0.012 * noise


def _fan(x: Floats, y: Floats, pixels: int) -> Floats:
    """The field of a curved probe at the upper edge: 1 inside, 0 outside."""
    depth, across = y + 0.45, np.abs(x - 0.5)
    distance = np.hypot(depth, across)
    angle = np.arctan2(across, depth) - 0.68
    edge = np.maximum(np.maximum(angle * distance, distance - 1.44), 0.47 - distance)
    return _cover(edge, pixels, pixels / 64)
