"""A file that a page names in code marks exists; links are held by `test_documents.py`."""

import re
from pathlib import Path

import pytest
from blocks import PROJECT, pages

FOLDERS = "benchmarks|docs|examples|src|tests|tools"
NAMED = re.compile(rf"`((?:{FOLDERS})/[\w./-]+\.(?:md|py))(?:::\w+|:\d+)?`")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_a_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not [name for name in NAMED.findall(text) if not (PROJECT / name).is_file()]


def test_names_with_a_test_or_a_line_are_seen_too() -> None:
    text = "`docs/a.md`, `src/b/c.py:12`, `tests/d.py::test_e`, `tests/*.py`, docs/f.md"
    assert NAMED.findall(text) == ["docs/a.md", "src/b/c.py", "tests/d.py"]
