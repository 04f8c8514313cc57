"""Time and quality of matching solvers, side by side in one run.

For each size, regime and solver: milliseconds for the six problems of a step and for the six
perturbed ones (median and quartiles over steps and repetitions; solvers take turns, so that noise
of the machine meets all alike), and how far the objective lies above the best one known, in
percent. Best known is the best of everything that was run on a problem, long searches included.
Processor time, with the checks of the input, is there for busy machines.
"""

import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exgra_med import files
from exgra_med.alignment.blackbox import hamming_slope
from exgra_med.alignment.loss import MultiGraphAlignment
from exgra_med.alignment.matching import MatchingResult, solve_matching
from exgra_med.alignment.solvers.protocol import Solver
from exgra_med.alignment.solvers.state import HAS_NUMBA
from exgra_med.errors import MatchingError
from exgra_med.terminal import ProgressCallback

# Matching problems as they occur in training, made from synthetic embeddings.
#
# Three regimes, and the way between two of them:
#
# * `random`: three independent Gaussian sets of embeddings;
# * `aniso`: independent, too, but with a large shared mean per set, as pooled features have;
# * `aligned`: one set, twice with Gaussian noise of 0.5;
# * `aligned@2.0`: the same with another amount of noise; with growing noise it becomes `random`.
#
# The graph layers have their initial weights and dropout, as at the start of training.


REGIMES = ("random", "aniso", "aligned")
TRANSITION = ("aligned@1.0", "aligned@2.0", "aligned@4.0", "aligned@8.0")


@dataclass(frozen=True)
class StepProblems:
    """The six problems of one training step, and the same ones perturbed for backward."""

    unary: torch.Tensor
    """[6, n, n] costs."""
    perturbed: torch.Tensor
    """[6, n, n] costs of the perturbed problems."""
    quadratic: torch.Tensor
    """[6, E, E] costs, the same for both."""
    edges: torch.Tensor
    """[6, 2, E]."""


def make_views(regime: str, nodes: int, dim: int, seed: int) -> list[torch.Tensor]:
    """Three [n, D] sets of embeddings.

    Raises:
        MatchingError: no regime has that name.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int = nodes) -> torch.Tensor:
        return torch.randn(rows, dim, generator=generator)

    name, _, amount = regime.partition("@")
    if name == "random":
        return [draw() for _ in range(3)]
    if name == "aniso":
        return [draw(1) + 0.3 * draw() for _ in range(3)]
    if name == "aligned":
        base = draw()
        return [base] + [base + float(amount or 0.5) * draw() for _ in range(2)]
    raise MatchingError(f"No regime is called {regime!r}; there are {', '.join(REGIMES)}.")


def make_problems(align: MultiGraphAlignment, regime: str, nodes: int, seed: int) -> StepProblems:
    """Problems of one step of `align`, in training mode, for n nodes."""
    dim = align.message_passing.get_submodule("conv1").get_parameter("lin_rel.weight").shape[0]
    with torch.no_grad():
        costs = align.train().costs(make_views(regime, nodes, dim, seed), generator=seed)
    unary, quadratic, edges, _ = costs
    slope = hamming_slope(unary.shape[0], nodes, unary.device)
    return StepProblems(unary, unary + align.settings.perturbation * slope, quadratic, edges)


SIZES = (8, 16, 32, 64, 128, 256, 512)
CONTENDERS = (
    ("local-search", "fast"),
    ("anneal", "fast"),
    ("anneal", "thorough"),
    ("exhaustive", "fast"),
)
"""Solver and effort."""
LARGEST = {
    ("exhaustive", "fast"): 8,
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
    others: Mapping[str, Solver] | None = None,
    report: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Run every contender on the problems of training steps.

    Args:
        sizes: nodes of a graph, B.
        transition_size: B at which the way from aligned to random is measured; None for nowhere.
        dim: D of the synthetic embeddings.
        num_steps: steps of up to 32 nodes; larger ones have one.
        repetitions: runs of a solver on a step, each with another seed.
        others: more solvers by name, as `benchmarks/third_party_solvers.py` has them.

    Returns:
        `metadata` and `rows`, ready for JSON.
    """
    torch.manual_seed(0)
    align = MultiGraphAlignment(dim)
    places = [(size, regime) for size in sizes for regime in regimes]
    if transition_size is not None:
        places += [(transition_size, regime) for regime in TRANSITION]
    others = others or {}
    for contender in _contenders(8, others):
        _solve(make_problems(align, "random", 8, seed=0), "unary", contender, 0, others)  # compile
    rows: list[dict[str, Any]] = []
    done = 0
    for size, regime in places:
        steps = range(num_steps if size <= SMALL else 1)
        problems = [make_problems(align, regime, size, seed=step) for step in steps]
        for phase, costs in (("forward", "unary"), ("perturbed", "perturbed")):
            place = {"nodes": size, "regime": regime, "phase": phase}
            rows += [place | row for row in _measure(problems, costs, size, repetitions, others)]
            done += 1
            if report is not None:
                report("measurements", done, 2 * len(places))
    return {"metadata": _metadata(dim, num_steps, repetitions), "rows": rows}


def _contenders(size: int, others: Mapping[str, Solver]) -> list[tuple[str, str]]:
    contenders = [*CONTENDERS, *((name, "fast") for name in others)]
    return [each for each in contenders if size <= LARGEST.get(each, size)]


def _measure(
    steps: list[StepProblems], costs: str, size: int, repetitions: int, others: Mapping[str, Solver]
) -> list[dict[str, Any]]:
    contenders = _contenders(size, others)
    records = defaultdict[tuple[str, str], Any](lambda: defaultdict(list))
    for problems in steps:
        found = defaultdict[tuple[str, str], list[MatchingResult]](list)
        for repetition in range(repetitions if size <= 128 else 1):
            for contender in contenders:
                if repetition and contender in SLOW:
                    continue
                begin = time.thread_time()
                result = _solve(problems, costs, contender, repetition, others)
                records[contender]["processor"].append(1e3 * (time.thread_time() - begin))
                records[contender]["wall"].append(result.milliseconds)
                found[contender].append(result)
        everything = [result for results in found.values() for result in results]
        if size <= SMALL:
            everything += [
                _solve(problems, costs, ("anneal", "thorough"), 1000 + number, others)
                for number in range(LONG_SEARCHES)
            ]
        best = np.min([result.objective.numpy() for result in everything], axis=0)
        for contender, results in found.items():
            for result in results:
                gap = (result.objective.numpy() - best) / np.abs(best)
                records[contender]["gaps"] += (100 * gap).tolist()
                records[contender]["certified"] += result.certified.double().tolist()
    return [
        {
            "solver": solver,
            "effort": effort,
            "milliseconds": _quartiles(record["wall"]),
            "processor_milliseconds": _quartiles(record["processor"]),
            "gap_percent_mean": statistics.fmean(record["gaps"]),
            "gap_percent_worst": max(record["gaps"]),
            "certified_share": statistics.fmean(record["certified"]),
            "num_solved": len(record["gaps"]),
        }
        for (solver, effort), record in records.items()
    ]


def _solve(
    problems: StepProblems,
    costs: str,
    contender: tuple[str, str],
    seed: int,
    others: Mapping[str, Solver],
) -> MatchingResult:
    solver, effort = contender
    return solve_matching(
        getattr(problems, costs),
        problems.quadratic,
        problems.edges,
        others.get(solver, solver),
        seed,
        effort="thorough" if effort == "thorough" else "fast",
    )


def _quartiles(values: list[float]) -> list[float]:
    """25 %, 50 % and 75 %."""
    return [round(float(value), 4) for value in np.quantile(values, [0.25, 0.5, 0.75])]


def _metadata(dim: int, num_steps: int, repetitions: int) -> dict[str, Any]:
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    versions["torch"] = str(torch.__version__)
    for name in ("pylibmgm", "numba") if HAS_NUMBA else ("pylibmgm",):
        if importlib.util.find_spec(name) is not None:
            versions[name] = importlib.metadata.version(name)
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


SETTINGS = {
    ("local-search", "fast"): "local-search",
    ("anneal", "fast"): "anneal, fast (default)",
    ("anneal", "thorough"): "anneal, thorough",
    ("exhaustive", "fast"): "exhaustive",
    ("lpmp", "fast"): "LPMP",
    ("pylibmgm", "fast"): "pylibmgm",
}


def write_result(result: dict[str, Any], path: Path) -> None:
    """Write a benchmark's JSON as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(result, indent=1) + "\n")


def markdown_tables(result: dict[str, Any]) -> str:
    """Milliseconds of a whole step, gaps of both phases, and the transition, as Markdown."""
    found: dict[tuple[int, str, tuple[str, str]], dict[str, dict]] = defaultdict(dict)
    for row in result["rows"]:
        setting = row["solver"], row["effort"]
        found[row["nodes"], row["regime"], setting][row["phase"]] = row
    sizes = sorted({size for size, _, _ in found})
    settings = [each for each in SETTINGS if any(each == setting for _, _, setting in found)]

    def table(title: str, regimes: Iterable[str], cell: Callable[[dict[str, dict]], str]) -> str:
        lines = [
            "| B | regime | " + " | ".join(SETTINGS[setting] for setting in settings) + " |",
            "| ---: | --- |" + " ---: |" * len(settings),
        ]
        for size, regime in itertools.product(sizes, regimes):
            rows = [found.get((size, regime, setting)) for setting in settings]
            if any(rows):
                cells = " | ".join(cell(phases) if phases else "-" for phases in rows)
                lines.append(f"| {size} | {regime} | {cells} |")
        return "\n".join([f"{title}:\n", *lines])

    def milliseconds(phases: dict[str, dict]) -> str:
        return f"{sum(row['processor_milliseconds'][1] for row in phases.values()):.3g}"

    def gap(phases: dict[str, dict], phase: str = "forward") -> str:
        return f"{phases[phase]['gap_percent_mean']:.2f}"

    def transition(phases: dict[str, dict]) -> str:
        share = phases["forward"]["certified_share"]
        return f"{milliseconds(phases)} / {gap(phases)} / {share:.2f}"

    title = "Milliseconds of processor time for the 12 problems of a step (median)"
    tables = [table(title, REGIMES, milliseconds)]
    for phase in ("forward", "perturbed"):
        title = f"\n{phase.capitalize()} problems, mean gap to the best known objective, %"
        tables.append(table(title, REGIMES, partial(gap, phase=phase)))
    if any(regime == TRANSITION[0] for _, regime, _ in found):
        title = "\nFrom aligned to random, step milliseconds / forward gap % / certified share"
        tables.append(table(title, TRANSITION, transition))
    return "\n".join(tables)
