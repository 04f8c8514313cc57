"""What verbs print."""

import json
from collections.abc import Iterator

import pytest

from exgra_med.terminal import printable, show, table


def test_json_is_printed_and_no_line_is_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lines() -> Iterator[str]:
        raise AssertionError
        yield ""

    show({"größe": [1]}, True, lines())
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"größe": [1]} and "ö" in printed


def test_lines_are_printed_for_a_person_and_tables_too(capsys: pytest.CaptureFixture[str]) -> None:
    show({}, False, ["one", table("title", ["name", "value"], [["a", "1"]])])
    out = capsys.readouterr().out
    assert out.startswith("one\n") and "title" in out and "value" in out


def test_no_text_steers_the_terminal() -> None:
    assert printable("a\x1b[2J\r\x07\udcffb\n\tc\u00a0d") == "a�[2J���b\n\tc\u00a0d"
