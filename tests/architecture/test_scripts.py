"""Scripts outside the package are not type-checked; what they import from it must exist."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path
    for folder in ("benchmarks", "examples", "tools", "docs/_ext")
    for path in (PROJECT / folder).rglob("*.py")
)


def exists(module: str, name: str) -> bool:
    """Whether a module holds a name, or is a package with a module of that name."""
    try:
        return hasattr(import_module(module), name) or bool(import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_every_name_that_a_script_imports_from_the_package_exists(script: Path) -> None:
    imports = [
        (node.module, each.name)
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "exgra_med"
        for each in node.names
    ]
    assert [each for each in imports if not exists(*each)] == []
