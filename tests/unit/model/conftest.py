"""A small model for the tests of the model layer."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import (
    Architecture,
    LanguageArchitecture,
    TokenizerArchitecture,
    VisionArchitecture,
)

TEXTS = [
    "Is there evidence of an aortic aneurysm?",
    "The left lobe of the liver shows 3 lesions of 12 mm.",
    "Where is the abnormality located? In the right lung.",
] * 4


def small_architecture(connector: str) -> Architecture:
    return Architecture(
        vision=VisionArchitecture(
            hidden_size=16,
            intermediate_size=32,
            num_layers=24,
            num_heads=2,
            image_size=28,
            patch_size=14,
        ),
        language=LanguageArchitecture(
            hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, max_positions=512
        ),
        tokenizer=TokenizerArchitecture(vocabulary_size=500),
        connector=connector,  # type: ignore
    )


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    def make(connector: str = "none", seed: int = 0) -> Bundle:
        return build_model(small_architecture(connector), TEXTS, seed)

    return make


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle("dci")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    sizes = [(40, 60), (60, 33), (28, 28), (50, 50)]
    return [Image.fromarray(noise.integers(0, 255, (*size, 3), dtype="uint8")) for size in sizes]
