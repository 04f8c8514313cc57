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


NAMES = {
    "H200": "h200",
    "H100 80GB HBM3": "h100",
    "A100-SXM4-80GB": "a100-80",
    "A100-SXM4-40GB": "a100-40",
    "L40S": "l40s",
    "RTX A6000": "a6000",
    "RTX 4090": "rtx4090",
}
"""Part of the name that the driver gives, and the row of the table. An H100 on PCIe or an H200 NVL
has another peak and is not in it."""


def peak_of(device_name: str) -> float | None:
    """Dense bfloat16 operations per second of a device by its driver's name, where known.

    The table's source: NVIDIA's data sheets (H100 SXM and H200 SXM: 1,979 TFLOPS with sparsity,
    so 989 without).
    """
    if "NVL" in device_name:
        return None
    rows = (row for name, row in NAMES.items() if name in device_name)
    row = next(rows, None)
    return None if row is None else GPUS[row].operations_per_second


def find_gpu(name: str) -> Gpu:
    """A GPU by its name.

    Raises:
        RecipeError: there is no such name; lists those there are.
    """
    if name not in GPUS:
        raise RecipeError(f"There is no GPU {name!r} in the table.", f"Known: {', '.join(GPUS)}.")
    return GPUS[name]
