import pytest

from exgra_med.data import chat_template
from exgra_med.data.records import Record, Turn
from exgra_med.errors import DataError

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
BLOCK = "<im_start><im_patch><im_end>"
RECORD = Record(
    id="a",
    image="a.png",
    turns=[
        Turn(role="user", text="Is it big?"),
        Turn(role="assistant", text=" Yes "),
        Turn(role="user", text="Why?"),
        Turn(role="assistant", text="It grew."),
    ],
    meta={"options": ["Yes", "No"]},
)


def test_the_exgra_text_is_the_training_layout_of_the_original() -> None:
    text = "".join(segment.text for segment in chat_template.conversation_segments(RECORD, "exgra"))
    assert text == (
        f'{SYSTEM}\n\n### Human: Is it big? (Answer with either "Yes" or "No").\n{BLOCK}\n'
        "### Assistant: Yes\n### Human: Why?\n### Assistant: It grew.\n###"
    )


def test_answers_and_their_end_markers_are_supervised_and_nothing_else() -> None:
    segments = chat_template.conversation_segments(RECORD, "exgra")
    assert [s.text for s in segments if s.supervised] == [" Yes\n###", " It grew.\n###"]


@pytest.mark.parametrize("name", chat_template.TEMPLATES)
@pytest.mark.parametrize("num_turns", [1, 3])
def test_a_prompt_is_the_beginning_of_the_training_text(name: str, num_turns: int) -> None:
    text = "".join(segment.text for segment in chat_template.conversation_segments(RECORD, name))
    prompt = chat_template.prompt_text(RECORD.turns[:num_turns], name, 1, ["Yes", "No"])
    assert text.startswith(prompt)


def test_several_images_stand_after_the_question() -> None:
    assert chat_template.user_text("Which?", num_images=2) == f"Which?\n{BLOCK}\n{BLOCK}"


@pytest.mark.parametrize("text", ["a <im_<im_patch>patch>b", "a <im_start>b<im_end>", "a [PAD]b"])
def test_nobody_can_write_an_image_into_a_text(text: str) -> None:
    assert chat_template.user_text(text) == "a b"


def test_three_options() -> None:
    assert chat_template.options_suffix(["A", "B", "C"]) == ' (Answer with either "A", "B" or "C").'


def test_a_prompt_ends_with_the_user() -> None:
    with pytest.raises(DataError, match="turn by the user"):
        chat_template.prompt_text(RECORD.turns[:2], "exgra")


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(DataError, match=r"'exgr'.*exgra"):
        chat_template.chat_template("exgr")
