"""The plain loop runs, and both losses fall."""

import importlib.util
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_both_losses_fall() -> None:
    losses = torch.tensor(load("align_any_model").main(steps=25))
    first, last = losses[:5].mean(0), losses[-5:].mean(0)
    assert (last < 0.9 * first).all()
