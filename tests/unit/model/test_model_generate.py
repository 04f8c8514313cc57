from collections.abc import Callable

import pytest
import torch
from PIL import Image

from exgra_med.data.encode import encode_prompt
from exgra_med.data.record import Turn
from exgra_med.errors import DataError
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import generate, stream

QUESTIONS = [
    ("Is there a lesion?", 1),
    ("Where?", 0),
    ("The left lobe of the liver shows?", 2),
    ("", 1),
]


@pytest.fixture(params=["none", "dci"])
def asked(
    request: pytest.FixtureRequest,
    make_bundle: Callable[..., Bundle],
    pictures: list[Image.Image],
) -> tuple[Bundle, list[list[int]], list[list[Image.Image]]]:
    bundle = make_bundle(request.param, seed=3)
    with torch.no_grad():
        bundle.model.lm_head.weight.mul_(20)  # clear-cut choices
    prompts = [
        encode_prompt(bundle.tokenizer, [Turn(role="user", text=text or "Hm")], "exgra", 4, count)
        for text, count in QUESTIONS
    ]
    return bundle, prompts, [pictures[:1], [], pictures[1:3], pictures[3:]]


def test_a_batch_gives_the_single_answers(asked) -> None:
    bundle, prompts, images = asked
    together = generate(bundle, prompts, images, 24)
    alone = [generate(bundle, [p], [i], 24)[0] for p, i in zip(prompts, images, strict=True)]
    assert together == alone
    assert len({answer.text for answer in together}) > 1


def test_greedy_equals_transformers(asked) -> None:
    bundle, prompts, images = asked
    for prompt, own in zip(prompts, images, strict=True):
        ours = generate(bundle, [prompt], [own], 12)[0].token_ids
        pixels = bundle.image_processor(own, return_tensors="pt") if own else {}
        theirs = bundle.model.generate(
            input_ids=torch.tensor([prompt]), **pixels, max_new_tokens=12, do_sample=False
        )
        assert theirs[0, len(prompt) :][: len(ours)].tolist() == ours


def test_streaming_gives_the_same_text(asked) -> None:
    bundle, prompts, images = asked
    for prompt, own in zip(prompts, images, strict=True):
        pieces = list(stream(bundle, prompt, own, 24))
        assert "".join(pieces) == generate(bundle, [prompt], [own], 24)[0].text


def scripted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, text: str) -> list[int]:
    """Make the model write a text, whatever it is asked."""
    ids = bundle.tokenizer(text, add_special_tokens=False)["input_ids"]
    queue = iter(ids + [5] * 50)

    def head(hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(hidden.shape[0], len(bundle.tokenizer))
        logits[:, next(queue)] = 1
        return logits

    monkeypatch.setattr(bundle.model.lm_head, "forward", head)
    return ids


@pytest.mark.parametrize(
    "text", ["Yes, left.\n### Human: x", "Yes, left.### x", "Yes, left. ### x"]
)
def test_generation_stops_exactly_at_the_end_marker(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    bundle = make_bundle()
    ids = scripted(bundle, monkeypatch, text)
    answer = generate(bundle, [[1, 5, 6]], [[]], 60)[0]
    assert answer.text == "Yes, left."
    assert answer.finish_reason == "stop"
    assert "###" in bundle.tokenizer.decode(ids[: answer.num_tokens])
    assert "###" not in bundle.tokenizer.decode(ids[: answer.num_tokens - 1])


@pytest.mark.parametrize("text", ["## heading", "# # #"])
def test_fewer_hashes_do_not_stop(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    bundle = make_bundle()
    ids = scripted(bundle, monkeypatch, text)
    answer = generate(bundle, [[1, 5, 6]], [[]], len(ids))[0]
    assert (answer.text, answer.finish_reason) == (text, "length")


def test_the_end_of_sequence_token_stops(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()
    scripted(bundle, monkeypatch, "Yes</s>")
    assert generate(bundle, [[1, 5]], [[]], 60)[0].text == "Yes"


def test_placeholders_must_fit_the_images(bundle: Bundle, pictures: list[Image.Image]) -> None:
    with pytest.raises(DataError, match="Prompt 1 has 0 image placeholders"):
        generate(bundle, [[1, 5], [1, 6]], [[], pictures[:1]], 5)


def test_no_prompt_no_answer(bundle: Bundle) -> None:
    assert generate(bundle, [], [], 5) == []
