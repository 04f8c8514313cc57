"""`precision: auto`: whether bfloat16 is faster on this machine, measured and not looked up.

A linear layer of common size goes forward and backward in both precisions in turn, so that a busy
machine slows both alike; the casts of autocast count. The figure is kept in the user's cache, for
this machine, its number of threads and this torch.
"""

import hashlib
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from exgra_med.digests import read_document, write_document
from exgra_med.errors import DamagedFileError
from exgra_med.files import cache_folder
from exgra_med.recipe.run_folder import open_run
from exgra_med.recipe.schema import Recipe
from exgra_med.terminal import waiting_for

SPEED = "speed"
"""Folder of `cache_folder` in which the figures of machines are kept."""
ENOUGH = 1.1
"""Times as fast that bfloat16 has to be; less may be noise, and float32 is the safer one."""
_ROWS, _WIDTH, _PAIRS, _WARM_UP = 512, 768, 9, 2


def bfloat16_speedup() -> float:
    """How many times as fast as in float32 a linear layer is in bfloat16 here; from the cache where
    it was measured before."""
    place = _cache_file()
    try:
        return float(read_document(place)["bfloat16_speedup"])
    except (DamagedFileError, ValueError, KeyError, TypeError):
        with waiting_for("Measuring once which precision is faster here"):
            speedup = _measured()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_document(place, {"bfloat16_speedup": speedup})
    except OSError:
        pass  # a home that cannot be written to: it is measured every time
    return speedup


def faster_precision() -> str:
    """What `precision: auto` means on this machine."""
    return "bfloat16" if bfloat16_speedup() >= ENOUGH else "float32"


def with_precision(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with what `precision: auto` of stages and evaluation means here; in a run folder
    that was begun earlier it means what it did then, so that a resumed run stays the same."""
    parts: dict[str | None, Any] = {None: recipe.evaluation} | recipe.stages
    unsaid = [name for name, part in parts.items() if part.precision == "auto"]
    if not unsaid:
        return recipe
    begun: dict[str | None, Any] = {}
    if (path / "recipe.yaml").is_file():
        earlier = open_run(path).recipe
        begun = {None: earlier.evaluation} | earlier.stages
    for name in unsaid:
        known = begun[name].precision if name in begun else faster_precision()
        parts[name] = parts[name].model_copy(update={"precision": known})
    return recipe.model_copy(update={"evaluation": parts.pop(None), "stages": parts})


def _device() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def _measured() -> float:
    """Median over pairs of float32 seconds over bfloat16 seconds."""
    device = _device()
    with torch.random.fork_rng(), torch.enable_grad():
        rows = torch.randn(_ROWS, _WIDTH, device=device, requires_grad=True)
        weight = torch.randn(_WIDTH, _WIDTH, device=device, requires_grad=True)

        def seconds(half: bool) -> float:
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                out = F.linear(rows, weight)
            out.float().sum().backward()
            if device.type != "cpu":
                torch.accelerator.synchronize()
            return time.perf_counter() - started

        pairs = [(seconds(False), seconds(True)) for _ in range(_WARM_UP + _PAIRS)]
    return round(statistics.median(whole / half for whole, half in pairs[_WARM_UP:]), 2)


def _cache_file() -> Path:
    device = _device()
    name = "" if device.type == "cpu" else torch.cuda.get_device_name() * torch.cuda.is_available()
    about = [torch.__version__, torch.get_num_threads(), platform.node(), device.type, name]
    about.append(torch.backends.cpu.get_cpu_capability())
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    return cache_folder() / SPEED / f"{digest[:32]}.json"
