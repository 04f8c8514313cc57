"""What an image costs by the processor alone, and a lower budget that is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoProcessor

from any_models import NAMES, families, pictures
from exgra_med.data.records import Turn
from exgra_med.errors import RecipeError
from exgra_med.model.any_model import AnyBundle
from exgra_med.model.image_budget import LARGE, image_cost, set_image_budget
from exgra_med.recipe.schema import ImageSettings
from families import make

ASK = [Turn(role="user", text="Which organ?")]
PIXELS = ["qwen2_5_vl", "qwen3_vl", "glm4v", "pixtral", "mistral3"]
FEW = ["qwen2_5_vl", "internvl", "llava_onevision", "idefics3"]
SLOW = [name for name in NAMES if name not in FEW]
LAYERS = (nn.Conv2d, nn.Conv3d, nn.Linear)
TILES = ["internvl", "llava_next", "llava_onevision", "idefics3", "smolvlm", "lfm2_vl"]


def ids_of(bundle: AnyBundle, images: list[Image.Image]) -> torch.Tensor:
    text = bundle.prompt(ASK, len(images))
    return bundle.process([text], [images], "right")["input_ids"]


@families(slow=SLOW)
def test_the_cost_is_what_the_model_is_given(name: str) -> None:
    bundle = AnyBundle(*make(name))
    picture = Image.new("RGB", (130, 60))
    cost = image_cost(bundle.processor, bundle.model.config, picture.size)
    ids = ids_of(bundle, [picture])
    assert cost.tokens == int((ids == bundle.image_token_id).sum())
    assert ids.shape[1] - ids_of(bundle, []).shape[1] == cost.length >= cost.tokens
    numbers: list[int] = []
    first = next(m for m in bundle.tower.modules() if isinstance(m, LAYERS))
    width = len(first.weight)
    first.register_forward_hook(lambda _, __, output: numbers.append(output.numel() // width))
    bundle.model(**bundle.generation_inputs([bundle.prompt(ASK, 1)], [[picture]])[0])
    assert sum(numbers) == cost.patches


@families(PIXELS + TILES, SLOW)
def test_a_budget_lowers_the_tokens_and_stays_with_the_folder(name: str, tmp_path: Path) -> None:
    bundle = AnyBundle(*make(name))
    processor, config = bundle.processor, bundle.model.config
    asked = {"max_pixels": 3600} if name in PIXELS else {"tiles": 2}
    budget = ImageSettings.model_validate(asked)
    before = image_cost(processor, config, LARGE)
    set_image_budget(processor, config, budget)
    after = image_cost(processor, config, LARGE)
    assert after.length < before.length and after.tokens < before.tokens
    set_image_budget(processor, config, budget)
    assert image_cost(processor, config, LARGE) == after
    processor.save_pretrained(tmp_path)
    assert image_cost(AutoProcessor.from_pretrained(tmp_path), config, LARGE) == after
    # The model reads what the processor writes: a wrong number of vectors would be refused.
    large = pictures(1)[0].resize(LARGE)
    inputs, _ = bundle.generation_inputs([bundle.prompt(ASK, 1)], [[large]])
    assert bool(torch.isfinite(bundle.model(**inputs).logits).all())


@families(PIXELS, SLOW)
def test_no_image_has_more_pixels_than_were_asked_for(name: str) -> None:
    bundle = AnyBundle(*make(name))
    set_image_budget(bundle.processor, bundle.model.config, ImageSettings(max_pixels=6400))
    side = bundle.model.config.vision_config.patch_size
    for size in ((1600, 1200), (200, 400), (20, 20)):
        cost = image_cost(bundle.processor, bundle.model.config, size)
        assert cost.patches * side**2 <= 6400


def refused(name: str, **asked: int) -> RecipeError:
    bundle = AnyBundle(*make(name))
    before = str(bundle.processor.image_processor), str(bundle.model.config)
    with pytest.raises(RecipeError) as caught:
        set_image_budget(bundle.processor, bundle.model.config, ImageSettings(**asked))
    assert before == (str(bundle.processor.image_processor), str(bundle.model.config))
    return caught.value


@families(["llava", "gemma3"])
def test_a_processor_without_such_a_setting_says_what_it_does(name: str) -> None:
    for asked in ({"tiles": 2}, {"max_pixels": 3600}):
        error = refused(name, **asked)
        assert "resizes every image to 56 x 56" in error.message
        assert error.hint == "Leave it out."


@families(["idefics3"])
def test_another_setting_is_named(name: str) -> None:
    assert refused(name, max_pixels=3600).hint == "Use `model.images.tiles`."


@families(["llava_next", "qwen2_5_vl", "internvl"])
def test_what_is_no_lower_budget_is_refused(name: str) -> None:
    asked: dict[str, Any] = {
        "llava_next": ({"tiles": 1}, "the fewest tiles of this processor are 2"),
        "qwen2_5_vl": ({"max_pixels": 10**7}, "a budget makes images smaller"),
        "internvl": ({"tiles": 40}, "a budget makes images smaller"),
    }[name]
    assert asked[1] in refused(name, **asked[0]).message


def test_an_empty_budget_is_no_budget() -> None:
    with pytest.raises(ValueError, match="give `max_pixels` or `tiles`"):
        ImageSettings()
