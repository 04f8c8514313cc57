"""The original's accepted and refused replies, and what becomes of each here."""

import json
from pathlib import Path

import pytest

from exgra_med.captions.question import revision_of
from exgra_med.llm.openai_transport import reply_of
from exgra_med.llm.request import ReplyError

CASES = json.loads((Path(__file__).parent / "data" / "captions" / "replies.json").read_text())
# Replies that the original asks again for, and whose content is plain: we take them.
TAKEN = {
    "fenced_json_then_ok": "F",
    "text_then_ok": "F",
    "trailing_text_then_ok": "R",
}
# Replies that the original stores cut or in a type that no trainer can read.
MENDED = {
    "json_string_escaped_quote_inside": 'R "quoted" end',
    "json_string_mixed_quotes_single_value_then_double": "it is",
}
REFUSED = {"empty_revision", "number_revision", "list_revision", "dict_revision"}


def revision(reply: object) -> str:
    if isinstance(reply, dict):
        return revision_of(reply_of(reply["__raw__"], 0).text)
    return revision_of(reply_of({"choices": [{"message": {"content": reply}}]}, 0).text)


@pytest.mark.parametrize("name", sorted(CASES))
def test_replies_of_the_original(name: str) -> None:
    case = CASES[name]
    expected = TAKEN.get(name, MENDED.get(name))
    if expected is None and case["requests"] == 1 and name not in REFUSED:
        expected = case["stored"]
    if expected is None:
        with pytest.raises(ReplyError):
            revision(case["reply"])
    else:
        assert revision(case["reply"]) == expected


def test_every_exception_is_a_case_that_the_original_treats_otherwise() -> None:
    assert all(CASES[name]["requests"] == 2 for name in TAKEN)
    assert all(CASES[name]["stored"] != text for name, text in MENDED.items())
    assert all(CASES[name]["requests"] == 1 for name in REFUSED)
