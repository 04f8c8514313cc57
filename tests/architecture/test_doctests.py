"""Every example in a docstring runs."""

import doctest
import importlib
from pathlib import Path

import pytest

import exgra_med

ROOT = Path(exgra_med.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("exgra_med", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed
