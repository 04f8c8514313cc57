"""The toy example does what its first line says."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "examples" / "align_toy.py"


def load():
    spec = importlib.util.spec_from_file_location("align_toy", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "objective", ["barycenter", pytest.param("pairwise", marks=pytest.mark.slow)]
)
def test_from_chance_to_95_percent_on_held_out_batches(objective: str) -> None:
    history = load().main(objective, steps=60)
    assert history[0][2] < 0.15
    assert history[-1][2] > 0.95
