"""What happened to the embeddings while methods were trained: the same ruler for all of them."""

from collections.abc import Iterator
from typing import Any

from exgra_med.evaluation.report.figures import INK, STYLE, pyplot
from exgra_med.studies.conclude import percent
from exgra_med.studies.plot import BELOW, WIDTH, Drawing, drawing_of, looks

_MEASURES = (
    # place in an entry, title, in percent
    (("image_answer_accuracy",), "image matched to its answer", True),
    (("views", "image_answer/recall_1"), "answer ranked first (R@1)", True),
    (("views", "image_answer/gap"), "modality gap", False),
)
_PAIR = "image_answer"


def along_training_figure(results: dict[str, Any]) -> Drawing | None:
    """Measures of the bare embeddings along the fraction's stage, mean over seeds, at the largest
    fraction; None where nothing was measured."""
    fraction, curves = _curves(results)
    measures = [each for each in _MEASURES if any(each[0] in curve for curve in curves.values())]
    if not measures:
        return None
    styles, plt = looks(results), pyplot()
    with plt.rc_context(STYLE | BELOW):
        figure, panels = plt.subplots(
            1, len(measures), figsize=(WIDTH, 2.7), layout="constrained",
            squeeze=False,
        )  # fmt: skip
        for axes, (place, title, in_percent) in zip(panels[0], measures, strict=True):
            for arm, curve in curves.items():
                points = curve.get(place)
                if points:
                    scale = 100 if in_percent else 1
                    axes.plot(
                        [100 * x for x in points], [scale * y for y in points.values()],
                        color=styles[arm].colour, marker=styles[arm].mark, markersize=3,
                        linewidth=1.4, label=results["arms"][arm]["title"],
                    )  # fmt: skip
            if in_percent:
                axes.set_ylim(0, max(10.0, axes.get_ylim()[1]))
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
                chance = _chance(results, fraction)
                if chance is not None:
                    axes.axhline(100 * chance, color=INK, linewidth=1, linestyle=(0, (1, 2)))
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("% of the stage's steps")
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4)
        drawing = drawing_of(
            figure,
            "along-training",
            f"Embeddings along training, {percent(fraction)} of the data",
            "Image and answer of held-out records, bare embeddings without graph layers, mean over "
            "seeds. Dotted: chance.",
        )
        plt.close(figure)
    return drawing


def histogram_figure(results: dict[str, Any]) -> Drawing | None:
    """Cosines of an image with its own and with other answers at the end of the fraction's stage,
    one panel an arm; None where they were not measured."""
    fraction = _largest(results)
    found = {
        arm: entries[-1]["views"]["histograms"][_PAIR]
        for arm, cell in _first_cells(results, fraction)
        if (entries := [e for e in _stage(results, cell) if "histograms" in e.get("views", {})])
    }
    if not found:
        return None
    styles, plt = looks(results), pyplot()
    with plt.rc_context(STYLE | BELOW):
        columns = min(4, max(3, len(found)))
        lines = -(-len(found) // columns)
        figure, panels = plt.subplots(
            lines, columns, figsize=(WIDTH, 0.6 + 1.6 * lines),
            layout="constrained", squeeze=False, sharex=True,
        )  # fmt: skip
        for axes, (arm, counts) in zip(panels.flat, found.items(), strict=False):
            for kind, colour in (("other", INK), ("own", styles[arm].colour)):
                total = sum(counts[kind]) or 1
                edges = [-1 + 2 * n / len(counts[kind]) for n in range(len(counts[kind]) + 1)]
                shares = [100 * count / total for count in counts[kind]]
                axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35, label=kind)
            axes.set_title(results["arms"][arm]["title"], fontsize=8.5)
        for axes in panels.flat[len(found) :]:
            axes.set_visible(False)
        panels.flat[0].legend(loc="upper left", fontsize=8)
        figure.supxlabel("cosine of image and answer", fontsize=9)
        figure.supylabel("% of the pairs", fontsize=9)
        drawing = drawing_of(
            figure,
            "cosines",
            f"Cosines at the end of the stage, {percent(fraction)} of the data",
            "Own: image and its answer. Other: image and another answer. First seed.",
        )
        plt.close(figure)
    return drawing


def _largest(results: dict[str, Any]) -> float:
    return max((cell["fraction"] for cell in results["cells"]), default=1.0)


def _first_cells(results: dict[str, Any], fraction: float) -> Iterator[tuple[str, dict[str, Any]]]:
    for arm in results["arms"]:
        cells = [c for c in results["cells"] if c["arm"] == arm and c["fraction"] == fraction]
        if cells:
            yield arm, cells[0]


def _stage(results: dict[str, Any], cell: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in cell["diagnostics"] if entry["stage"] == results["fraction_stage"]]


def _curves(
    results: dict[str, Any],
) -> tuple[float, dict[str, dict[tuple[str, ...], dict[float, float]]]]:
    """Arm -> place of a measure -> share of the steps -> mean over seeds."""
    fraction = _largest(results)
    curves: dict[str, dict[tuple[str, ...], dict[float, float]]] = {}
    for arm in results["arms"]:
        cells = [c for c in results["cells"] if c["arm"] == arm and c["fraction"] == fraction]
        gathered: dict[tuple[str, ...], dict[float, list[float]]] = {}
        for cell in cells:
            entries = _stage(results, cell)
            last = max((entry["step"] for entry in entries), default=0) or 1
            for entry in entries:
                for place, _, _ in _MEASURES:
                    value = _at(entry, place)
                    if value is not None:
                        points = gathered.setdefault(place, {})
                        points.setdefault(entry["step"] / last, []).append(value)
        if gathered:
            curves[arm] = {
                place: {x: sum(ys) / len(ys) for x, ys in sorted(points.items())}
                for place, points in gathered.items()
            }
    return fraction, curves


def _chance(results: dict[str, Any], fraction: float) -> float | None:
    for _, cell in _first_cells(results, fraction):
        for entry in _stage(results, cell):
            chance = entry.get("chance", (entry.get("views") or {}).get("chance"))
            if chance is not None:
                return float(chance)
    return None


def _at(entry: dict[str, Any], place: tuple[str, ...]) -> float | None:
    value: Any = entry
    for key in place:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None
