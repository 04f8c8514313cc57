"""Every command in README and documentation exists, with its options, and somebody tries it."""

import ast
from pathlib import Path

import pytest
from blocks import PROJECT, Block, blocks, inline_commands, pages, words_of
from stories import STORIES
from typer.main import get_command

from exgra_med.cli.main import app

BLOCKS = [block for page in pages() for block in blocks(page)]
COMMANDS = [
    pytest.param(words, id=f"{block.page}:{block.line}:{number}")
    for block in BLOCKS
    for number, command in enumerate(block.commands)
    if (words := words_of(command)) is not None
]
PYTHON = [block for block in BLOCKS if block.language in ("python", "py")]


def find(words: list[str]) -> tuple[object, list[str]]:
    """The command that words begin with, and the words after it."""
    command = get_command(app)
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_documentation_is_understood(words: list[str]) -> None:
    command, rest = find(words)
    if rest == ["--help"] or rest == ["--version"]:
        return
    assert not hasattr(command, "commands"), f"there is no command {' '.join(words)}"
    # Parses arguments, options and their types; nothing is done.
    command.make_context(command.name, list(rest))


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 80
    assert len({block.page for block in BLOCKS if block.commands}) > 10


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_a_command_in_the_text_exists(page: Path) -> None:
    for text in inline_commands(page):
        command, rest = find(text.removeprefix("exgra-med ").split())
        first = rest[0] if rest else ""
        known = not hasattr(command, "commands") or not first or first.startswith("-")
        assert known or first.isupper() or first in ("...", "|"), text
        if hasattr(command, "commands"):
            continue
        options = {option for each in command.params for option in each.opts} | {"--help"}
        assert {word for word in rest if word.startswith("--")} <= options, text


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}:{block.line}")
def test_python_of_the_documentation_is_python(block: Block) -> None:
    ast.parse(block.text)


def test_every_block_is_executed_or_says_what_it_needs() -> None:
    open_blocks = [
        f"{block.page}:{block.line}"
        for block in BLOCKS
        if block.commands and not block.needs and block.page not in STORIES
    ]
    assert not open_blocks, (
        f"{open_blocks}: put `<!-- needs: WHAT -->` before the block, or give the page a story in "
        "tests/documents/stories.py"
    )


def test_every_story_has_a_page_with_something_to_execute() -> None:
    told = {block.page for block in BLOCKS if block.commands and not block.needs}
    assert set(STORIES) <= told


def test_a_block_that_needs_something_is_told_apart(tmp_path: Path) -> None:
    page = PROJECT / "docs" / "tutorials" / "one-gpu.md"
    found = [block for block in blocks(page) if block.commands]
    assert any("GPU" in block.needs for block in found)
    assert any(not block.needs for block in found)


def test_no_block_mixes_commands_with_something_else() -> None:
    mixed = [
        f"{block.page}:{block.line}"
        for block in BLOCKS
        if block.language in ("", "sh", "bash")
        and any(line.strip().startswith("exgra-med ") for line in block.text.splitlines())
        and not block.commands
    ]
    assert not mixed
