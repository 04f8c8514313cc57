"""GPUs that a run can be planned for."""

from dataclasses import dataclass

from exgra_med.errors import RecipeError


@dataclass(frozen=True)
class Gpu:
    """Memory in bytes, dense bfloat16 operations per second as its maker states them, and the
    share of these that training is assumed to reach."""

    memory: float
    operations_per_second: float
    utilisation: float = 0.40


GPUS = {
    "h200": Gpu(141e9, 989e12),
    "h100": Gpu(80e9, 989e12),
    "a100-80": Gpu(80e9, 312e12),
    "a100-40": Gpu(40e9, 312e12),
    "l40s": Gpu(48e9, 362e12, 0.35),
    "a6000": Gpu(48e9, 155e12, 0.35),
    "rtx4090": Gpu(24e9, 165e12, 0.35),
}


def find_gpu(name: str) -> Gpu:
    """A GPU by its name.

    Raises:
        RecipeError: there is no such name; lists those there are.
    """
    if name not in GPUS:
        raise RecipeError(f"There is no GPU {name!r} in the table.", f"Known: {', '.join(GPUS)}.")
    return GPUS[name]
