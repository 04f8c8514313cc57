"""What a trained tower's frozen features know of a lesion, beside those of random weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionModel

from exgra_med.lab.base_models.settings import PartsSettings, VisionPart, check_parts
from exgra_med.lab.base_models.vision import Pictures, train_vision
from exgra_med.lab.phantom.make import PhantomSettings, make_phantom
from exgra_med.lab.phantom.scene import Scene, sample_scene
from exgra_med.model.build import vision_config
from exgra_med.model.convert.vision import read_vision
from exgra_med.terminal import Silent

NUM_IMAGES = 1200
PATCHES_A_SIDE = 8


def ridge_accuracy(features: Tensor, labels: Tensor, strength: float) -> float:
    """Held-out accuracy of one linear map onto the classes, from three quarters of the rows."""
    features = (features - features.mean(0)) / (features.std(0) + 1e-4)
    features = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    known = len(features) * 3 // 4
    wanted = torch.nn.functional.one_hot(labels).float()
    seen = features[:known]
    gram = seen.T @ seen
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram))
    weights = torch.linalg.solve(gram, seen.T @ wanted[:known])
    return float(((features[known:] @ weights).argmax(1) == labels[known:]).float().mean())


def lesion_patches(scenes: list[Scene]) -> tuple[Tensor, Tensor, Tensor]:
    """As many patches with a lesion's centre as without: image, patch, label; in random order."""
    labels = torch.zeros(len(scenes), PATCHES_A_SIDE**2, dtype=torch.long)
    for number, scene in enumerate(scenes):
        for lesion in scene.lesions:
            row, column = int(lesion.y * PATCHES_A_SIDE), int(lesion.x * PATCHES_A_SIDE)
            labels[number, row * PATCHES_A_SIDE + column] = 1
    with_lesion, without = labels.nonzero(), (labels == 0).nonzero()
    stream = torch.Generator().manual_seed(0)
    without = without[torch.randperm(len(without), generator=stream)[: len(with_lesion)]]
    chosen = torch.cat([with_lesion, without])
    chosen = chosen[torch.randperm(len(chosen), generator=stream)]
    image, patch = chosen.T
    return image, patch, labels[image, patch]


def features_of(tower: CLIPVisionModel, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        states = [
            tower(part, output_hidden_states=True).hidden_states for part in pixels.split(200)
        ]
    return torch.cat([each[-2][:, 1:] for each in states])


@pytest.mark.slow
def test_a_trained_tower_knows_where_a_lesion_is_better_than_a_random_one(tmp_path: Path) -> None:
    counts = ("num_images", "num_validation", "num_test", "num_test_composition", "num_language")
    settings = PhantomSettings(num_vision=NUM_IMAGES, **dict.fromkeys(counts, 0))
    prepared = make_phantom(tmp_path / "data", settings)
    part: VisionPart = check_parts({"vision": {"training": {"num_steps": 400}}}, "test").vision
    images, records = prepared.image_folder(10**6), prepared.records("vision")
    (tmp_path / "work").mkdir()
    train_vision(part, records, images, tmp_path / "work", tmp_path / "tower", 0, Silent())
    source = read_vision(tmp_path / "tower")
    trained = CLIPVisionModel(source.config).eval()
    trained.load_state_dict(source.weights)
    torch.manual_seed(0)
    fresh = CLIPVisionModel(vision_config(PartsSettings().vision.architecture)).eval()
    pictures = Pictures(records, images, source.image_processor)
    pixels = torch.stack([pictures[number] for number in range(NUM_IMAGES)])
    scenes = [sample_scene(settings.seed, "vision", number) for number in range(NUM_IMAGES)]
    image, patch, labels = lesion_patches(scenes)
    found = {
        name: ridge_accuracy(features_of(tower, pixels)[image, patch], labels, 0.01)
        for name, tower in {"trained": trained, "fresh": fresh}.items()
    }
    assert found["trained"] > found["fresh"] + 0.03, found
