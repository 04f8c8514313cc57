"""Imports flow one way: see docs/explanation/architecture.md."""

import ast
import re
from pathlib import Path

import pytest

import exgra_med

ROOT = Path(exgra_med.__file__).parent
ORDER = (
    "errors plugins files terminal section page_style alignment recipe data llm captions model "
    "training evaluation lab web cli"
).split()
NAME = re.compile(r"exgra_med\.[\w.]+(:\w+)?")
"""A module that is imported by its name: `exgra_med.data.sources.slake:SOURCE`."""
MODULES = sorted(ROOT.rglob("*.py"))


def layer_of(path: Path) -> str | None:
    name = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return name if name in ORDER else None


def imported_layers(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and NAME.fullmatch(str(node.value)):
            names.add(node.value.partition(":")[0])
    parts = [name.split(".") for name in names if name.startswith("exgra_med.")]
    return {part[1] for part in parts if part[1] in ORDER}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_the_layers_before_its_own(path: Path) -> None:
    layer = layer_of(path)
    if layer is None:
        return
    allowed = set(ORDER[: ORDER.index(layer) + 1])
    if layer == "alignment":
        allowed = {"errors", "plugins", "section", "alignment"}
    assert imported_layers(path) <= allowed


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    bad = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
    assert not [path for path in MODULES if path.stem in bad]
