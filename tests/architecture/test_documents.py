"""What the documents point at exists."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PROJECT = TESTS.parent
SOURCE = PROJECT / "src" / "exgra_med"
PAGES = sorted((PROJECT / "docs" / "faithfulness").glob("*.md"))
FAITHFULNESS = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
ROWS = [line for line in FAITHFULNESS.splitlines() if line.startswith("| ") and "---" not in line]
MARKDOWN = [
    path
    for path in PROJECT.rglob("*.md")
    if not {
        ".venv",
        "runs",
        "samples",
        "data",
        "prompts",
        "_build",
        "generated",
        "commands",
        "notebooks",
    }
    & set(path.relative_to(PROJECT).parts)
]


@pytest.mark.parametrize("named", sorted(set(re.findall(r"(test_\w+\.py)", FAITHFULNESS))))
def test_a_test_that_the_faithfulness_page_names_exists(named: str) -> None:
    assert list(TESTS.rglob(named))


def test_a_test_function_that_the_faithfulness_page_names_exists() -> None:
    for file, function in re.findall(r"(test_\w+\.py)::(test_\w+)", FAITHFULNESS):
        texts = [path.read_text(encoding="utf-8") for path in TESTS.rglob(file)]
        assert any(f"def {function}(" in text for text in texts), f"{file}::{function}"


def test_every_row_names_a_file_and_a_test() -> None:
    assert len(ROWS) > 120
    for row in ROWS:
        assert len(re.split(r"(?<!\\)\|", row)) == 6, row[:80]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target
