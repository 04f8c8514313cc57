"""The picture of the page beside others: how many times as fast this package is, way by way.

PYTHONPATH=src python benchmarks/peers/picture.py RESULT.json PICTURE.svg
"""

import json
import sys
from pathlib import Path
from typing import Any

from exgra_med.evaluation.report.page import pyplot

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs" / "_ext"))

from peers_page import TITLES, WAYS


def draw(value: dict[str, Any], out: Path) -> None:
    """A panel a row: median of the rounds, and from the lowest to the highest."""
    plt = pyplot()
    rows = {
        row: {way: found for way, found in ways.items() if "ours_over_it" in found}
        for row, ways in value["rows"].items()
    }
    heights = [len(ways) + 0.6 for ways in rows.values()]
    figure, panels = plt.subplots(
        len(rows),
        1,
        sharex=True,
        squeeze=False,
        figsize=(7.6, 0.9 + 0.36 * sum(heights)),
        height_ratios=heights,
        layout="constrained",
    )
    for axes, (row, ways) in zip(panels[:, 0], rows.items(), strict=True):
        places = range(len(ways))[::-1]
        for place, found in zip(places, ways.values(), strict=True):
            middle = found["ours_over_it"]
            axes.plot([found["lowest"], found["highest"]], [place] * 2, color="#0b6e69", lw=2)
            axes.plot(middle, place, "o", color="#0b6e69")
            axes.annotate(
                f"{middle:g}", (middle, place), (0, 5), textcoords="offset points", ha="center"
            )
        axes.axvline(1, color="#5d6875", lw=1)
        axes.set_yticks(places, [WAYS[way].replace("`", "") for way in ways])
        axes.set_ylim(-0.5, len(ways) - 0.2)
        axes.set_title(TITLES[row][0], loc="left", fontsize=10)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("processor time it takes, this package (plain) = 1")
    # Without a date and drawn names of its parts the same figures make the same file.
    plt.rcParams["svg.hashsalt"] = "peers"
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
