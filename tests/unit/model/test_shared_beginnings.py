"""Questions about one image go on from its keys and values: the same answers, less work."""

from dataclasses import replace

import pytest
import torch

from any_models import bundle_of, families, pictures
from exgra_med.data.records import Turn
from exgra_med.model.generate import generate
from exgra_med.model.probe import probe

SHARING = ["llava", "idefics3", "internvl", "llava_next", "llava_onevision", "smolvlm"]
QUESTIONS = [
    "Which organ is abnormal?",
    "Which organ is abnormal, and on which side of the body does it lie?",
    "Is there a mass in the lung?",
    "?",
]

CACHE = {"cache", "past_key_values"}
"""Its name since transformers 5.24, and before."""


def _asked(bundle, images):
    """All questions about each group of images, and each group's question of its own."""
    own = [QUESTIONS[:], QUESTIONS[1:3], QUESTIONS[:1]]
    prompts, shown = [], []
    for questions, group in zip(own, images, strict=True):
        for question in questions:
            prompts.append(bundle.prompt([Turn(role="user", text=question)], len(group)))
            shown.append(group)
    return prompts, shown


@families(SHARING, slow=SHARING[2:])
@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 2, 1)])
def test_answers_are_those_of_whole_prompts(name, counts, monkeypatch):
    bundle = bundle_of(name)
    groups = [pictures(count, seed=seed) for seed, count in enumerate(counts)]
    prompts, shown = _asked(bundle, groups)
    inputs, _ = bundle.generation_inputs(prompts, shown)
    assert CACHE & set(inputs) and "pixel_values" not in inputs
    shared = generate(bundle, prompts, shown, 12)
    monkeypatch.setattr(bundle, "facts", replace(bundle.facts, sharing_difference=1.0))
    assert "pixel_values" in bundle.generation_inputs(prompts, shown)[0]
    assert shared == generate(bundle, prompts, shown, 12)


@families(SHARING[:1], slow=())
def test_the_first_logits_are_those_of_whole_prompts(name, monkeypatch):
    bundle = bundle_of(name)
    prompts, shown = _asked(bundle, [pictures(1, seed=seed) for seed in range(3)])
    found = []
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(bundle, "facts", replace(bundle.facts, sharing_difference=1.0))
        inputs, length = bundle.generation_inputs(prompts, shown)
        out = bundle.model.generate(
            **inputs, max_new_tokens=2, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        assert out.sequences.shape[1] == length + 2
        found.append(torch.stack(out.logits))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


@families(SHARING[:1], slow=())
def test_where_nothing_is_shared_whole_prompts_are_read(name):
    bundle = bundle_of(name)
    prompt = bundle.prompt([Turn(role="user", text="Which side?")], 1)
    text = bundle.prompt([Turn(role="user", text="Which side?")])
    for shown, prompts in (
        ([pictures(1), pictures(1, seed=1)], [prompt] * 2),
        ([pictures(1), []], [prompt, text]),
    ):
        assert not CACHE & set(bundle.generation_inputs(prompts, shown)[0])


@families(SHARING[:1], slow=())
def test_questions_without_a_picture_may_be_asked_beside_those_that_share_one(name, monkeypatch):
    bundle = bundle_of(name)
    asked = [Turn(role="user", text="Which side?")], [Turn(role="user", text="What is a rib?")]
    image = pictures(1)
    prompts = [bundle.prompt(asked[0], 1), bundle.prompt(asked[1]), bundle.prompt(asked[1], 1)]
    shown = [image, [], image]
    assert CACHE & set(bundle.generation_inputs(prompts, shown)[0])
    shared = generate(bundle, prompts, shown, 12)
    monkeypatch.setattr(bundle, "facts", replace(bundle.facts, sharing_difference=1.0))
    assert shared == generate(bundle, prompts, shown, 12)


@families(SHARING[:1], slow=())
def test_half_precision_shares_too(name):
    bundle = bundle_of(name)
    bundle.model.bfloat16()
    bundle.facts = probe(bundle)
    prompts, shown = _asked(bundle, [pictures(1, seed=seed) for seed in range(3)])
    assert CACHE & set(bundle.generation_inputs(prompts, shown)[0])
    assert len(generate(bundle, prompts, shown, 4)) == len(prompts)


@families(["qwen2_5_vl", "gemma3"], slow=())
def test_other_kinds_of_positions_and_windows_read_whole_prompts(name):
    bundle = bundle_of(name)
    prompt = bundle.prompt([Turn(role="user", text="Which side?")], 1)
    image = pictures(1)
    assert not CACHE & set(bundle.generation_inputs([prompt] * 2, [image, image])[0])
