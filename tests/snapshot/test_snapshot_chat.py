"""Prompts are frozen: whoever changes one retrains, or compares apples with pears.

python -m pytest tests/snapshot --snapshot-update
"""

import pytest
from syrupy.assertion import SnapshotAssertion

from exgra_med.data.chat_template import TEMPLATES, conversation_segments, prompt_text
from exgra_med.data.records import Record, Turn
from exgra_med.model.processor import CHAT_TEMPLATE

TURNS = [
    Turn(role="user", text=" Is there\na lesion? "),
    Turn(role="assistant", text="Yes"),
    Turn(role="user", text="Where?"),
    Turn(role="assistant", text="In the left lobe."),
]
CASES = {
    "image and options": Record(
        id="a", image="a.png", turns=TURNS[:2], meta={"options": ["Yes", "No"]}
    ),
    "two images, two turns": Record(id="b", image=["a.png", "b.png"], turns=TURNS),
    "text alone": Record(id="c", turns=TURNS[:2]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_training_text(name: str, case: str, snapshot: SnapshotAssertion) -> None:
    segments = conversation_segments(CASES[case], name)
    assert [(segment.supervised, segment.text) for segment in segments] == snapshot


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_prompt(name: str, case: str, snapshot: SnapshotAssertion) -> None:
    record = CASES[case]
    options = record.meta.get("options")
    turns = record.turns[: len(record.turns) - 1]
    assert prompt_text(turns, name, len(record.images), options) == snapshot


def test_chat_template_of_the_processor(snapshot: SnapshotAssertion) -> None:
    assert snapshot == CHAT_TEMPLATE
