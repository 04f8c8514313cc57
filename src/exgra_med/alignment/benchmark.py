"""Time and quality of matching solvers, side by side in one run.

For each size, regime and solver: milliseconds for the six problems of a step and for the six
perturbed ones (median and quartiles over steps and repetitions; solvers take turns, so that noise
of the machine meets all alike), and how far the objective lies above the best one known, in
percent. Best known is the best of everything that was run on a problem, long searches included.
Processor time, with the checks of the input, is there for busy machines.
"""

import importlib.metadata
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from exgra_med.alignment.instances import REGIMES, TRANSITION, StepProblems, make_problems
from exgra_med.alignment.loss import MultiGraphAlignment
from exgra_med.alignment.matching import MatchingResult, solve_matching
from exgra_med.alignment.solvers.compiled import HAS_NUMBA

SIZES = (8, 16, 32, 64, 128, 256, 512)
CONTENDERS = (
    ("local-search", "fast"),
    ("anneal", "fast"),
    ("anneal", "thorough"),
    ("torch", "fast"),
    ("exhaustive", "fast"),
    ("lpmp", "fast"),
    ("pylibmgm", "fast"),
)
"""Solver and effort; a third-party solver runs where it is installed."""
THIRD_PARTY = {"lpmp": "lpmp_py", "pylibmgm": "pylibmgm"}
"""Solver and the package that it stands on."""
LARGEST = {
    ("exhaustive", "fast"): 8,
    ("torch", "fast"): 16,
    ("lpmp", "fast"): 32,
    ("pylibmgm", "fast"): 32,
    ("anneal", "thorough"): 256,
}
"""Sizes above which a solver takes too long to be asked."""
SLOW = set(LARGEST)
"""These run once for each step."""
SMALL = 32
"""Sizes up to which several steps are measured, and long searches look for the best."""
LONG_SEARCHES = 6
"""Thorough searches with other seeds behind "best known"."""


def benchmark_matching(
    sizes: Iterable[int] = SIZES,
    *,
    regimes: Iterable[str] = REGIMES,
    transition_size: int | None = 16,
    dim: int = 4096,
    num_steps: int = 5,
    repetitions: int = 5,
    report: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Run every contender on the problems of training steps.

    Args:
        sizes: nodes of a graph, B.
        regimes: names of instances.REGIMES.
        transition_size: B at which the way from aligned to random is measured; None for nowhere.
        dim: D of the synthetic embeddings.
        num_steps: steps of up to 32 nodes; larger ones have one.
        repetitions: runs of a solver on a step, each with another seed.
        report: called with a word and a count after every row.

    Returns:
        `metadata` and `rows`, ready for JSON.
    """
    torch.manual_seed(0)
    align = MultiGraphAlignment(dim)
    places = [(size, regime) for size in sizes for regime in regimes]
    if transition_size is not None:
        places += [(transition_size, regime) for regime in TRANSITION]
    for contender in _contenders(8):
        _solve(make_problems(align, "random", 8, seed=0), "unary", contender, 0)  # compile
    rows: list[dict[str, Any]] = []
    for size, regime in places:
        steps = range(num_steps if size <= SMALL else 1)
        problems = [make_problems(align, regime, size, seed=step) for step in steps]
        for phase, costs in (("forward", "unary"), ("perturbed", "perturbed")):
            place = {"nodes": size, "regime": regime, "phase": phase}
            rows += [place | row for row in _measure(problems, costs, size, repetitions)]
            if report is not None:
                report("rows", len(rows))
    return {"metadata": _metadata(dim, num_steps, repetitions), "rows": rows}


class _Record:
    """What one contender did in one place."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []
        self.gaps: list[float] = []
        self.certified: list[float] = []


def _contenders(size: int) -> list[tuple[str, str]]:
    missing = {
        name for name, package in THIRD_PARTY.items() if not importlib.util.find_spec(package)
    }
    return [
        contender
        for contender in CONTENDERS
        if size <= LARGEST.get(contender, size) and contender[0] not in missing
    ]


def _measure(
    steps: list[StepProblems], costs: str, size: int, repetitions: int
) -> list[dict[str, Any]]:
    contenders = _contenders(size)
    records = {contender: _Record() for contender in contenders}
    for problems in steps:
        found: dict[tuple[str, str], list[MatchingResult]] = {c: [] for c in contenders}
        for repetition in range(repetitions if size <= 128 else 1):
            for contender in contenders:
                if repetition and contender in SLOW:
                    continue
                begin = time.thread_time()
                result = _solve(problems, costs, contender, seed=repetition)
                records[contender].processor.append(1e3 * (time.thread_time() - begin))
                records[contender].wall.append(result.milliseconds)
                found[contender].append(result)
        everything = [result for results in found.values() for result in results]
        if size <= SMALL:
            everything += [
                _solve(problems, costs, ("anneal", "thorough"), seed=1000 + number)
                for number in range(LONG_SEARCHES)
            ]
        best = np.min([result.objective.numpy() for result in everything], axis=0)
        for contender, results in found.items():
            for result in results:
                gap = (result.objective.numpy() - best) / np.abs(best)
                records[contender].gaps += (100 * gap).tolist()
                records[contender].certified += result.certified.double().tolist()
    return [
        {
            "solver": solver,
            "effort": effort,
            "milliseconds": _quartiles(record.wall),
            "processor_milliseconds": _quartiles(record.processor),
            "gap_percent_mean": statistics.fmean(record.gaps),
            "gap_percent_worst": max(record.gaps),
            "certified_share": statistics.fmean(record.certified),
            "num_solved": len(record.gaps),
        }
        for (solver, effort), record in records.items()
    ]


def _solve(
    problems: StepProblems, costs: str, contender: tuple[str, str], seed: int
) -> MatchingResult:
    solver, effort = contender
    return solve_matching(
        getattr(problems, costs),
        problems.quadratic,
        problems.edges,
        solver,
        seed,
        effort="thorough" if effort == "thorough" else "fast",
    )


def _quartiles(values: list[float]) -> list[float]:
    """25 %, 50 % and 75 %."""
    return [round(float(value), 4) for value in np.quantile(values, [0.25, 0.5, 0.75])]


def _metadata(dim: int, num_steps: int, repetitions: int) -> dict[str, Any]:
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    versions["torch"] = str(torch.__version__)
    if importlib.util.find_spec("pylibmgm") is not None:
        versions["pylibmgm"] = importlib.metadata.version("pylibmgm")
    if HAS_NUMBA:
        import numba

        versions["numba"] = numba.__version__
    return {
        "benchmark": "matching",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "versions": versions,
        "features": dim,
        "steps": num_steps,
        "repetitions": repetitions,
        "problems_per_step": "6 forward and 6 perturbed; milliseconds are for six",
        "perturbation": 80.0,
    }
