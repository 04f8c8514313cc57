"""Whoever searches the migration page for a name of the original finds what replaces it."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from exgra_med.cli.main import app
from exgra_med.recipe.load import shipped_recipes
from exgra_med.recipe.schema import Recipe, StageSettings
from exgra_med.section import Section

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "migration.md").read_text(encoding="utf-8")
ROWS = [
    (set(re.findall(r"`([^`]+)`", cells[1])), cells[2].strip())
    for cells in (line.split(" | ") for line in PAGE.splitlines() if line.startswith("| `"))
    for cells in [["", cells[0], cells[1].rstrip(" |")]]
]
# Every file of the original's `scripts/` and package, and every flag that one of them sets.
NAMES = (Path(__file__).parent / "original_names.txt").read_text(encoding="utf-8").split()
REPLACEMENTS = " ".join(replacement for _, replacement in ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_original_has_a_row_with_its_replacement(name: str) -> None:
    found = [replacement for names, replacement in ROWS if name in names]
    assert found
    assert all(len(replacement) > 5 for replacement in found)


def test_the_list_of_names_has_scripts_and_flags() -> None:
    assert sum(name.endswith((".sh", ".py")) for name in NAMES) > 70
    assert sum(name.startswith("--") for name in NAMES) > 90


def test_every_recipe_that_the_page_names_is_shipped() -> None:
    named = set(re.findall(r"(?:pretrain|finetune)/[a-z0-9-]+", REPLACEMENTS))
    assert named
    assert named <= set(shipped_recipes())


def test_every_command_that_the_page_names_exists() -> None:
    for words in re.findall(r"`exgra-med ([^`]+)`", REPLACEMENTS):
        command = get_command(app)
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, words
            command = command.commands[word]
        options = {option for each in command.params for option in each.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= options, words


def test_every_recipe_field_that_the_page_names_exists() -> None:
    for path in re.findall(r"`((?:model|data|text|evaluation|stages)\.[a-z_.*]+)", REPLACEMENTS):
        section: type[Section] = Recipe
        names = path.split(".")
        if names[0] == "stages":
            section, names = StageSettings, names[2:]
        for name in names:
            assert name in section.model_fields, path
            inner = [
                each
                for each in _classes(section.model_fields[name].annotation)
                if issubclass(each, Section)
            ]
            section = inner[0] if inner else section


def _classes(annotation: object) -> list[type]:
    from typing import get_args

    if isinstance(annotation, type):
        return [annotation]
    return [found for each in get_args(annotation) for found in _classes(each)]
