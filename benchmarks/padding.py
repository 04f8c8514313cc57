"""How much of a step is padding, by layout and order of the records. Counts, no times.

    PYTHONPATH=src python benchmarks/padding.py --out benchmarks/results/padding.json

Lengths are log-normal with the medians of benchmarks/step.py. A position is padding where it
belongs to no sequence.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from exgra_med.model.batch import Layout, TokenSequence, pack
from exgra_med.training.order import plan_epoch

MEDIANS = {"question": (30, 0.4), "answer": (120, 0.6), "extended": (240, 0.6)}
LONGEST, VISUAL, SYSTEM = 1400, 256, 42
NUM_RECORDS, BATCH_SIZE, NUM_PARTS = 6400, 16, 4


def draw() -> list[list[int]]:
    """Tokens of conversation, answer and extended answer of every record."""
    random = np.random.default_rng(0)
    texts = {
        name: np.clip(random.lognormal(np.log(middle), spread, NUM_RECORDS), 4, LONGEST).astype(int)
        for name, (middle, spread) in MEDIANS.items()
    }
    conversation = SYSTEM + VISUAL + texts["question"] + texts["answer"]
    return np.stack([conversation, texts["answer"], texts["extended"]], 1).tolist()


def positions(part: list[list[int]], layout: Layout) -> int:
    """Positions that the language model computes for one forward pass."""
    if not layout.packed:
        return sum(len(part) * max(column) for column in zip(*part, strict=True))
    pieces = [TokenSequence([0] * length) for record in part for length in record]
    return pack(pieces, layout.tokens_per_row, 0)[0]["input_ids"].numel()


def main() -> None:
    """Print and write the share of padding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    records = draw()
    totals = [sum(record) for record in records]
    shares = {}
    layouts = {
        "three padded calls": Layout(packed=False),
        "packed rows of 2048": Layout(tokens_per_row=2048),
        "packed rows of 1024": Layout(tokens_per_row=1024),
    }
    for name, layout in layouts.items():
        for order, lengths in (("as they come", None), ("grouped by length", totals)):
            plan = plan_epoch(NUM_RECORDS, BATCH_SIZE, NUM_PARTS, 0, 0, None, lengths)
            computed = sum(
                positions([records[n] for n in part], layout) for step in plan for part in step
            )
            shares[f"{name}, {order}"] = 1 - sum(totals) / computed
    for name, share in shares.items():
        print(f"{name:<40} {share:.1%}")
    if options.out:
        settings = {"records": NUM_RECORDS, "batch_size": BATCH_SIZE, "medians": MEDIANS}
        result = {"benchmark": "padding", **settings, "padding_share": shares}
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
