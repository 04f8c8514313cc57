import pytest

from exgra_med.llm.prompt import MAX_CHARACTERS, object_with
from exgra_med.llm.request import ReplyError


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "x"}',
        ' \n{"b": 1, "a": "x"}\n',
        '```json\n{"a": "x"}\n```',
        'Sure! Here {it} is: {"a": "x"} Good luck.',
        '<think>maybe {"a": "y"}?</think>{"a": "x"}',
        '"{\\"a\\": \\"x\\"}"',
        "\"{'a': 'x'}\"",
        '{"b": 2} {"a": "x"}',
        '{"a": "x"} and again {"a": "x"}',
    ],
)
def test_an_object_is_found(text: str) -> None:
    assert object_with(text, "a")["a"] == "x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "5",
        "null",
        '{"b": 1}',
        '[{"a": "x"}]',
        '{"a": "cut',
        '{"a": 1} or {"a": 2}',
        "{" * 5000,
        '{"b":' * 3000,
        "[" * 50000,
        '{"a": "' + "x" * MAX_CHARACTERS + '"}',
        "\"__import__('os').system('true')\"",
        '"{{1}}"',
    ],
    ids=range(14),
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ReplyError):
        object_with(text, "a")
