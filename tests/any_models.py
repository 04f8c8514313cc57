"""Conversations, pictures and bundles that the tests over families share."""

import copy
import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from exgra_med.data.records import Record, Turn
from exgra_med.model.any_model import AnyBundle, Facts
from exgra_med.model.batch import Layout, TrainingExample
from exgra_med.model.probe import probe
from exgra_med.recipe.schema import TextSettings
from families import FAMILIES, NEEDS_TORCHVISION, make

REFUSED = ("paligemma",)
NAMES = [name for name in FAMILIES if name not in REFUSED]
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
APART, PACKED = Layout(packed=False), Layout(tokens_per_row=512)
TEXT = TextSettings(max_length=2048)
SIZES = ((60, 60), (120, 60), (60, 130), (110, 110))
ENDS = {"qwen3_5": "", "idefics3": " ", "smolvlm": " "}


SIBLINGS = ("llava_next", "pixtral", "qwen2_vl")
"""Families that differ little from another one; the slow tests try them too."""


def families(names: Sequence[str] = NAMES, slow: Sequence[str] = SIBLINGS) -> Any:
    """A parameter `name` for each family; one whose processor cannot be had here is skipped."""
    absent = pytest.mark.skipif(not HAS_TORCHVISION, reason="its processor needs torchvision")
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(
                name,
                marks=[absent] * (name in NEEDS_TORCHVISION) + [pytest.mark.slow] * (name in slow),
            )
            for name in names
        ],
    )


@cache
def _made(name: str) -> tuple[Any, Any, Facts]:
    model, processor = make(name)
    return model, processor, probe(AnyBundle(copy.deepcopy(model), processor))


def bundle_of(name: str) -> AnyBundle:
    """A bundle of its own, in evaluation mode."""
    model, processor, facts = _made(name)
    bundle = AnyBundle(copy.deepcopy(model).eval(), copy.deepcopy(processor))
    bundle.facts = facts
    return bundle


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Pictures of noise, of several sizes."""
    random = np.random.default_rng(seed)
    return [
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in (SIZES * count)[:count]
    ]


def record(name: str, num_images: int, *texts: str) -> Record:
    """Texts are questions and answers in turn."""
    roles = ("user", "assistant")
    return Record(
        id=name,
        image=[f"{name}-{n}.png" for n in range(num_images)] or None,
        turns=[Turn(role=roles[n % 2], text=text) for n, text in enumerate(texts)],
    )


RECORDS = [
    record("one", 1, "Which organ is abnormal?", "The left lung."),
    record("two", 2, "Do the images differ?", "Yes, in size."),
    record("text", 0, "What is a mass?", "A finding."),
    record("talk", 1, "Is it a CT?", "No.", "What is it?", "An MRI of the brain."),
]


def example(bundle: AnyBundle, number: int, train_on_prompts: bool = False) -> TrainingExample:
    """A record of `RECORDS` with its pictures and texts for the graphs."""
    chosen = RECORDS[number]
    images = pictures(len(chosen.images), seed=number)
    answer = bundle.text_ids(" ".join(chosen.answers), 100)
    longer = bundle.text_ids(f"It shows this: {chosen.answers[0]}", 100)
    told = bundle.conversation(chosen, images, TEXT, train_on_prompts)
    return TrainingExample(chosen.id, [told], bool(images), answer, longer)


def examples(bundle: AnyBundle) -> list[TrainingExample]:
    """All of `RECORDS`."""
    return [example(bundle, number) for number in range(len(RECORDS))]


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference over largest value."""
    return float((one - other).abs().max()) / max(1e-12, float(other.abs().max()))
