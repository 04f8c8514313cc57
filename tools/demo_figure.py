"""Draw the README's figure from the log of the demo.

python tools/demo_figure.py runs/demo docs/figures/demo.svg
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

from exgra_med.training.log import read_log

matplotlib.use("svg")
import matplotlib.pyplot as plt

TRAINING, HELD_OUT = "#0f766e", "#c2410c"
WINDOW = 9


def draw(run: Path, out: Path) -> None:
    """Two panels: matching accuracy and alignment loss over the steps of stage 2."""
    events = [event for event in read_log(run / "log.jsonl") if event["stage"] == "aligned"]
    training = [event for event in events if event["kind"] == "train"]
    held_out = [event for event in events if event["kind"] == "held_out"]
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "demo", "font.family": "sans-serif"})
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
    for axis, key, title in [
        (axes[0], "matching_accuracy", "Share of nodes matched to their own partner"),
        (axes[1], "alignment_loss", "Alignment loss (Hamming distance)"),
    ]:
        steps = [event["step"] for event in training]
        values = np.array([event[key] for event in training])
        axis.plot(steps, values, color=TRAINING, alpha=0.2, linewidth=0.8)
        smooth = np.convolve(values, np.ones(WINDOW) / WINDOW, "valid")
        middle = steps[WINDOW // 2 : len(steps) - WINDOW // 2]
        axis.plot(middle, smooth, color=TRAINING, label="training batches, with noise")
        axis.plot(
            [event["step"] for event in held_out],
            [event[key] for event in held_out],
            color=HELD_OUT,
            marker="o",
            markersize=3,
            label="held-out images",
        )
        axis.set(title=title, xlabel="optimizer step of stage 2", ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].axhline(held_out[0]["chance"], color="grey", linestyle=":", label="chance")
    axes[0].set_ylim(0, 1)
    axes[0].legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
