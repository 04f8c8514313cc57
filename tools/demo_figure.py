"""Draw the README's figure from the log of the demo.

python tools/demo_figure.py runs/demo docs/figures/demo.svg
"""

import sys
from pathlib import Path

import matplotlib

from exgra_med.training.log import read_log

matplotlib.use("svg")
import matplotlib.pyplot as plt

OWN, UNRELATED = "#0f766e", "#c2410c"


def draw(run: Path, out: Path) -> None:
    """Two panels over the steps of stage 2: what finds its partner by the bare embeddings, and what
    does through graph layers and barycenter; each beside what views of different records reach."""
    events = [event for event in read_log(run / "log.jsonl") if event["stage"] == "aligned"]
    held_out = [event for event in events if event["kind"] == "held_out"]
    steps = [event["step"] for event in held_out]
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "demo", "font.family": "sans-serif"})
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained", sharey=True)
    for axis, name, title in [
        (axes[0], "image_answer", "Image \u2194 answer, bare embeddings"),
        (axes[1], "matching", "Every view \u2194 barycenter, graph layers"),
    ]:
        own, floor = (
            [100 * event[f"{name}_{kind}"] for event in held_out]
            for kind in ("accuracy", "unrelated")
        )
        axis.plot(steps, own, color=OWN, marker="o", markersize=3, label="views of the same record")
        axis.plot(steps, floor, color=UNRELATED, linestyle="--", label="of different records")
        axis.axhline(100 * held_out[0]["chance"], color="grey", linestyle=":", label="chance")
        axis.set(title=title, xlabel="optimizer step of stage 2", ylim=(-3, 103))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("find their partner, %")
    axes[0].legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
