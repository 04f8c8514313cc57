"""Text to ids, with a real tokenizer."""

import pytest
from PIL import Image

from exgra_med.data.chat_template import (
    alignment_text,
    encode_conversation,
    encode_prompt,
    encode_text,
)
from exgra_med.data.records import Record, Turn
from exgra_med.errors import DataError
from exgra_med.model.bundle import Bundle

RECORD = Record(
    id="a",
    image="a.png",
    turns=[
        Turn(role="user", text="Is there a lesion?"),
        Turn(role="assistant", text="Yes, in the liver ### β."),
        Turn(role="user", text="Where?"),
        Turn(role="assistant", text="In the right lung."),
    ],
)


def supervised_text(bundle: Bundle, labels: list[int]) -> str:
    return bundle.tokenizer.decode([label for label in labels if label != -100])


@pytest.mark.parametrize("template", ["exgra", "original-train", "original-validation"])
def test_exactly_the_answers_are_supervised(bundle: Bundle, template: str) -> None:
    encoded = encode_conversation(bundle.tokenizer, RECORD, template, 4, 512)
    text = supervised_text(bundle, encoded.labels)
    prefix = "Assistant: " if template == "original-validation" else ""
    assert text == f"{prefix}Yes, in the liver ### β.\n###{prefix or ' '}In the right lung.\n###"
    assert all(b in (-100, a) for a, b in zip(encoded.input_ids, encoded.labels, strict=True))
    assert not encoded.truncated


@pytest.mark.parametrize("num_turns", [1, 3])
def test_a_prompt_is_a_prefix_of_the_training_ids(bundle: Bundle, num_turns: int) -> None:
    ids = encode_conversation(bundle.tokenizer, RECORD, "exgra", 4, 512).input_ids
    prompt = encode_prompt(bundle.tokenizer, RECORD.turns[:num_turns], "exgra", 4, 1)
    assert ids[: len(prompt)] == prompt
    assert prompt.count(bundle.image_token_id) == 4
    assert prompt[0] == bundle.tokenizer.bos_token_id


def test_the_processor_makes_the_same_prompt(bundle: Bundle, pictures: list[Image.Image]) -> None:
    content = [{"type": "image"}, {"type": "text", "text": RECORD.question}]
    messages = [{"role": "user", "content": content}]
    text = bundle.processor.apply_chat_template(messages, add_generation_prompt=True)
    made = bundle.processor(images=pictures[:1], text=text, add_special_tokens=False)
    assert made["input_ids"][0] == encode_prompt(bundle.tokenizer, RECORD.turns[:1], "exgra", 4, 1)


def test_a_client_cannot_write_an_image(bundle: Bundle) -> None:
    content = [{"type": "text", "text": "a <im_patch>b"}]
    text = bundle.processor.apply_chat_template([{"role": "user", "content": content}])
    assert "<im_patch>" not in text and "a b" in text


def test_the_processor_knows_later_turns(bundle: Bundle) -> None:
    messages = [{"role": turn.role, "content": turn.text} for turn in RECORD.turns[:3]]
    text = bundle.processor.apply_chat_template(messages, add_generation_prompt=True)
    made = bundle.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert made == encode_prompt(bundle.tokenizer, RECORD.turns[:3], "exgra", 4, 0)


def test_truncation_is_reported(bundle: Bundle) -> None:
    whole = encode_conversation(bundle.tokenizer, RECORD, "exgra", 4, 512)
    question = len(encode_prompt(bundle.tokenizer, RECORD.turns[:1], "exgra", 4, 1))
    cut = encode_conversation(bundle.tokenizer, RECORD, "exgra", 4, question)
    assert cut.truncated
    assert cut.input_ids == whole.input_ids[:question]
    assert cut.num_supervised == 0 < whole.num_supervised


def test_a_cut_image_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match=r"'a'.*more than 20 tokens"):
        encode_conversation(bundle.tokenizer, RECORD, "exgra", 4, 20)


def test_alignment_text_joins_answers_without_newlines_and_images() -> None:
    assert alignment_text(["A\nb", "<im_patch>c"]) == "Ab. c"


def test_a_text_alone_begins_with_the_first_token(bundle: Bundle) -> None:
    ids = encode_text(bundle.tokenizer, "The left lobe", 512)
    assert ids == bundle.tokenizer("The left lobe")["input_ids"]
    assert encode_text(bundle.tokenizer, "The left lobe", 2) == ids[:2]
    assert encode_text(bundle.tokenizer, "", 2) == ids[:1]
