import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Turn
from exgra_med.errors import DataError
from exgra_med.llm.request import Sampling
from exgra_med.model.bundle import Bundle, load_bundle, save_bundle
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


@torch.no_grad()
def slow_greedy(
    bundle: Bundle, prompt: list[int], images: list[Image.Image], length: int
) -> list[int]:
    """Token by token through the whole model: one row, no padding, no cache, no stored features."""
    pixels = bundle.image_processor(images, return_tensors="pt") if images else {}
    new: list[int] = []
    while len(new) < length:
        ids = torch.tensor([prompt + new])
        new.append(
            int(bundle.model(input_ids=ids, **pixels, use_cache=False).logits[0, -1].argmax())
        )
        if new[-1] == bundle.tokenizer.eos_token_id or "###" in bundle.tokenizer.decode(new):
            break
    return new


def test_a_batch_equals_the_slow_way(asked) -> None:
    bundle, prompts, images = asked
    answers = generate(bundle, prompts, images, 12)
    for prompt, own, answer in zip(prompts, images, answers, strict=True):
        assert answer.token_ids == slow_greedy(bundle, prompt, own, 12)


def test_rows_end_at_their_own_marker_or_end_of_sequence(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()
    texts = ["Yes</s>", "left ### Human", "the left lobe of the liver shows"]
    rows = [bundle.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    most = max(map(len, rows)) + 2
    steps = iter(zip(*(row + [5] * (most - len(row)) for row in rows), strict=True))

    def head(hidden: torch.Tensor) -> torch.Tensor:
        words = torch.tensor(next(steps))
        return torch.nn.functional.one_hot(words, len(bundle.tokenizer)).float()[:, None]

    monkeypatch.setattr(bundle.model.lm_head, "forward", head)
    found = generate(bundle, [[1], [1, 5, 6], [1, 5]], [[], [], []], most)
    assert [answer.text for answer in found[:2]] == ["Yes", "left"]
    assert [answer.finish_reason for answer in found] == ["stop", "stop", "length"]
    assert [answer.token_ids for answer in found[:2]] == [rows[0], rows[1][: found[1].num_tokens]]
    assert found[2].token_ids[: len(rows[2])] == rows[2] and found[2].num_tokens == most


def test_what_a_folder_says_of_generation_changes_nothing(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle()
    plain = generate(bundle, [[1, 5, 6]], [[]], 6)
    save_bundle(bundle, tmp_path / "model")
    path = tmp_path / "model" / "generation_config.json"
    odd = {"repetition_penalty": 9.0, "eos_token_id": plain[0].token_ids[0], "do_sample": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    assert generate(load_bundle(tmp_path / "model"), [[1, 5, 6]], [[]], 6) == plain


def text_of(bundle: Bundle, prompt: list[int], images: list[Image.Image], length: int) -> str:
    chunks = stream(bundle, prompt, images, Sampling(max_tokens=length))
    return "".join(chunk.text for chunk in chunks)


def test_streaming_gives_the_same_text(asked) -> None:
    bundle, prompts, images = asked
    for prompt, own in zip(prompts, images, strict=True):
        expected = generate(bundle, [prompt], [own], 24)[0].text
        assert text_of(bundle, prompt, own, 24) == expected


def test_a_fault_of_the_model_reaches_the_reader_of_a_stream(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()

    def fail(hidden: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(bundle.model.lm_head, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        text_of(bundle, [1, 5], [], 3)


def scripted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, text: str) -> list[int]:
    """Make the model write a text, whatever it is asked; `<0x23>` is `#` as a byte token."""
    ids: list[int] = []
    for part in re.split("(<0x23>)", text):
        found = bundle.tokenizer(part, add_special_tokens=False)["input_ids"]
        byte = bundle.tokenizer.convert_tokens_to_ids("<0x23>")
        ids += [byte] if part == "<0x23>" else found
    queue = iter(ids + [5] * 50)

    def head(hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(hidden), 1, len(bundle.tokenizer))
        logits[:, :, next(queue)] = 1
        return logits

    monkeypatch.setattr(bundle.model.lm_head, "forward", head)
    return ids


@pytest.mark.parametrize(
    "text",
    [
        "Yes, left.\n### Human: x",
        "Yes, left.### x",
        "Yes, left. ### x",
        "Yes, left.<0x23><0x23><0x23>",
    ],
)
def test_generation_stops_exactly_at_the_end_marker(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    bundle = make_bundle()
    ids = scripted(bundle, monkeypatch, text)
    answer = generate(bundle, [[1, 5, 6]], [[]], 60)[0]
    scripted(bundle, monkeypatch, text)
    assert text_of(bundle, [1, 5, 6], [], 60) == answer.text == "Yes, left."
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


def test_a_stream_that_is_left_ends_its_thread(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()
    scripted(bundle, monkeypatch, "left lobe of the liver " * 200)
    before = set(threading.enumerate())
    chunks = stream(bundle, [1, 5, 6], [], Sampling(max_tokens=400))
    next(chunks)
    (thread,) = set(threading.enumerate()) - before
    chunks.close()
    assert not thread.is_alive()
