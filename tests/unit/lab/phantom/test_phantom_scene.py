"""Scenes of the phantom world depend on nothing but their number, and pictures show them."""

import dataclasses
import math

import numpy as np
import pytest

from exgra_med.lab.phantom.draw import draw_scene, lesion_cover
from exgra_med.lab.phantom.scene import (
    BODIES,
    DEVICES,
    KINDS,
    MODALITIES,
    ORGANS,
    RADII,
    REGIONS,
    SPLITS,
    Lesion,
    Scene,
    held_out_pairs,
    organs_of,
    sample_scene,
)
from exgra_med.lab.phantom.shapes import device_distance, lesion_distance

PIXELS = 64
SCENES = [sample_scene(0, split, number) for split in SPLITS for number in range(60)]


def grid(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    middle = (np.arange(pixels) + 0.5) / pixels
    x, y = np.meshgrid(middle, middle)
    return x, y


def test_a_scene_depends_on_seed_split_and_number_alone() -> None:
    assert sample_scene(3, "test", 7) == sample_scene(3, "test", 7)
    assert len({scene.texture_seed for scene in SCENES}) == len(SCENES)
    bare = [dataclasses.replace(scene, split="", number=0, texture_seed=0) for scene in SCENES]
    assert len(set(bare)) == len(SCENES)
    assert sample_scene(4, "test", 7).organs != sample_scene(3, "test", 7).organs


def test_everything_that_the_world_has_occurs() -> None:
    assert {scene.modality for scene in SCENES} == set(MODALITIES)
    assert {scene.region for scene in SCENES} == set(REGIONS) == set(BODIES)
    assert {len(scene.lesions) for scene in SCENES} == {0, 1, 2, 3}
    assert {scene.device.kind for scene in SCENES if scene.device} == set(DEVICES)
    assert {lesion.organ for scene in SCENES for lesion in scene.lesions} == set(ORGANS)
    assert {lesion.kind for scene in SCENES for lesion in scene.lesions} == set(KINDS)


def test_no_two_lesions_of_a_scene_are_in_one_place() -> None:
    for scene in SCENES:
        places = [(lesion.organ, lesion.side) for lesion in scene.lesions]
        assert len(set(places)) == len(places)
        covers = [lesion_cover(lesion, PIXELS) > 0 for lesion in scene.lesions]
        assert not covers or np.sum(covers, axis=0).max() <= 1


def test_held_out_pairs_are_in_one_split_only_and_leave_every_part_to_learn_from() -> None:
    pairs = held_out_pairs()
    assert [organ for organ, _ in sorted(pairs)] == sorted(ORGANS)
    for kind in KINDS:
        assert 2 <= sum(held == kind for _, held in pairs) <= 3
    for scene in SCENES:
        for lesion in scene.lesions:
            assert (lesion.pair in pairs) == (scene.split == "test_composition")
    assert all(s.lesions for s in SCENES if s.split == "test_composition")


def test_a_region_has_three_organs_within_the_picture() -> None:
    assert all(len(organs_of(region)) == 3 for region in REGIONS)
    for scene in SCENES:
        for lesion in scene.lesions:
            assert lesion.radius < min(lesion.x, 1 - lesion.x, lesion.y, 1 - lesion.y)


def _surroundings(scene: Scene, lesion: Lesion) -> np.ndarray:
    """Pixels of the lesion's organ close to it, away from whatever else is there."""
    x, y = grid(PIXELS)
    distance = lesion_distance(lesion, x, y)
    organs = [organ for organ in scene.organs if organ.name == lesion.organ]
    near = np.zeros(x.shape, bool)
    for organ in organs:
        inside = np.hypot((x - organ.x) / organ.radius_x, (y - organ.y) / organ.radius_y) < 0.95
        near |= inside & (distance > 0.015) & (distance < 0.09)
    for other in scene.lesions:
        near &= lesion_distance(other, x, y) > 0.015
    if scene.device:
        near &= device_distance(scene.device, x, y) > 0.015
    return near


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_lesion_can_be_seen(modality: str) -> None:
    x, _ = grid(PIXELS)
    for scene in SCENES:
        if scene.modality != modality:
            continue
        picture = draw_scene(scene, PIXELS).astype(float)
        for lesion in scene.lesions:
            cover = lesion_cover(lesion, PIXELS)
            inside, outside = cover > 0.8, _surroundings(scene, lesion)
            assert outside.sum() >= 5, lesion
            difference = picture[inside].mean() - picture[outside].mean()
            sign = 1 if lesion.contrast == "bright" else -1
            assert sign * difference > 25, lesion
            centroid = (x * cover).sum() / cover.sum()
            assert (centroid < 0.5) == (lesion.side == "left"), lesion
            rows, columns = np.nonzero(cover > 0.5)
            extent = max(np.ptp(rows), np.ptp(columns)) + 1
            assert extent >= 5 and inside.sum() >= 8, lesion


def test_large_lesions_are_larger_than_small_ones() -> None:
    areas: dict[str, list[float]] = {"small": [], "large": []}
    for scene in SCENES:
        for lesion in scene.lesions:
            areas[lesion.size].append(lesion_cover(lesion, PIXELS).sum() / _area(lesion.shape))
    assert max(areas["small"]) < 0.6 * min(areas["large"])
    assert RADII["small"] * 2 * PIXELS > 5


def _area(shape: str) -> float:
    """Area of a shape beside that of the round one."""
    lesion = Lesion("lung", "left", "nodule", "large", "bright", 0.5, 0.5, 0.0)
    kind = next(kind for kind in KINDS if dataclasses.replace(lesion, kind=kind).shape == shape)
    return float(lesion_cover(dataclasses.replace(lesion, kind=kind), PIXELS).sum())


def test_every_device_is_white_and_covers_no_lesion() -> None:
    x, y = grid(PIXELS)
    seen = 0
    for scene in SCENES:
        if scene.device is None:
            continue
        metal = device_distance(scene.device, x, y) < -0.004
        # The corners of an ultrasound picture are outside its field.
        metal &= (y > 0.1) & (np.abs(x - 0.5) < 0.45)
        picture = draw_scene(scene, PIXELS)
        assert picture[metal].mean() > 225
        assert metal.sum() >= 8
        for lesion in scene.lesions:
            assert not (metal & (lesion_cover(lesion, PIXELS) > 0)).any()
        seen += 1
    assert seen > 50


def test_a_picture_has_any_size_and_the_look_of_its_modality() -> None:
    scene = dataclasses.replace(sample_scene(0, "train", 1), lesions=(), device=None)
    looks = {}
    for modality in MODALITIES:
        picture = draw_scene(dataclasses.replace(scene, modality=modality), 96)
        assert picture.shape == (96, 96) and picture.dtype == np.uint8
        looks[modality] = picture.astype(float)
    flat = {
        name: look[44:52, 44:52].std() / look[44:52, 44:52].mean() for name, look in looks.items()
    }
    assert flat["CT"] < flat["X-ray"] < flat["ultrasound"]
    corners = {name: look[:3, :3].mean() for name, look in looks.items()}
    assert corners["CT"] < 4 and corners["ultrasound"] < 4 < corners["X-ray"]


def test_a_scene_without_room_for_its_lesions_is_settled_anew() -> None:
    # Scene 3926 of this split is one of the few.
    scene = sample_scene(0, "vision", 3926)
    for place, lesion in enumerate(scene.lesions):
        for other in scene.lesions[:place]:
            assert math.hypot(lesion.x - other.x, lesion.y - other.y) > lesion.reach + other.reach
