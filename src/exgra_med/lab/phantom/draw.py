"""Scene -> picture, in the look of its modality."""

import io

import numpy as np
from PIL import Image

from exgra_med.lab.phantom.scene import BODIES, ORGANS, Lesion, Scene
from exgra_med.lab.phantom.shapes import Floats, device_distance, ellipse, lesion_distance, segment

_TISSUES = ("outside", "body", "air", "soft", "fluid", "bone")
_LEVELS = {
    "X-ray": (0.06, 0.40, 0.3, 0.52, 0.55, 0.62),
    "CT": (0.0, 0.14, 0.32, 0.47, 0.40, 0.58),
    "MRI": (0.02, 0.16, 0.33, 0.45, 0.6, 0.36),
    "ultrasound": (0.15, 0.21, 0.36, 0.46, 0.37, 0.52),
}
"""Grey level of each tissue, 0 black to 1 white; organs leave room for brighter and darker."""

_SOFTNESS = {"X-ray": 3.0, "CT": 1.0, "MRI": 1.6, "ultrasound": 1.6}
"""Width of an organ's edge in pixels at 64."""

_CONTRAST = 0.3
"""How much a lesion is brighter or darker than its organ."""
_BRIGHTEST = 0.92


def draw_scene(scene: Scene, pixels: int) -> np.ndarray:
    """Draw a scene: [pixels, pixels] uint8 grey levels."""
    x, y = _grid(pixels)
    random = np.random.default_rng(scene.texture_seed)
    levels = dict(zip(_TISSUES, _LEVELS[scene.modality], strict=True))
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
        contrast = _CONTRAST if lesion.contrast == "bright" else -_CONTRAST
        level = float(np.clip(levels[ORGANS[lesion.organ].tissue] + contrast, 0.02, _BRIGHTEST))
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
    """What shows the modality beside its texture: bones, a bright rim, the table."""
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
