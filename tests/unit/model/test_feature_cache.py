"""Features of pictures: kept whole, found again, and by all that they depend on."""

from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from any_models import bundle_of, pictures
from exgra_med.data.images import ImageFolder
from exgra_med.errors import DamagedFileError, RecipeError
from exgra_med.model.batch import carried_features, stand_in
from exgra_med.model.feature_cache import FeatureCache, tower_folder
from exgra_med.model.tower_output import TowerOutput


class Toy(nn.Module):
    """A tower of three hidden states, of which `run` uses the second, its pictures in a row."""

    def forward(self, pictures: torch.Tensor) -> dict[str, Any]:
        rows = pictures.flatten(0, 1)[None]
        return {"last": rows + 9, "hidden": (rows, 2 * rows, 3 * rows), "size": 7}

    def run(self, pictures: torch.Tensor, times: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        for _ in range(times):
            output = self(pictures)
        output["pooled"] = output["last"] + 1  # as some families do
        used = output["hidden"][1] + output["size"]
        return used, used.mean()


def measured(toy: Toy, picture: torch.Tensor) -> TowerOutput:
    return TowerOutput(toy, lambda: toy.run(picture), lambda: toy.run(torch.cat([picture] * 2)))


def test_only_what_is_used_is_kept_and_given_as_it_was() -> None:
    toy, both = Toy(), torch.randn(2, 5, 4)
    output = measured(toy, both[:1])
    assert output.axes == [None, None, 1, None]
    kept = [output.of(toy, lambda each=each: toy.run(each[None])) for each in both]
    assert [[t.shape for t in own] for own in kept] == [[(5, 1, 4)], [(5, 1, 4)]]
    joined = carried_features([stand_in((9, 9), own) for own in kept])
    expected = toy.run(both)
    with output.given(toy, joined):
        used, _ = toy.run(torch.zeros(2, 5, 4))
    assert torch.equal(used, expected[0])
    assert torch.equal(toy.run(both)[0], expected[0])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"run": lambda self, each: Toy.run(self, each, times=2)}, "runs its tower 2 times"),
        ({"run": lambda self, each: (each, each)}, "runs its tower 0 times"),
        ({"run": lambda self, each: (self(each)["last"].detach(),) * 2}, "does not use"),
        ({"forward": lambda self, each: {"hidden": (0, each.mean(0)), "last": each, "size": 1}},
         "does not grow with the pictures"),
    ],
)  # fmt: skip
def test_towers_whose_features_cannot_be_kept_are_refused(change: Any, what: str) -> None:
    toy: Any = type("Other", (Toy,), change)()
    with pytest.raises(RecipeError, match=what):
        measured(toy, torch.randn(1, 5, 4))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageFolder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number, picture in enumerate(pictures(3)):
        picture.save(tmp_path / f"{number}.png")
    return ImageFolder(tmp_path, 10**6)


def test_a_picture_is_computed_once_for_all_names_and_processes(folder: ImageFolder) -> None:
    bundle: Any = bundle_of("gemma3")
    place = tower_folder(bundle, "float32")
    cache, other = FeatureCache(place, folder), FeatureCache(place, folder)
    (folder.root / "same.png").write_bytes((folder.root / "0.png").read_bytes())
    asked = [cache.keep(bundle, name) for name in ("0.png", "1.png", "0.png", "same.png")]
    assert asked == [True, True, False, False]
    assert not other.keep(bundle, "1.png")
    opened = other.open("1.png")
    assert opened.size == Image.open(folder.root / "1.png").size
    (kept,), (fresh,) = carried_features([opened]), bundle.image_features(folder.open("1.png"))
    assert torch.equal(kept, fresh) and kept.any()


def test_writers_at_the_same_time_leave_whole_files(folder: ImageFolder) -> None:
    bundle: Any = bundle_of("gemma3")
    features = {name: bundle.image_features(folder.open(name)) for name in ("0.png", "1.png")}

    class Known:
        def image_features(self, image: Image.Image) -> Any:
            return features["0.png" if image.size == (60, 60) else "1.png"]

    caches = [FeatureCache(tower_folder(bundle, "float32"), folder) for _ in range(8)]
    writers = [
        Thread(target=lambda own=own: [own.keep(Known(), name) for name in features])
        for own in caches
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for name, (own,) in features.items():
        assert torch.equal(carried_features([caches[3].open(name)])[0], own)
    assert len(list(caches[0].folder.iterdir())) == 2


def test_other_weights_processors_and_precisions_have_other_folders(folder: ImageFolder) -> None:
    bundle: Any = bundle_of("gemma3")
    first = tower_folder(bundle, "float32")
    assert tower_folder(bundle_of("gemma3"), "float32") == first
    places = {first, tower_folder(bundle, "bfloat16")}
    bundle.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    places.add(tower_folder(bundle, "float32"))
    with torch.no_grad():
        next(bundle.tower.parameters()).view(-1)[0] += 1e-6
    places.add(tower_folder(bundle, "float32"))
    bundle.model.config.vision_config.num_attention_heads = 1
    places.add(tower_folder(bundle, "float32"))
    assert len(places) == 5


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, flip, lambda path: path.write_bytes(b"nothing")])
def test_a_file_that_is_gone_or_damaged_is_said(folder: ImageFolder, damage: Any) -> None:
    bundle: Any = bundle_of("gemma3")
    cache = FeatureCache(tower_folder(bundle, "float32"), folder)
    cache.keep(bundle, "0.png")
    damage(cache.paths["0.png"])
    with pytest.raises(
        DamagedFileError, match=r"case: the features of '0.png' in .* cannot be read"
    ):
        cache.open("0.png", "case")
