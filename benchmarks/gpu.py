"""What one GPU reaches: all parts in at most ten minutes, one JSON; `make bench-gpu`.

    PYTHONPATH=src python benchmarks/gpu.py --out benchmarks/results/gpu.json
    PYTHONPATH=src python benchmarks/gpu.py --miniature --out RESULT.json

Nothing is downloaded: weights are random, of the right shapes, and made on the device. Each part
runs in a process of its own and has a budget of seconds; the JSON is written after each, so that a
stop loses only the part in progress, and what failed says why. `--miniature` is the same on a CPU
with tiny shapes: it shows that every part works, and its figures mean nothing.

A step is forward, backward and AdamW. `mfu_of_peak` is what a step needs (no padding, nothing
computed twice) over the time it takes, as a share of the peak that the card's maker states;
`mfu_of_matmul` as a share of what the products of the same layer reach here, measured first.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from generation import measure

from exgra_med.alignment import MultiGraphAlignment, solve_matching
from exgra_med.lab.benchmarks.matching import make_problems, make_views, write_result
from exgra_med.lab.benchmarks.step import (
    SHAPES,
    Settings,
    device_name,
    make_bundle,
    make_examples,
    peak_megabytes,
    run_way,
    synchronize,
)
from exgra_med.model.batch import Layout, to_device
from exgra_med.model.build import build_model
from exgra_med.recipe.run_folder import git_commit
from exgra_med.recipe.schema import Architecture, StageAlignment
from exgra_med.training.distributed import autocast, shard
from exgra_med.training.estimate import peak_of
from exgra_med.training.objective import Objective

WAYS = {"plain": "language", "aligned": "ours"}
"""Name of a part -> way of `exgra_med.lab.benchmarks.step`."""
TEXTS = [f"Is there a lesion of {i} mm in lobe {i % 7}?" for i in range(300)]


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: str
    dtype: str
    shapes: dict[str, str]
    """Name of a part -> shape of `exgra_med.lab.benchmarks.step`."""
    records: int
    rounds: int
    tokens: int
    """Rows of the measured products: about the tokens of a step."""
    questions: int
    new_tokens: int
    nodes: tuple[int, ...]


LARGE = {"7b": "llama-7b", "160m": "160m"}
FULL = Scale("cuda", "bfloat16", LARGE, 16, 5, 16384, 64, 32, (16, 32, 64))
MINIATURE = Scale("cpu", "float32", dict.fromkeys(LARGE, "tiny"), 3, 2, 64, 4, 4, (8, 16))


def products(scale: Scale) -> dict[str, Any]:
    """Operations per second of the matrix products of one layer, for each shape."""
    found = {}
    for name, shape in scale.shapes.items():
        sizes = Architecture.model_validate(SHAPES[shape]).language
        wide, inner = sizes.hidden_size, sizes.intermediate_size
        pairs = [(wide, wide)] * 4 + [(wide, inner)] * 2 + [(inner, wide)]
        dtype = getattr(torch, scale.dtype)
        seconds = 0.0
        for before, after in pairs:
            rows = torch.randn(scale.tokens, before, device=scale.device, dtype=dtype)
            weight = torch.randn(before, after, device=scale.device, dtype=dtype)
            seconds += fastest(scale, lambda rows=rows, weight=weight: rows @ weight)
        operations = sum(2 * scale.tokens * before * after for before, after in pairs)
        found[name] = {"operations_per_second": operations / seconds}
    return found


def fastest(scale: Scale, work: Callable[[], object], repeats: int = 20) -> float:
    """Median seconds of a call, after three to warm up."""
    times = []
    for _ in range(repeats + 3):
        synchronize(scale.device)
        started = time.perf_counter()
        work()
        synchronize(scale.device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[3:])


def step(scale: Scale, size: str, way: str) -> dict[str, Any]:
    """One training step of a shape, plain or aligned."""
    settings = Settings(
        scale.shapes[size], scale.device, scale.dtype, scale.records, scale.rounds, optimizer=True
    )
    run = run_way(WAYS[way], settings)
    return run | {
        "samples_per_second": scale.records / run["seconds"],
        "tokens_per_second": run["positions"] / run["seconds"],
        "operations_per_second": run["operations"] / run["seconds"],
    }


def evaluation(scale: Scale, size: str) -> dict[str, Any]:
    """Answers in a batch, one by one, and as the original asks; how many are equal.

    The small shape in float32, where a batch has to give the very tokens; the large one in the type
    of the step, where a near tie may fall the other way.
    """
    values = SHAPES[scale.shapes[size]] | {"tokenizer": {"vocabulary_size": 400}}
    with torch.device(scale.device):
        bundle = build_model(Architecture.model_validate(values), TEXTS, seed=0)
    dtype = scale.dtype if size == "7b" else "float32"
    bundle.model.to(getattr(torch, dtype))
    found = measure(bundle, scale.questions, scale.new_tokens, rounds=2)
    rates = found["tokens_per_second"]
    return found | {
        "dtype": dtype,
        "batch_over_single": rates["batch"]["median"] / rates["single"]["median"],
        "batch_over_original": rates["batch"]["median"] / rates["original"]["median"],
        "peak_megabytes": peak_megabytes(scale.device),
    }


def matching(scale: Scale) -> dict[str, Any]:
    """The twelve matchings of a step with costs on the device against costs on the CPU, and the
    whole alignment, forward and backward."""
    width = 4096 if scale.device != "cpu" else 64
    on_cpu, on_device = MultiGraphAlignment(width), MultiGraphAlignment(width).to(scale.device)
    on_device.load_state_dict(on_cpu.state_dict())
    found = {}
    for nodes in scale.nodes:
        problems = make_problems(on_cpu, "random", nodes, seed=0)
        places = {"cpu": "cpu", "device": scale.device}
        given = {
            place: [
                (costs.to(device), problems.quadratic.to(device), problems.edges.to(device))
                for costs in (problems.unary, problems.perturbed)
            ]
            for place, device in places.items()
        }
        answers, seconds = {}, {}
        for place, both in given.items():
            answers[place] = [solve_matching(*each).assignment.cpu() for each in both]
            solve = lambda both=both: [solve_matching(*each) for each in both]  # noqa: E731
            seconds[f"matching_{place}"] = fastest(scale, solve, repeats=7)
        for place, module in (("cpu", on_cpu), ("device", on_device)):
            views = [each.to(places[place]) for each in make_views("random", nodes, width, 0)]

            def learn(module: Any = module, views: Any = views) -> None:
                module.train()(*views, generator=0).loss.backward()

            seconds[f"alignment_{place}"] = fastest(scale, learn, repeats=7)
        equal = all(map(torch.equal, answers["cpu"], answers["device"]))
        milliseconds = {name: 1e3 * value for name, value in seconds.items()}
        found[str(nodes)] = {"milliseconds": milliseconds, "equal_assignments": equal}
    return found


def sharding(scale: Scale) -> dict[str, Any]:
    """FSDP2 on one card beside no sharding: equal losses in float32, and what it costs."""
    if scale.device != "cpu":
        torch.cuda.set_device(0)
    with tempfile.TemporaryDirectory() as folder:
        backend = "gloo" if scale.device == "cpu" else "nccl"
        meeting = f"file://{folder}/meeting"
        dist.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
        found: dict[str, Any] = {}
        for precision in ("float32", "bfloat16"):
            whole, cut = (sharded_steps(scale, precision, cut) for cut in (False, True))
            pairs = zip(whole["losses"], cut["losses"], strict=True)
            difference = max(abs(a - b) / abs(a) for a, b in pairs)
            found[precision] = {
                "whole": whole,
                "sharded": cut,
                "largest_relative_difference_of_a_loss": difference,
                "seconds_sharded_over_whole": cut["seconds"] / whole["seconds"],
            }
        dist.destroy_process_group()
    return found


def sharded_steps(scale: Scale, precision: str, cut: bool) -> dict[str, Any]:
    """Losses, seconds and peak memory of a few steps on float32 weights under autocast."""
    settings = Settings(scale.shapes["160m"], scale.device, "float32", scale.records)
    device = torch.device(scale.device)
    torch.manual_seed(0)
    bundle = make_bundle(settings)
    objective = Objective(bundle, StageAlignment()).to(device).train()
    batch = make_batch(settings, bundle)
    if cut:
        shard(objective, device, precision, [])
    weights = [each for each in objective.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    if scale.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    losses, seconds = [], []
    for number in range(scale.rounds + 1):
        started = time.perf_counter()
        with autocast(device, precision) if precision == "bfloat16" else nullcontext():
            parts = objective(batch, [number])
        loss = parts["language_loss_sum"] / parts["num_supervised"] + parts["alignment_loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize(scale.device)
        seconds.append(time.perf_counter() - started)
        losses.append(float(loss))
    return {
        "losses": losses,
        "seconds": statistics.median(seconds[1:]),
        "peak_megabytes": peak_megabytes(scale.device),
    }


def make_batch(settings: Settings, bundle: Any) -> Any:
    """The records of a step, on the device."""
    examples = make_examples(bundle, settings.batch_size)
    batch = bundle.collate(examples, Layout(packed=True, tokens_per_row=768))
    return to_device(batch, torch.device(settings.device))


PARTS: dict[str, tuple[int, Callable[[Scale], dict[str, Any]]]] = {
    "matmul": (40, products),
    "step-7b-plain": (75, lambda scale: step(scale, "7b", "plain")),
    "step-7b-aligned": (90, lambda scale: step(scale, "7b", "aligned")),
    "step-160m-plain": (45, lambda scale: step(scale, "160m", "plain")),
    "step-160m-aligned": (50, lambda scale: step(scale, "160m", "aligned")),
    "matching": (60, matching),
    "evaluation-160m": (70, lambda scale: evaluation(scale, "160m")),
    "sharding": (60, sharding),
    "evaluation-7b": (90, lambda scale: evaluation(scale, "7b")),
}
"""Seconds and function of each part, the most wanted first."""


def run_part(name: str, miniature: bool, seconds: float) -> dict[str, Any]:
    """A part in a process of its own: its result, or why there is none; and the seconds it took."""
    call = [sys.executable, __file__, "--part", name, *["--miniature"] * miniature]
    started = time.monotonic()
    process = subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, complaint = process.communicate(timeout=seconds)
        if process.returncode == 0:
            found = json.loads(output.splitlines()[-1])
        else:
            found = {"failed": (complaint.strip().splitlines() or ["killed"])[-1]}
    except subprocess.TimeoutExpired:
        found = {"failed": f"not done within {seconds:.0f} seconds"}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return found | {"seconds_in_all": round(time.monotonic() - started, 1)}


def shares(parts: dict[str, Any], peak: float | None) -> dict[str, Any]:
    """What the parts say together: utilisation, and alignment over plain training."""
    found: dict[str, Any] = {}
    for size in LARGE:
        products_per_second = parts.get("matmul", {}).get(size, {}).get("operations_per_second")
        steps = {way: parts.get(f"step-{size}-{way}", {}) for way in WAYS}
        for way, each in steps.items():
            reached = each.get("operations_per_second")
            if reached is None:
                continue
            found[f"{size}-{way}"] = {
                "mfu_of_peak": None if peak is None else reached / peak,
                "mfu_of_matmul": products_per_second and reached / products_per_second,
            }
        if all("samples_per_second" in each for each in steps.values()):
            plain, aligned = (steps[way]["samples_per_second"] for way in ("plain", "aligned"))
            found[f"{size}-aligned"]["overhead_over_plain"] = plain / aligned - 1
    return found


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the JSON; what it holds already is replaced")
    parser.add_argument("--minutes", type=float, default=9.7, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts alone")
    parser.add_argument("--miniature", action="store_true", help="on a CPU, with tiny shapes")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    scale = MINIATURE if asked.miniature else FULL
    if scale.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --miniature runs the same on a CPU")
    if asked.part:
        print(json.dumps(PARTS[asked.part][1](scale)))
        return
    if asked.out is None:
        parser.error("say with --out where the JSON goes")
    deadline = time.monotonic() + 60 * asked.minutes
    name = device_name(scale.device)
    peak = peak_of(name) if scale.dtype == "bfloat16" else None
    parts: dict[str, Any] = {}
    for part in asked.only or PARTS:
        # A CPU is slower, and others may use it.
        budget = PARTS[part][0] * (5 if asked.miniature else 1)
        left = min(budget, deadline - time.monotonic())
        if left <= 0:
            parts[part] = {"failed": "no time was left"}
        else:
            parts[part] = run_part(part, asked.miniature, left)
        print(part, json.dumps(parts[part]), flush=True)
        result = {
            "metadata": {
                "benchmark": "gpu",
                "miniature": asked.miniature,
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "commit": git_commit(),
                "device": name,
                "peak_operations_per_second": peak,
                "dtype": scale.dtype,
                "shapes": scale.shapes,
                "records_a_step": scale.records,
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "shares": shares(parts, peak),
            "parts": parts,
        }
        write_result(result, asked.out)
    if any("failed" in each for each in parts.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
