"""`exgra-med bench step`: one stage-2 step, ours against the original's way of doing the same.

`reference` is `benchmark_reference`, `ours` the training code, `language` ours without alignment.
All take the same records, random weights and seeds; each runs in a process of its own, because peak
memory is that of a process, and the rounds are interleaved. Forward and backward are timed; the
optimizer only where it is asked for. In a process of its own:

    python -m exgra_med.lab.benchmarks.step '{"way": "ours", "shape": "small", ...}'
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from exgra_med.alignment import solve_matching
from exgra_med.alignment.blackbox import hamming, hamming_slope
from exgra_med.alignment.cost import matching_costs
from exgra_med.alignment.graph import knn_edges
from exgra_med.alignment.loss import barycenter
from exgra_med.alignment.solvers.protocol import assignment_matrix
from exgra_med.errors import RecipeError, TrainingError
from exgra_med.model.batch import (
    IGNORED,
    Batch,
    Layout,
    TrainingExample,
    num_supervised,
    num_tokens,
    to_device,
)
from exgra_med.model.build import build_model
from exgra_med.model.native import NativeBundle, NativeConversation
from exgra_med.recipe.schema import Architecture, StageAlignment, StageSettings
from exgra_med.terminal import ProgressCallback
from exgra_med.training.estimate import peak_of, step_operations
from exgra_med.training.memory import shape_of
from exgra_med.training.objective import Objective, pool_views
from exgra_med.training.trainable import recompute_activations, set_trainable

# One stage-2 step the original's way, written after its behaviour, to measure ours against.
#
# Three padded calls of the language model, logits of every position, means over padding, loops in
# Python over the edges of the graphs, one matching problem after another. It uses our matching
# solver: the original's cannot be installed here, and is slower.


PERTURBATION = 80


def reference_loss(objective: Objective, batch: Batch) -> Tensor:
    """The original's way of one step, on a batch of three padded calls."""
    model = objective.model
    features, (hidden, *texts) = objective.bundle.encode(batch)
    assert features is not None, "every record of the benchmark has an image"
    logits = model.get_output_embeddings()(hidden).float()
    targets = batch["calls"][0]["targets"]
    language = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    views = [features, *(each.float().mean(1) for each in texts)]
    middle = barycenter(*views)
    total = language.new_zeros(())
    for view in views:
        for first, second in ((view, middle), (middle, view)):
            total = total + reference_direction(objective, first, second) / 6
    return language + total


def reference_direction(objective: Objective, first: Tensor, second: Tensor) -> Tensor:
    """One of the six problems: graphs, costs, matching and its black-box gradient."""
    align = objective.alignment
    assert align is not None, "the reference aligns"
    edges = knn_edges(first.detach())
    for nodes in (first, second):  # edge attributes that the original computes and never reads
        torch.stack([nodes[int(a)] - nodes[int(b)] for a, b in edges.T])
    one, other = (align.message_passing(nodes, edges) for nodes in (first, second))
    unary, quadratic = matching_costs(one[None], other[None], edges[None])
    found = solve_matching(unary.detach(), quadratic.detach(), edges[None])
    slope = hamming_slope(6, len(first), first.device)
    moved = solve_matching(unary.detach() + PERTURBATION * slope, quadratic.detach(), edges[None])
    after, before = (assignment_matrix(each.assignment)[0] for each in (moved, found))
    surrogate = (unary[0] * ((after - before) / PERTURBATION).to(unary)).sum()
    return hamming(found.assignment).mean().to(unary) + surrogate - surrogate.detach()


WAYS = ("reference", "ours", "language")
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vision": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "image_size": 56,
        },
        "language": {"hidden_size": 32, "intermediate_size": 64, "num_layers": 1, "num_heads": 2},
    },
    "small": {
        "vision": {"hidden_size": 64, "intermediate_size": 128, "num_heads": 4},
        "language": {"hidden_size": 256, "intermediate_size": 688, "num_layers": 8, "num_heads": 4},
    },
    # Widths and layers of the model `small`: DINOv2-small and SmolLM2-135M.
    "160m": {
        "vision": {"hidden_size": 384, "intermediate_size": 1536, "num_layers": 12, "num_heads": 6},
        "language": {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_layers": 30,
            "num_heads": 9,
        },
    },
    "llama-7b": {},
}
VOCABULARY = 32000
LENGTHS = {"question": (30, 0.4), "answer": (120, 0.6), "extended": (240, 0.6)}
"""Assumed log-normal lengths in tokens: median and spread of each text."""
LONGEST = 1400
SYSTEM_TOKENS = 42
FIRST_ID = 500
"""Beyond the ids of the tokenizer, whose image tokens may not come by chance."""
TOKENS_PER_ROW = 768


@dataclass(frozen=True)
class Settings:
    """What is measured, and where."""

    shape: str = "small"
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 16
    rounds: int = 3
    """Steps of a process, after one more to warm up."""
    repeats: int = 3
    """Processes of each way."""
    optimizer: bool = False
    """Whether a step ends with AdamW, whose moments have the type of the weights."""

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            RecipeError: an unknown shape or type, or a device that is not there.
        """
        if self.shape not in SHAPES:
            raise RecipeError(
                f"There is no shape {self.shape!r} to measure.", f"Known: {', '.join(SHAPES)}."
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise RecipeError(f"{self.dtype!r} is neither float32 nor bfloat16.")
        if self.device != "cpu" and not torch.accelerator.is_available():
            raise RecipeError(f"There is no device {self.device!r} here.", "Use --device cpu.")


def benchmark_step(settings: Settings, report: ProgressCallback | None = None) -> dict[str, Any]:
    """Measure every way in processes of their own; `report` is told after each.

    Returns:
        `metadata`, `ways` (every process), `speedup`, `peak_memory_ratio`, `alignment_share`,
        `overhead_over_language` and `model_flops_utilisation` (null where the peak is unknown).

    Raises:
        RecipeError: the settings cannot be measured here.
        TrainingError: a process failed, as where memory is too small.
    """
    settings.check()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(settings.repeats * len(WAYS)):
        way = WAYS[number % len(WAYS)]
        found[way].append(_in_own_process(way, settings))
        if report is not None:
            report("processes", number + 1, settings.repeats * len(WAYS))
    return summary(settings, found)


def summary(settings: Settings, found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Ratios of the medians over the processes of each way."""
    middle = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for way, runs in found.items()
    }
    ours, reference, language = (middle[way] for way in ("ours", "reference", "language"))
    peak = peak_of(device_name(settings.device)) if settings.dtype == "bfloat16" else None
    reached = ours["operations"] / ours["seconds"]
    return {
        "metadata": _metadata(settings),
        "ways": found,
        "speedup": reference["seconds"] / ours["seconds"],
        "peak_memory_ratio": ours["peak_megabytes"] / reference["peak_megabytes"],
        "alignment_share": ours["alignment_seconds"] / ours["seconds"],
        "overhead_over_language": ours["seconds"] / language["seconds"] - 1,
        "model_flops_per_second": reached,
        "model_flops_utilisation": None if peak is None else reached / peak,
    }


def markdown_table(result: dict[str, Any]) -> str:
    """The ratios for people."""
    share = result["model_flops_utilisation"]
    meta = result["metadata"]
    rows = [
        ("time, original's way over ours", f"{result['speedup']:.2f}"),
        ("peak memory, ours over the original's way", f"{result['peak_memory_ratio']:.2f}"),
        ("alignment alone, share of our step", f"{result['alignment_share']:.1%}"),
        ("our step over plain language modelling", f"{result['overhead_over_language']:+.0%}"),
        ("model FLOPs utilisation", "peak not known" if share is None else f"{share:.1%}"),
    ]
    head = f"{meta['shape']}, {meta['batch_size']} records, {meta['dtype']}, {meta['machine']}"
    return "\n".join([f"| {head} | |", "| --- | --: |", *(f"| {a} | {b} |" for a, b in rows)])


def run_way(way: str, settings: Settings) -> dict[str, float]:
    """Times and peak memory of one way, in this process."""
    dtype, device = getattr(torch, settings.dtype), settings.device
    bundle = make_bundle(settings)
    objective = Objective(bundle, None if way == "language" else StageAlignment())
    objective.to(device).train()
    examples = make_examples(bundle, settings.batch_size)
    if way == "language":
        examples = [replace(each, answer_ids=[], extended_ids=[]) for each in examples]
    layout = Layout(packed=way != "reference", tokens_per_row=TOKENS_PER_ROW)
    batch = to_device(bundle.collate(examples, layout), torch.device(device))
    batch["pixel_values"] = batch["pixel_values"].to(dtype)
    learnt = [each for each in objective.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-5, fused=True) if settings.optimizer else None
    seconds, aligned = [], []
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()  # of making the model
    for number in range(settings.rounds + 1):
        objective.zero_grad(set_to_none=True)
        started = time.perf_counter()
        if way == "reference":
            reference_loss(objective, batch).backward()
        else:
            losses = objective(batch, [number])
            loss = losses["language_loss_sum"] / losses["num_supervised"]
            (loss + losses.get("alignment_loss", 0.0)).backward()
        if optimizer is not None:
            optimizer.step()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
        if way == "ours":
            aligned.append(alignment_seconds(objective, batch, number, device))
    kept = sorted(seconds[1:])
    return {
        "seconds": statistics.median(kept),
        "fastest": kept[0],
        "slowest": kept[-1],
        "peak_megabytes": peak_megabytes(device),
        "positions": num_tokens(batch),
        "operations": _operations(bundle, examples, batch),
        "alignment_seconds": statistics.median(aligned[1:]) if aligned else 0.0,
    }


def alignment_seconds(objective: Objective, batch: Batch, seed: int, device: str) -> float:
    """Pooling, graphs, message passing, costs, matching and all of its backward, alone."""
    with torch.no_grad():
        features, states = objective.bundle.encode(batch)
    assert features is not None and objective.alignment is not None
    features.requires_grad_(True)
    states = [each.requires_grad_(True) for each in states]
    synchronize(device)
    started = time.perf_counter()
    views = pool_views(batch, features, states)
    objective._align(objective.alignment, views, [seed])["alignment_loss"].backward()
    synchronize(device)
    return time.perf_counter() - started


def make_bundle(settings: Settings) -> NativeBundle:
    """A random model whose embeddings have the rows of LLaMA, whatever the tokenizer knows."""
    values = SHAPES[settings.shape] | {"tokenizer": {"vocabulary_size": 400}}
    # Made where it stays: random numbers for 7 billion weights take minutes on a CPU.
    with torch.device(settings.device):
        bundle = build_model(Architecture.model_validate(values), ["a b c"] * 4, seed=0)
        bundle.model.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
    model: Any = bundle.model
    model.to(dtype=getattr(torch, settings.dtype), device=settings.device)
    set_trainable(bundle, ["connector", "language"])
    if settings.shape == "llama-7b":
        recompute_activations(bundle)
    return bundle


def make_examples(bundle: NativeBundle, count: int) -> list[TrainingExample]:
    """Records of random ids with an assumed distribution of lengths."""
    random = np.random.default_rng(0)
    size = bundle.model.config.vision_config.image_size

    def ids(kind: str) -> list[int]:
        median, spread = LENGTHS[kind]
        length = int(np.clip(random.lognormal(np.log(median), spread), 4, LONGEST))
        return random.integers(FIRST_ID, VOCABULARY, length).tolist()

    examples = []
    for number in range(count):
        head = random.integers(FIRST_ID, VOCABULARY, SYSTEM_TOKENS).tolist() + ids("question")
        head += [bundle.image_token_id] * bundle.num_image_tokens
        answer = ids("answer")
        pixels = torch.from_numpy(random.normal(size=(1, 3, size, size)).astype(np.float32))
        labels = [-100] * len(head) + answer
        examples.append(
            TrainingExample(
                str(number),
                [NativeConversation(head + answer, labels, pixels)],
                True,
                answer,
                ids("extended"),
            )
        )
    return examples


def _operations(bundle: NativeBundle, examples: list[TrainingExample], batch: Batch) -> float:
    """What a step needs: no padding, nothing twice (see `training.estimate`)."""
    stage = StageSettings(
        trainable=["connector", "language"], learning_rate=1.0, tokens_per_row=TOKENS_PER_ROW
    )
    tokens = sum(
        len(e.conversations[0].input_ids) + len(e.answer_ids) + len(e.extended_ids)
        for e in examples
    )
    model = bundle.model
    images, shape = len(batch["pixel_values"]), shape_of(model.config)
    return step_operations(model, shape, stage, tokens, num_supervised(batch), images)


def _in_own_process(way: str, settings: Settings) -> dict[str, float]:
    request = json.dumps({"way": way, **asdict(settings)})
    call = [sys.executable, "-m", "exgra_med.lab.benchmarks.step", request]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        raise TrainingError(f"The way {way!r} could not be measured: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _metadata(settings: Settings) -> dict[str, Any]:
    return {
        "benchmark": "step",
        **asdict(settings),
        "lengths": LENGTHS,
        "tokens_per_row": TOKENS_PER_ROW,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "machine": device_name(settings.device),
    }


def device_name(device: str) -> str:
    """What a result calls the device."""
    if device == "cpu":
        return f"{platform.machine()}, {os.cpu_count()} cores"
    return torch.cuda.get_device_name(device)


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device != "cpu":
        torch.accelerator.synchronize()


def peak_megabytes(device: str) -> float:
    """Peak memory of the process, or of the accelerator."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    print(json.dumps(run_way(values.pop("way"), Settings(**values))))
