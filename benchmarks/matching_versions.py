"""Two versions of the matching solver on the same problems, in turns, in one run.

    git worktree add ../before COMMIT
    python benchmarks/matching_versions.py --before ../before/src
        (and `--out benchmarks/results/matching_versions.json` to keep the result)

Each version runs in a process of its own, which is handed a problem at a time; the one that goes
first changes with every step. Problems come from seeds that no schedule was tuned on. Times are of
the processor, checks of the input included, for the six forward and the six perturbed problems of a
step. Gaps are to the best of everything that was run on a problem: both versions, `thorough`
searches of both with other seeds, and pylibmgm where it is installed. Values are counted anew by
`matching_objective` from the costs as they were given.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
import torch
from third_party_solvers import installed

from exgra_med.alignment.loss import MultiGraphAlignment
from exgra_med.alignment.matching import solve_matching
from exgra_med.alignment.solvers.protocol import matching_objective
from exgra_med.lab.benchmarks.matching import StepProblems, make_problems, write_result

KINDS = ("random", "aniso", "aligned", "aligned@2.0", "aligned@4.0")
STEPS = {8: 2, 16: 8, 32: 4, 64: 2, 128: 1, 256: 1, 512: 1}
FIRST_SEED = 9000
LONG_SEARCHES = {8: 1, 16: 2, 32: 1}
"""Thorough searches of either version with other seeds; none above."""
PEER_UP_TO = 32
"""pylibmgm takes seconds for a step of larger graphs."""
WORKER = """
import sys, time
from multiprocessing.connection import Client
from exgra_med.alignment.matching import solve_matching
with Client(sys.argv[1], "AF_UNIX") as parent:
    while (job := parent.recv()) is not None:
        unary, quadratic, edges, seed, effort = job
        begin = time.process_time()
        found = solve_matching(unary, quadratic, edges, seed=seed, effort=effort)
        spent = time.process_time() - begin
        parent.send((found.assignment, found.certified, 1e3 * spent))
"""


class Version:
    """A version of the package in a process of its own."""

    def __init__(self, source: Path, socket: str) -> None:
        environment = dict(os.environ, PYTHONPATH=str(source.resolve()))
        environment["NUMBA_CACHE_DIR"] = f"{socket}.cache"
        with Listener(socket, "AF_UNIX") as listener:
            command = [sys.executable, "-c", WORKER, socket]
            self.process = subprocess.Popen(command, env=environment)
            self.pipe: Connection = listener.accept()

    def solve(self, problems: tuple[Any, ...], seed: int, effort: str = "fast") -> tuple[Any, ...]:
        """Assignment, certified, milliseconds."""
        self.pipe.send((*(part.numpy() for part in problems), seed, effort))
        return self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.wait()


def measure(
    versions: dict[str, Version], steps: list[StepProblems], phase: str, size: int
) -> dict[str, Any]:
    """One row: times, gaps and certified shares of both versions, and of pylibmgm."""
    times, gaps = defaultdict[str, list](list), defaultdict[str, list](list)
    certified = defaultdict[str, list](list)
    for number, step in enumerate(steps):
        costs = step.unary if phase == "forward" else step.perturbed
        problems = (costs, step.quadratic, step.edges)
        values = {}

        def value(assignment: Any, problems: tuple[Any, ...] = problems) -> np.ndarray:
            unary, quadratic, edges = problems
            found = torch.as_tensor(assignment)
            return matching_objective(unary, quadratic, edges, found).numpy()

        names = list(versions)[:: 1 if number % 2 else -1]
        for name in names:
            assignment, proven, spent = versions[name].solve(problems, seed=number)
            values[name] = value(assignment)
            times[name].append(spent)
            certified[name] += proven.tolist()
        if size <= PEER_UP_TO:
            for name, solver in installed().items():
                begin = time.process_time()
                values[name] = value(solve_matching(*problems, solver).assignment)
                times[name].append(1e3 * (time.process_time() - begin))
        long = [
            value(version.solve(problems, 1000 + seed, "thorough")[0])
            for version in versions.values()
            for seed in range(LONG_SEARCHES.get(size, 0))
        ]
        best = np.min([*values.values(), *long], axis=0)
        for name, each in values.items():
            gaps[name] += (100 * (each - best) / np.abs(best)).tolist()
    row: dict[str, Any] = {"problems": 6 * len(steps)}
    for name in times:
        row[name] = {
            "milliseconds": [
                round(float(q), 3) for q in np.quantile(times[name], [0.25, 0.5, 0.75])
            ],
            "gap_percent_mean": round(statistics.fmean(gaps[name]), 4),
            "gap_percent_standard_error": round(
                float(np.std(gaps[name]) / np.sqrt(len(gaps[name]))), 4
            ),
            "gap_percent_worst": round(max(gaps[name]), 3),
        }
        if certified[name]:
            row[name]["certified_share"] = round(statistics.fmean(certified[name]), 3)
    ratios = np.array(times["before"]) / np.array(times["after"])
    row["time_before_over_after"] = [
        round(float(q), 3) for q in np.quantile(ratios, [0.25, 0.5, 0.75])
    ]
    return row


def main() -> None:
    """Measure, print a line for each place, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", type=Path, required=True, help="src of the other version")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1] / "src")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--scratch", type=Path, help="folder for sockets and compiled code")
    parser.add_argument("--out", type=Path, help="write the result to this JSON file")
    options = parser.parse_args()
    scratch = options.scratch or Path(tempfile.mkdtemp(prefix="matching-"))
    torch.manual_seed(0)
    align = MultiGraphAlignment(4096)
    versions = {
        name: Version(getattr(options, name), str(scratch / name)) for name in ("before", "after")
    }
    for size in (4, 16, 80):
        warm = make_problems(align, "random", size, seed=0)
        for version in versions.values():
            version.solve((warm.unary, warm.quadratic, warm.edges), 0)
    places = {
        (size, kind): [
            make_problems(align, kind, size, seed=FIRST_SEED + step) for step in range(STEPS[size])
        ]
        for size in options.sizes
        for kind in options.kinds
        if size <= PEER_UP_TO or "@" not in kind
    }
    metadata = {
        "benchmark": "matching_versions",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "first_seed": FIRST_SEED,
        "features": 4096,
        "time": "processor milliseconds of six problems, checks included: quartiles over steps",
        "torch": str(torch.__version__),
        "peers": {name: importlib.metadata.version(name) for name in installed()},
    }
    rows: list[dict[str, Any]] = []
    for (size, kind), steps in places.items():
        for phase in ("forward", "perturbed"):
            row = measure(versions, steps, phase, size)
            rows.append({"nodes": size, "kind": kind, "phase": phase, **row})
            print(json.dumps(rows[-1]), flush=True)
            if options.out is not None:  # After each row: a run that is stopped has what it did.
                write_result({"metadata": metadata, "rows": rows}, options.out)
    for version in versions.values():
        version.close()


if __name__ == "__main__":
    main()
