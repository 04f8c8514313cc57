"""What other people's code, scripts and recipes may rely on changes only on purpose."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parents[2]
FROZEN = Path(__file__).parent / "public_api.txt"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("public_api", PROJECT / "tools" / "public_api.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_public_api_is_the_frozen_one(tool: ModuleType) -> None:
    now, frozen = set(tool.public_api().splitlines()), set(FROZEN.read_text().splitlines())
    assert now == frozen, (
        f"gone: {sorted(frozen - now)}, new: {sorted(now - frozen)}; "
        "say so in CHANGELOG.md and run PYTHONPATH=src python tools/public_api.py --write"
    )


def test_lazy_names_show_without_being_imported() -> None:
    program = (
        "import sys, exgra_med\n"
        "assert set(exgra_med.__all__) <= set(dir(exgra_med)), dir(exgra_med)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PROJECT / "src"), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr


def test_the_reference_shows_every_public_name(tool: ModuleType) -> None:
    page = (PROJECT / "docs" / "reference" / "python.md").read_text()
    shown = set(re.findall(r"auto\w+:: (\S+)", page))
    assert shown == {f"{module}.{name}" for module, names in tool.PUBLIC.items() for name in names}


def test_every_public_name_says_what_it_takes_gives_and_refuses(tool: ModuleType) -> None:
    missing = []
    for module, names in tool.PUBLIC.items():
        for name in names:
            thing = getattr(importlib.import_module(module), name)
            for at, function in [(name, thing), *_methods(name, thing)]:
                missing += [f"{module}.{at}: {what}" for what in _lacks(function)]
    assert not missing


def _methods(name: str, thing: object) -> list[tuple[str, object]]:
    if not inspect.isclass(thing) or issubclass(thing, BaseException):
        return []
    return [
        (f"{name}.{key}", member)
        for key, member in vars(thing).items()
        if inspect.isfunction(member) and not key.startswith("_")
    ]


def _lacks(thing: object) -> list[str]:
    """What a docstring should have and has not: itself, types, errors that the body raises."""
    text = inspect.getdoc(thing) or ""
    if not text:
        return ["a docstring"]
    if not inspect.isfunction(thing):
        return []
    signature = inspect.signature(thing)
    untyped = [
        each.name
        for each in signature.parameters.values()
        if each.annotation is inspect.Parameter.empty and each.name != "self"
    ]
    lacking = [f"type of {name}" for name in untyped]
    if signature.return_annotation is inspect.Signature.empty:
        lacking.append("type of what is returned")
    raised = set(re.findall(r"raise (\w+Error)\(", inspect.getsource(thing)))
    lacking += [f"Raises: {name}" for name in raised if name not in text]
    given = [each for each in signature.parameters if each not in ("self", "cls")]
    if len(given) > 2 and "Args:" not in text and "see `" not in text and "`forward`" not in text:
        unexplained = [each for each in given if each not in text]
        lacking += [f"Args: {name}" for name in unexplained]
    return lacking
