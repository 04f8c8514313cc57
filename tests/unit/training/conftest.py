"""A toy model and a few bundled records, made once for the training tests."""

import pytest

from exgra_med.data.records import Prepared, open_prepared
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import Architecture

TOY = Architecture.model_validate(
    {
        "vision": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "language": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_layers": 1,
            "num_heads": 2,
            "max_positions": 512,
        },
        "tokenizer": {"vocabulary_size": 320},
    }
)


@pytest.fixture(scope="session")
def sample() -> Prepared:
    return open_prepared("bundled:vqa-rad-sample")


@pytest.fixture
def toy(sample: Prepared) -> Bundle:
    texts = [record.question for record in sample.records("train")[:40]]
    return build_model(TOY, texts, seed=0)
