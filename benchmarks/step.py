"""One stage-2 step: ours against the original's way of doing the same, in one run.

    PYTHONPATH=src python benchmarks/step.py --out benchmarks/results/step.json
    PYTHONPATH=src python benchmarks/step.py --size 7b --device cuda --dtype bfloat16 --out X

`reference` is written after the original's behaviour: three padded calls of the language model,
logits of every position, means over padding, loops in Python over the edges of the graphs, one
matching problem after another. `ours` is the training code. `language` is ours without alignment.
All take the same records, random weights and seeds; each runs in a process of its own, because
peak memory is that of a process, and the rounds are interleaved. The reference uses our matching
solver: the original's cannot be installed here, and is slower (docs/explanation/matching-solvers).
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from exgra_med.alignment import solve_matching
from exgra_med.alignment.barycenter import barycenter
from exgra_med.alignment.blackbox import hamming
from exgra_med.alignment.cost import matching_costs
from exgra_med.alignment.graph import knn_edges
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import AlignmentSettings, Architecture
from exgra_med.training.batch import Batch, Example, Layout, collate, num_tokens, to_device
from exgra_med.training.objective import Objective, pool_views
from exgra_med.training.parts import choose_parts

WAYS = ("reference", "ours", "language")
BATCH_SIZE = 16
SIZES = {
    "20m": {
        "vision": {"hidden_size": 64, "intermediate_size": 128, "num_heads": 4},
        "language": {"hidden_size": 256, "intermediate_size": 688, "num_layers": 8, "num_heads": 4},
    },
    "7b": {},
}
VOCABULARY = 32000
# Log-normal lengths in tokens (spec of the pre-training data): median and spread of each text.
LENGTHS = {"question": (30, 0.4), "answer": (120, 0.6), "extended": (240, 0.6)}
LONGEST = 1400
SYSTEM_TOKENS = 42


def make_bundle(size: str, dtype: torch.dtype, device: str) -> Bundle:
    """A random model whose embeddings have the rows of LLaMA, whatever the tokenizer knows."""
    architecture = Architecture.model_validate(
        SIZES[size] | {"tokenizer": {"vocabulary_size": 400}}
    )
    bundle = build_model(architecture, ["a b c"] * 4, seed=0)
    bundle.model.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
    bundle.model.to(dtype=dtype, device=device)
    choose_parts(bundle, ["connector", "language"])
    return bundle


def make_examples(bundle: Bundle) -> list[Example]:
    """Records of random ids with a realistic distribution of lengths."""
    random = np.random.default_rng(0)
    size = bundle.model.config.vision_config.image_size

    def ids(kind: str) -> list[int]:
        median, spread = LENGTHS[kind]
        length = int(np.clip(random.lognormal(np.log(median), spread), 4, LONGEST))
        return random.integers(300, VOCABULARY, length).tolist()

    examples = []
    for number in range(BATCH_SIZE):
        head = random.integers(300, VOCABULARY, SYSTEM_TOKENS).tolist() + ids("question")
        head += [bundle.image_token_id] * bundle.num_image_tokens
        answer = ids("answer")
        pixels = torch.from_numpy(random.normal(size=(1, 3, size, size)).astype(np.float32))
        labels = [-100] * len(head) + answer
        examples.append(
            Example(str(number), head + answer, labels, pixels, answer, ids("extended"))
        )
    return examples


def reference_loss(objective: Objective, batch: Batch) -> torch.Tensor:
    """The original's way of one step."""
    model = objective.model
    rows, *texts = batch["calls"]
    features = model.image_features(batch["pixel_values"])
    hidden = objective._decode(rows, features)
    logits = model.get_output_embeddings()(hidden).float()
    language = F.cross_entropy(logits.flatten(0, 1), rows["targets"].flatten(), ignore_index=-100)
    image = features.float().mean(1)
    views = [image, *(objective._decode(each, None).float().mean(1) for each in texts)]
    middle = barycenter(*views)
    total = language.new_zeros(())
    for view in views:
        for first, second in ((view, middle), (middle, view)):
            total = total + reference_direction(objective, first, second) / 6
    return language + total


def reference_direction(
    objective: Objective, first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    """One of the six problems: graphs, costs, matching and its black-box gradient."""
    align = objective.alignment
    edges = knn_edges(first.detach())
    for nodes in (first, second):  # edge attributes that the original computes and never reads
        torch.stack([nodes[int(a)] - nodes[int(b)] for a, b in edges.T])
    one, other = (align.message_passing(nodes, edges) for nodes in (first, second))
    unary, quadratic = matching_costs(one[None], other[None], edges[None])
    found = solve_matching(unary.detach(), quadratic.detach(), edges[None])
    count = len(first)
    slope = (1 - 2 * torch.eye(count, device=first.device)) / (6 * count)
    moved = solve_matching(unary.detach() + 80 * slope, quadratic.detach(), edges[None])

    def one_hot(assignment: torch.Tensor) -> torch.Tensor:
        return F.one_hot(assignment[0].clamp(min=0), count) * (assignment[0] >= 0)[:, None]

    step = (one_hot(moved.assignment) - one_hot(found.assignment)) / 80
    surrogate = (unary[0] * step.to(unary)).sum()
    return hamming(found.assignment).mean().to(unary) + surrogate - surrogate.detach()


def run_way(way: str, size: str, dtype: torch.dtype, device: str, rounds: int) -> dict[str, float]:
    """Times and peak memory of one way, in this process."""
    bundle = make_bundle(size, dtype, device)
    settings = None if way == "language" else AlignmentSettings()
    objective = Objective(bundle.model, settings).to(device)
    objective.train()
    layout = Layout(packed=way != "reference", tokens_per_row=768)
    examples = make_examples(bundle)
    if way == "language":
        examples = [Example(e.id, e.input_ids, e.labels, e.pixels, [], []) for e in examples]
    batch = to_device(collate(examples, bundle.pad_token_id, layout), torch.device(device))
    batch["pixel_values"] = batch["pixel_values"].to(dtype)
    before = peak_megabytes(device)
    seconds, aligned = [], []
    for number in range(rounds + 1):
        objective.zero_grad(set_to_none=True)
        started = time.perf_counter()
        if way == "reference":
            reference_loss(objective, batch).backward()
        else:
            losses = objective(batch, [number])
            loss = losses["language_loss_sum"] / losses["num_supervised"]
            (loss + losses.get("alignment_loss", 0.0)).backward()
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
        "megabytes_before": before,
        "positions": num_tokens(batch),
        "alignment_seconds": statistics.median(aligned[1:]) if aligned else 0.0,
    }


def alignment_seconds(objective: Objective, batch: Batch, seed: int, device: str) -> float:
    """Pooling, graphs, message passing, costs, matching and all of its backward, alone."""
    with torch.no_grad():
        features, states = objective.encode(batch)
    features.requires_grad_(True)
    states = [each.requires_grad_(True) for each in states]
    synchronize(device)
    started = time.perf_counter()
    views = pool_views(batch, features, states)
    objective._align(objective.alignment, views, [seed])["alignment_loss"].backward()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: str) -> None:
    """Wait for the accelerator."""
    if device != "cpu":
        torch.accelerator.synchronize()


def peak_megabytes(device: str) -> float:
    """Peak memory of the process, or of the accelerator."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


def main() -> None:
    """Run every way in processes of its own and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="20m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3, help="steps of a process, after one more")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each way")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    if options.way:
        result = run_way(options.way, options.size, dtype, options.device, options.rounds)
        print(json.dumps(result))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            call = [sys.executable, *sys.argv, "--way", way]
            done = subprocess.run(call, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, found[way][-1], flush=True)
    middle = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for way, runs in found.items()
    }
    ours, reference = middle["ours"], middle["reference"]
    result = {
        "benchmark": "step",
        "size": options.size,
        "device": options.device,
        "dtype": options.dtype,
        "batch_size": BATCH_SIZE,
        "lengths": LENGTHS,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "ways": found,
        "speedup": reference["seconds"] / ours["seconds"],
        "peak_memory_ratio": ours["peak_megabytes"] / reference["peak_megabytes"],
        "alignment_share": ours["alignment_seconds"] / ours["seconds"],
        "overhead_over_language": ours["seconds"] / middle["language"]["seconds"] - 1,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "ways"}, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
