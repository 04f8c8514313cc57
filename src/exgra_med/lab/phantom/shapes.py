"""Shapes of the phantom world as signed distances: below 0 inside, unit of the coordinates."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from exgra_med.lab.phantom.scene import Device, Lesion

Floats = NDArray[np.floating[Any]]


def ellipse(x: Floats, y: Floats, radius_x: float, radius_y: float) -> Floats:
    """Distance to an ellipse around the origin; exact at its edge, close elsewhere."""
    scaled = np.hypot(x / radius_x, y / radius_y)
    slope = np.hypot(x / radius_x**2, y / radius_y**2)
    return scaled * (scaled - 1) / np.maximum(slope, 1e-6)


def segment(
    x: Floats, y: Floats, start: tuple[float, float], end: tuple[float, float], width: float
) -> Floats:
    """Distance to a line with round ends; `width` is half the line's."""
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
        angles = (0.0, 2 * math.pi / 3, 4 * math.pi / 3)
        sides = [x * math.cos(a) + y * math.sin(a) - 0.68 * radius for a in angles]
        return np.maximum.reduce(sides)
    if lesion.shape == "star":
        return _star(x, y, 1.5 * radius, 0.6 * radius)
    return np.hypot(x, y) - radius


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
        bend = 0.12 * math.sin(device.angle)
        points = [
            (device.x + 0.1 * math.cos(device.angle), -0.05),
            (device.x + bend, 0.4 * device.y),
            (device.x + 0.6 * bend, 0.75 * device.y),
            (device.x, device.y),
        ]
        return np.minimum.reduce([segment(x, y, a, b, 0.012) for a, b in pairwise(points)])
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


def _turned(x: Floats, y: Floats, angle: float) -> tuple[Floats, Floats]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return x * cosine + y * sine, y * cosine - x * sine
