"""Whatever people write, labels are exactly the answers, and prompts begin the training ids."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exgra_med.data.chat_template import clean_text, encode_conversation, encode_prompt
from exgra_med.data.records import Record, Turn
from exgra_med.model.convert.tokenizer import read_sentencepiece
from exgra_med.model.processor import llama_tokenizer

MODEL = Path(__file__).parents[1] / "golden" / "data" / "tokenisation" / "tokenizer.model"
TOKENIZER: Any = llama_tokenizer(*read_sentencepiece(MODEL))
NUM_IMAGE_TOKENS = 3
WORDS = ["###", "<image>", "<im_patch>", "<im_end>", "Human:", "β", "\n", "  ", "12", "日本", "Yes"]
# Text of people, thick with what could be mistaken for a part of the layout. The names of the
# sequence tokens are left to the tokenizer, as in the original.
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=8), min_size=1, max_size=6).map(" ".join)
texts = texts.filter(
    lambda text: clean_text(text) and not {"<s>", "</s>", "<unk>"} & set(text.split())
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    turns = []
    for _ in range(draw(st.integers(1, 3))):
        answer = draw(texts).replace("<image>", "")
        turns += [Turn(role="user", text=draw(texts)), Turn(role="assistant", text=answer or "a")]
    # Placeholders fix the number of images; without any, there may be any number.
    places = sum(turn.text.count("<image>") for turn in turns)
    images = [f"{i}.png" for i in range(places or draw(st.integers(0, 2)))]
    options = draw(st.none() | st.just(["Yes", "No"]))
    meta = {"options": options} if options else {}
    return Record(id="a", image=images or None, turns=turns, meta=meta)


@settings(max_examples=80, deadline=None)
@given(record=records())
@pytest.mark.parametrize("template", ["exgra", "original-train"])
def test_labels_are_the_answers_and_prompts_begin_the_ids(template: str, record: Record) -> None:
    encoded = encode_conversation(TOKENIZER, record, template, NUM_IMAGE_TOKENS, 10**6)
    learnt = TOKENIZER.decode([label for label in encoded.labels if label != -100])
    assert learnt.strip() == "".join(f" {clean_text(text)}\n###" for text in record.answers).strip()
    patch = TOKENIZER.convert_tokens_to_ids("<im_patch>")
    assert encoded.input_ids.count(patch) == NUM_IMAGE_TOKENS * len(record.images)
    for num_turns in range(1, len(record.turns), 2):
        prompt = encode_prompt(
            TOKENIZER,
            record.turns[:num_turns],
            template,
            NUM_IMAGE_TOKENS,
            sum(turn.text.count("<image>") for turn in record.turns[:num_turns])
            if record.places_images
            else len(record.images),
            record.meta.get("options"),
        )
        assert encoded.input_ids[: len(prompt)] == prompt
        # The first token after the prompt is the first that is learnt from in this turn.
        assert encoded.labels[len(prompt) - 1] == -100 != encoded.labels[len(prompt)]
