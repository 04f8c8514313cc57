"""Twelve matching problems of a training step: `python matching.py WAY JOB.json`."""

import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from job import main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def _solve(job: dict[str, Any], solver: Any, name: str, effort: Any = "fast") -> dict[str, Any]:
    from exgra_med.alignment.loss import MultiGraphAlignment
    from exgra_med.alignment.matching import solve_matching
    from exgra_med.lab.benchmarks.matching import make_problems
    from exgra_med.recipe.schema import StageAlignment

    torch.manual_seed(0)  # the same graph layers, so the same problems, in every way
    align = MultiGraphAlignment(512, StageAlignment())
    seconds, values = [], []
    for seed in range(job["warm_up"] + job["problems"]):
        step = make_problems(align, ("random", "aniso")[seed % 2], job["nodes"], 7000 + seed)
        began, found = time.process_time(), []
        for costs in (step.unary, step.perturbed):
            given = (costs, step.quadratic, step.edges, solver, seed)
            found.append(solve_matching(*given, effort=effort))
        seconds.append(round(time.process_time() - began, 6))
        values.append(sum(float(each.objective.sum()) for each in found))
    kept = slice(job["warm_up"], None)
    return {
        "seconds": seconds[kept],
        "values": values[kept],
        "version": f"{name} {version(name)}",
    }


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """The solver that training uses."""
    return _solve(job, "anneal", "exgra-med")


def ours_thorough(job: dict[str, Any]) -> dict[str, Any]:
    """The same with more search, as `effort="thorough"` has it."""
    return _solve(job, "anneal", "exgra-med", "thorough")


def pylibmgm(job: dict[str, Any]) -> dict[str, Any]:
    """Fusion moves with local search (Hutschenreiter et al., ICCV 2021)."""
    from third_party_solvers import solve_by_pylibmgm

    return _solve(job, solve_by_pylibmgm, "pylibmgm")


if __name__ == "__main__":
    main({"ours": ours, "ours-thorough": ours_thorough, "pylibmgm": pylibmgm})
