"""The layers of the language model through `torch.compile`, each by itself.

One layer is compiled once and serves them all, so starting takes seconds to minutes instead of the
time of a whole 7B graph; names in a checkpoint stay as they are.
"""

import os
import shutil
from importlib import util
from typing import Any

from exgra_med.errors import RecipeError
from exgra_med.model.bundle import Bundle
from exgra_med.training.processes import on_cpu

BACKEND = "inductor"


def check_compiling_possible() -> None:
    """Say in one sentence what the compiler lacks.

    Raises:
        RecipeError: no C++ compiler on a machine without accelerator, no triton on one with.
    """
    if not on_cpu():
        if util.find_spec("triton") is None:
            raise RecipeError(
                "`compile: true` needs triton, which is not installed.", "Set it to false."
            )
        return
    names = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not any(name and shutil.which(name) for name in names):
        raise RecipeError(
            "`compile: true` needs a C++ compiler on a machine without a GPU, and there is none.",
            "Set it to false.",
        )


def compile_layers(bundle: Bundle, backend: str = BACKEND) -> None:
    """Compile every decoder layer in place, for any length of a row."""
    decoder: Any = bundle.model.get_decoder()
    for layer in decoder.layers:
        layer.compile(dynamic=True, backend=backend)
