"""Several images of a question: in their places and order, alone, in a batch, here and served."""

from typing import Any

import pytest
import torch
from PIL import Image

from exgra_med.data.chat_template import encode_conversation, encode_prompt
from exgra_med.data.records import Turn
from exgra_med.errors import DataError
from exgra_med.evaluation.engines import message_parts
from exgra_med.model.assistant import Conversation
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import generate
from exgra_med.model.native import pixel_values
from several_images import TALKS, talk

NUM_TOKENS = 4
"""Visual tokens of an image of the tiny model."""
SEVERAL = ["two", "four", "in a sentence", "one in a sentence", "at the beginning", "over turns"]


def prompt_of(bundle: Bundle, question: str, num_images: int) -> list[int]:
    turns = [Turn(role="user", text=question)]
    return encode_prompt(bundle.tokenizer, turns, "exgra", NUM_TOKENS, num_images)


def runs(bundle: Bundle, ids: list[int]) -> list[str]:
    """The sequence as text, each image as its number of visual tokens."""
    found, texts, count = [], [], 0
    for token in [*ids, None]:
        if token == bundle.image_token_id:
            count += 1
            continue
        if count:
            found += [bundle.tokenizer.decode(texts), f"({count})"]
            texts, count = [], 0
        texts += [] if token is None else [token]
    return [*found, bundle.tokenizer.decode(texts)]


def test_the_visual_tokens_stand_where_the_placeholders_stand(bundle: Bundle) -> None:
    ids = prompt_of(bundle, "Is <image> older than <image>?", 2)
    before, one, between, two, behind = runs(bundle, ids)
    assert (one, two) == ("(4)", "(4)")
    assert before.endswith("Human: Is<im_start>")
    assert between == "<im_end> older than<im_start>" and behind.startswith("<im_end> ?\n###")
    plain = runs(bundle, prompt_of(bundle, "Which is older?", 2))
    assert plain[0].endswith("Which is older?<im_start>") and plain[2] == "<im_end><im_start>"


@pytest.mark.parametrize("name", TALKS)
def test_a_conversation_has_all_images_and_its_prompts_begin_it(bundle: Bundle, name: str) -> None:
    record = talk(name)
    ids = encode_conversation(bundle.tokenizer, record, "exgra", NUM_TOKENS, 512).input_ids
    assert ids.count(bundle.image_token_id) == NUM_TOKENS * len(record.images)
    turns, count = record.turns[:1], len(record.question_images)
    prompt = encode_prompt(bundle.tokenizer, turns, "exgra", NUM_TOKENS, count)
    assert ids[: len(prompt)] == prompt


def test_embeddings_hold_each_image_at_its_place(
    bundle: Bundle, pictures: list[Image.Image]
) -> None:
    ids = prompt_of(bundle, "Is <image> <image> or <image> older?", 3)
    places = [n for n, token in enumerate(ids) if token == bundle.image_token_id]
    features = bundle.model.image_features(pixel_values(bundle, pictures[:3]))
    made = bundle.model.insert_images(torch.tensor([ids]), features)[0]
    for number in range(3):
        own = places[NUM_TOKENS * number : NUM_TOKENS * (number + 1)]
        assert own == list(range(own[0], own[0] + NUM_TOKENS))
        assert torch.equal(made[own], features[number])
    swapped = bundle.model.insert_images(torch.tensor([ids]), features[[1, 0, 2]])[0]
    assert torch.equal(swapped[places[:NUM_TOKENS]], features[1])
    assert not torch.equal(swapped, made)


def test_answers_are_equal_alone_and_in_a_batch_and_the_order_matters(
    bundle: Bundle, pictures: list[Image.Image]
) -> None:
    asked = [
        ("Which lung?", []),
        ("In <image>, which lung?", pictures[:1]),
        ("Which is older?", pictures[:2]),
        ("Is <image> older than <image>?", pictures[1::-1]),
        ("Where? <image><image> or <image> <image>", pictures),
    ]
    prompts = [prompt_of(bundle, text, len(images)) for text, images in asked]
    together = generate(bundle, prompts, [images for _, images in asked], 12)
    for prompt, (_, images), answer in zip(prompts, asked, together, strict=True):
        assert generate(bundle, [prompt], [images], 12)[0].token_ids == answer.token_ids
    ids = torch.tensor([prompts[3]])
    states = [
        bundle.model(input_ids=ids, pixel_values=pixel_values(bundle, order)).logits[0, -1]
        for order in (pictures[:2], pictures[1::-1])
    ]
    assert not torch.allclose(states[0], states[1])


@pytest.mark.parametrize("name", SEVERAL)
def test_a_served_export_reads_the_same_prompt(
    bundle: Bundle, pictures: list[Image.Image], name: str
) -> None:
    record = talk(name)
    count = len(record.question_images)
    parts = message_parts(record.question, pictures[:count])
    assert all(part.get("text", "x").strip() for part in parts)
    messages = [{"role": "user", "content": [as_image(part) for part in parts]}]
    text = bundle.processor.apply_chat_template(messages, add_generation_prompt=True)
    made = bundle.processor(images=pictures[:count], text=text, add_special_tokens=False)
    turns = record.turns[:1]
    expected = encode_prompt(bundle.tokenizer, turns, "exgra", NUM_TOKENS, count)
    assert made["input_ids"][0] == expected


def as_image(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image"} if part["type"] == "image_url" else part


@pytest.mark.parametrize(
    ("parts", "question"),
    [
        # What clients of others send, and where this project's training has the images.
        (["I", "I", "Which?"], "Which?\n<image>\n<image>"),
        (["Which?", "I", "I"], "Which?\n<image>\n<image>"),
        (["Is", "I", "or", "I", "old?"], "Is <image> or <image> old?"),
        (["I", "is one,", "I", "two?"], "<image> is one, <image> two?"),
        (["I", "\nWhich?"], "<image>\nWhich?"),
        (["One.", "Two?"], "One.\nTwo?"),
        (["I"], "<image>"),
    ],
)
def test_parts_of_a_message_keep_their_order(
    bundle: Bundle, parts: list[str], question: str
) -> None:
    content = [{"type": "image"} if p == "I" else {"type": "text", "text": p} for p in parts]
    messages = [{"role": "user", "content": content}]
    text = bundle.processor.apply_chat_template(messages, add_generation_prompt=True)
    made = bundle.tokenizer(text, add_special_tokens=False)["input_ids"]
    turns = [Turn(role="user", text=question)]
    assert made == encode_prompt(bundle.tokenizer, turns, "exgra", 1, question.count("<image>"))


def test_images_of_later_turns_stand_there_in_an_export(bundle: Bundle) -> None:
    record = talk("over turns")
    messages = []
    for turn in record.turns[:5]:
        parts = message_parts(turn.text, [Image.new("RGB", (4, 4))] * turn.text.count("<image>"))
        content = [as_image(part) for part in parts] if turn.role == "user" else turn.text
        messages.append({"role": turn.role, "content": content})
    text = bundle.processor.apply_chat_template(messages, add_generation_prompt=True)
    made = bundle.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert made == encode_prompt(bundle.tokenizer, record.turns[:5], "exgra", 1, 3)


def test_more_images_than_the_model_can_read_are_refused(bundle: Bundle) -> None:
    count = bundle.context_length // NUM_TOKENS
    prompt = prompt_of(bundle, "Which?", count)
    with pytest.raises(DataError, match=rf"its {count} images has \d+ tokens.*reads 512 in all"):
        generate(bundle, [prompt], [[Image.new("RGB", (8, 8))] * count], 4)


def test_a_conversation_refuses_placeholders_that_do_not_fit_and_goes_on(
    bundle: Bundle, pictures: list[Image.Image]
) -> None:
    conversation = Conversation(bundle, pictures[:2])
    with pytest.raises(DataError, match="3 times for 2 images"):
        conversation.ask("<image> <image> <image>")
    conversation.ask("Is <image> older than <image>?")
    conversation.ask("Why?")
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"] * 2
    with pytest.raises(DataError, match="3 times for 2 images"):
        conversation.ask("And <image>?")
