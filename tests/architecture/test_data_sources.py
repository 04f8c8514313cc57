"""A data source is registered and documented wherever a reader looks for it."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from exgra_med.data import sources
from exgra_med.data.sources import SOURCES
from exgra_med.data.sources.source import Source

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = Path(sources.__file__).parent
PAGES = ("docs/reference/datasets.md", "docs/how-to/datasets.md")


def test_every_module_that_defines_a_source_is_registered() -> None:
    defined = set()
    for path in FOLDER.glob("[!_]*.py"):
        module = import_module(f"exgra_med.data.sources.{path.stem}")
        for attribute, value in vars(module).items():
            if isinstance(value, Source):
                defined.add((value.name, f"{module.__name__}:{attribute}"))
    assert defined == set(SOURCES.own.items()), "register it in data/sources/__init__.py"


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", SOURCES.names())
def test_every_source_stands_on_the_pages_of_data_sets(name: str, page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    # In code marks, or as the argument of the command.
    assert re.search(rf"`{name}`|data prepare {name}\b", text), f"{page} does not name {name}"


@pytest.mark.parametrize("name", SOURCES.names())
def test_every_source_has_a_test(name: str) -> None:
    tests = (PROJECT / "tests" / "unit").rglob("test_*.py")
    assert any(f'prepare("{name}"' in path.read_text(encoding="utf-8") for path in tests)


def test_the_guide_names_every_place() -> None:
    guide = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for place in ("`SOURCES`", *PAGES, "CHANGELOG.md", "tests/unit/data/sources/"):
        assert place in guide, place
    assert "docs/how-to/add-a-dataset.md" in guide
