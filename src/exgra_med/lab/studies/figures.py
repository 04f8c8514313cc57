"""The figures of a study: score over the share of data, and differences from the baseline."""

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from textwrap import wrap
from typing import Any

from exgra_med.data.records import numbered_images
from exgra_med.evaluation.published import CURVES, curves_of
from exgra_med.evaluation.report.page import GRID, INK, STYLE, inline_svg, pyplot
from exgra_med.evaluation.tasks.vqa import strongest_blind
from exgra_med.lab.studies.compare import told_apart
from exgra_med.lab.studies.conclude import percent
from exgra_med.lab.studies.differing import Differing, Shown
from exgra_med.terminal import printable

_COLOURS = "#5d6875 #0b6e69 #b4540a #4b5fb0 #a83279 #6d7f12 #8a5a3c #2f7fb5".split()
PALETTE = [
    (f"#11020{number + 1}", f"var(--arm-{number})", colour)
    for number, colour in enumerate(_COLOURS)
]
"""Each as it is drawn, in the page, and on white; the first is the baseline's."""
_MARKS = "osD^vP*X"
_ON_WHITE = {INK: "#3a4450", GRID: "#dedbd4"}
_DOTTED = (0, (1, 2))
_MOST_CURVES = 8
WIDTH = 7.6
"""Inches; the same for all, so that their letters are of one size in the page."""


@dataclass(frozen=True)
class Drawing:
    """One figure: for a page, and alone."""

    name: str
    title: str
    note: str
    inline: str
    """SVG that takes its colours from the page."""
    alone: str
    """SVG with a white ground, whole by itself."""


def looks(results: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Arm -> its colour and mark in every figure; the baseline gets the quiet ones."""
    found = {results["baseline"]: (PALETTE[0][0], _MARKS[0])}
    others = (arm for arm in results["arms"] if arm != results["baseline"])
    for number, arm in enumerate(others):
        place = 1 + number % (len(PALETTE) - 1)
        found[arm] = (PALETTE[place][0], _MARKS[(1 + number) % len(_MARKS)])
    return found


def curve_figure(results: dict[str, Any]) -> Drawing | None:
    """Score over the share of data: mean, every seed, interval, and the baseline without images;
    None where there are fewer than two fractions, or more arms than a figure can hold.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    fractions = sorted({p["fraction"] for arm in results["arms"].values() for p in arm["points"]})
    if len(fractions) < 2 or len(results["arms"]) > _MOST_CURVES:
        return None
    paper = _paper_curves(results)
    widths = [2.2, 1] if paper else [1]
    with _panels(1, len(widths), 3.7, width_ratios=widths) as (figure, panels):
        axes = panels[0][0]
        _draw_arms(axes, results, fractions)
        _draw_baseline(axes, results)
        _label_fractions(axes, fractions)
        axes.set_xlabel(f"share of the data of stage “{results['fraction_stage']}”")
        _, scorer, name = str(results["metric"]).split(",")[0].split(".")
        axes.set_ylabel(f"{scorer} {name.replace('_', ' ')}, %")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1)
        if paper:
            _draw_paper(panels[0][1], paper, CURVES[results["published"]["dataset"]].title)
        return _drawing(figure, "curve", "Score over the share of data", _curve_note(results))


def difference_figure(results: dict[str, Any]) -> Drawing | None:
    """Every arm minus the baseline, with intervals; None where nothing is compared."""
    rows = results["comparisons"]
    if not rows:
        return None
    styles, names = looks(results), []
    with _panels(1, 1, 0.9 + 0.24 * len(rows), grid="x") as (figure, panels):
        axes = panels[0][0]
        for place, row in enumerate(rows):
            colour, mark = styles[row["arm"]]
            if row["interval"] is not None:
                axes.plot(row["interval"], [place, place], color=colour, linewidth=1.6)
            filling = colour if told_apart(row) else "none"
            axes.plot(
                row["value"], place, mark, color=colour, markersize=6, markerfacecolor=filling
            )
            axes.plot(row["each"], [place] * len(row["each"]), "|", color=colour, alpha=0.6)
            data = "all" if row["fraction"] is None else percent(row["fraction"])
            names.append(f"{results['arms'][row['arm']]['title']}, {data}")
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        baseline = results["arms"].get(results["baseline"], {}).get("title", results["baseline"])
        axes.set_xlabel(f"points above {baseline}")
        return _drawing(
            figure,
            "differences",
            f"Against {baseline}",
            "Line: 95 % interval over images and seeds. Ticks: every seed. Filled: told apart "
            "(by Holm's correction and by the interval); hollow: not told apart.",
        )


@contextmanager
def _panels(
    lines: int, columns: int, height: float, grid: str = "y", **more: Any
) -> Iterator[tuple[Any, Any]]:
    """A new figure and its axes, in the style of all figures while it is drawn and saved."""
    plt = pyplot()
    with plt.rc_context(STYLE | {"axes.axisbelow": True, "axes.grid.axis": grid}):
        size = (WIDTH, height)
        yield plt.subplots(
            lines, columns, figsize=size, layout="constrained", squeeze=False, **more
        )


def _draw_arms(axes: Any, results: dict[str, Any], fractions: list[float]) -> None:
    styles, num_arms = looks(results), len(results["arms"])
    for number, (name, arm) in enumerate(results["arms"].items()):
        colour, mark = styles[name]
        # Beside one another, or dots and bands of several arms cover each other.
        shift = 0.05 * (number - (num_arms - 1) / 2)
        places = [fractions.index(point["fraction"]) + shift for point in arm["points"]]
        means = [point["value"] for point in arm["points"]]
        bands = [point["interval"] or (point["value"],) * 2 for point in arm["points"]]
        lows, highs = zip(*bands, strict=True)
        axes.fill_between(places, lows, highs, color=colour, alpha=0.13, linewidth=0)
        axes.vlines(places, lows, highs, color=colour, alpha=0.45, linewidth=1)
        axes.plot(
            places, means, color=colour, marker=mark, markersize=5.5, linewidth=1.9,
            label=arm["title"],
        )  # fmt: skip
        for place, point in zip(places, arm["points"], strict=True):
            each = point["each"]
            axes.plot([place] * len(each), each, "o", color=colour, markersize=2.6, alpha=0.55)


def _draw_baseline(axes: Any, results: dict[str, Any]) -> None:
    each_has = (each["baselines"] for each in results["cells"])
    baselines = (each.get(strongest_blind(each)) for each in each_has)
    known = next((baseline for baseline in baselines if baseline is not None), None)
    if known is None:
        return
    axes.axhline(known, color=INK, linewidth=1, linestyle=_DOTTED)
    axes.annotate(
        f"best without the picture, {known:.1f} %", (1, known),
        xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points", ha="right",
        fontsize=8.5,
    )  # fmt: skip


def _paper_curves(results: dict[str, Any]) -> list[tuple[str, str, dict[float, float]]]:
    styles = looks(results)
    return [
        (styles[method][0] if method in styles else INK, name, curve)
        for method, name, curve in curves_of(results["published"])
    ]


def _draw_paper(axes: Any, curves: list[tuple[str, str, dict[float, float]]], dataset: str) -> None:
    shares = sorted({share for _, _, curve in curves for share in curve})
    for colour, name, curve in curves:
        places = [shares.index(share) for share in curve]
        axes.plot(places, list(curve.values()), color=colour, marker="o", markersize=3.5)
        # Where the line does not run: above an end that it rises to.
        *_, before, last = curve.values()
        rises = last >= before
        axes.annotate(
            name.replace(" (paper)", ""), (places[-1], last),
            xytext=(0, 5 if rises else -12), textcoords="offset points",
            ha="right", fontsize=8, color=colour,
        )  # fmt: skip
    _label_fractions(axes, shares)
    axes.set_title(f"paper: {dataset}, legacy score,\none run each — another scale", fontsize=8.5)


def _label_fractions(axes: Any, fractions: list[float]) -> None:
    axes.set_xticks(range(len(fractions)), [percent(fraction) for fraction in fractions])
    axes.set_xlim(-0.4, len(fractions) - 0.6)


def _curve_note(results: dict[str, Any]) -> str:
    counts = {len(p["seeds"]) for arm in results["arms"].values() for p in arm["points"]}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return (
        f"Lines are means over {seeds} seeds, small dots are seeds, bands are 95 % intervals over "
        "images and seeds."
        if max(counts) > 1
        else "One seed each; bands are 95 % intervals over images only."
    )


def _drawing(figure: Any, name: str, title: str, note: str) -> Drawing:
    """A finished figure for the page, where `name` is its own, and alone."""
    inline = inline_svg(figure, f"study-{name}", {drawn: used for drawn, used, _ in PALETTE})
    stream = StringIO()
    facts = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", facecolor="white", metadata=facts)
    pyplot().close(figure)
    svg = stream.getvalue()
    for drawn, white in (_ON_WHITE | {drawn: white for drawn, _, white in PALETTE}).items():
        svg = svg.replace(drawn, white)
    alone = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return Drawing(name, title, note, inline, alone)


_LINE = 31
"""Letters in a line under a picture."""
_PICTURE_PIXELS = 168


def questions_figure(results: dict[str, Any], differing: Differing) -> Drawing | None:
    """Questions that one arm answers rightly and the other does not, with pictures; None where
    there are none."""
    rows = [side for side in (0, 1) if differing.shown[side]]
    if not rows:
        return None
    titles = [results["arms"][arm]["title"] for arm in differing.arms]
    columns = max(len(each) for each in differing.shown)
    with (
        warnings.catch_warnings(),
        _panels(len(rows), columns, 3.35 * len(rows)) as (figure, panels),
    ):
        # The page has a font of its own for letters that the one which is measured with lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        for line, side in zip(panels, rows, strict=True):
            for axes in line:
                axes.set_axis_off()
            line[0].set_title(
                f"Right only with {titles[side]}: {differing.alone[side]:.0f}",
                loc="left", fontsize=9.5, fontweight="bold", parse_math=False,
            )  # fmt: skip
            for axes, shown in zip(line, differing.shown[side], strict=False):
                _draw_question(axes, shown, titles)
        return _drawing(
            figure,
            "questions",
            "Where the answers differ",
            f"{percent(differing.fraction)} of the data, {differing.num_questions} questions, mean "
            f"over {differing.num_pairs} pairs of equal seed; between two seeds of {titles[0]} "
            f"{differing.other_seed:.0f} change. One a picture: first those where most pairs "
            "agree, none the other way; ties by a hash. (2): two runs answered so.",
        )


def _draw_question(axes: Any, shown: Shown, titles: Sequence[str]) -> None:
    if shown.picture is not None:
        small = shown.picture.convert("RGB")
        small.thumbnail((_PICTURE_PIXELS, _PICTURE_PIXELS))
        axes.imshow(small, interpolation="none")
        axes.set_anchor("N")
    num_pictures = len(shown.question.images)
    lines = ["(no picture)"] if shown.picture is None else []
    lines += [f"(first of {num_pictures} pictures)"] if num_pictures > 1 else []
    lines += _few_lines(numbered_images(shown.question.text))
    lines += _few_lines(f"truth: {shown.question.answer}")
    for title, answers in zip(titles, shown.answers, strict=True):
        counts = Counter(answers).most_common()
        said = ", ".join(f"{text}\u00a0({n})" if n > 1 else text for text, n in counts)
        lines += _few_lines(f"{title}: {said}")
    axes.annotate(
        printable("\n".join(lines)), (0, 0), xycoords="axes fraction", xytext=(0, -4),
        textcoords="offset points", va="top", fontsize=7.5, linespacing=1.25, parse_math=False,
    )  # fmt: skip


def _few_lines(text: str) -> list[str]:
    return wrap(text, _LINE, max_lines=3, placeholder=" …")


_MEASURES = (
    # name, title, in percent
    ("image_answer_accuracy", "image matched to its answer", True),
    ("image_answer/recall_1", "answer ranked first (R@1)", True),
    ("image_answer/gap", "modality gap", False),
)


def along_training_figure(results: dict[str, Any]) -> Drawing | None:
    """Measures of the bare embeddings along the fraction's stage, mean over seeds, at the largest
    fraction; None where nothing was measured."""
    fraction, measured = _measured(results)
    curves = {arm: _curves(cells) for arm, cells in measured.items()}
    measures = [each for each in _MEASURES if any(each[0] in curve for curve in curves.values())]
    if not measures:
        return None
    styles = looks(results)
    chances = (entry.get("chance") for first, *_ in measured.values() for entry in first)
    chance = next((float(each) for each in chances if each is not None), None)
    with _panels(1, len(measures), 2.7) as (figure, panels):
        for axes, (measure, title, in_percent) in zip(panels[0], measures, strict=True):
            for arm, curve in curves.items():
                if points := curve.get(measure):
                    scale, (colour, mark) = 100 if in_percent else 1, styles[arm]
                    axes.plot(
                        [100 * x for x in points], [scale * y for y in points.values()],
                        color=colour, marker=mark, markersize=3, linewidth=1.4,
                        label=results["arms"][arm]["title"],
                    )  # fmt: skip
            if in_percent:
                axes.set_ylim(0, max(10.0, axes.get_ylim()[1]))
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
                if chance is not None:
                    axes.axhline(100 * chance, color=INK, linewidth=1, linestyle=_DOTTED)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("% of the stage's steps")
        handles, names = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4)
        return _drawing(
            figure,
            "along-training",
            f"Embeddings along training, {percent(fraction)} of the data",
            "Image and answer of held-out records, bare embeddings without graph layers, mean over "
            "seeds. Dotted: chance.",
        )


def histogram_figure(results: dict[str, Any]) -> Drawing | None:
    """Cosines of an image with its own and with other answers at the end of the fraction's stage,
    one panel an arm; None where they were not measured."""
    fraction, measured = _measured(results)
    found = {
        arm: drawn[-1]["image_answer"]
        for arm, (first, *_) in measured.items()
        if (drawn := [entry["histograms"] for entry in first if "histograms" in entry])
    }
    if not found:
        return None
    styles, columns = looks(results), min(4, max(3, len(found)))
    lines = -(-len(found) // columns)
    with _panels(lines, columns, 0.6 + 1.6 * lines, sharex=True) as (figure, panels):
        for axes, (arm, counts) in zip(panels.flat, found.items(), strict=False):
            for kind, colour in (("other", INK), ("own", styles[arm][0])):
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
        return _drawing(
            figure,
            "cosines",
            f"Cosines at the end of the stage, {percent(fraction)} of the data",
            "Own: image and its answer. Other: image and another answer. First seed.",
        )


def _measured(results: dict[str, Any]) -> tuple[float, dict[str, list[list[dict[str, Any]]]]]:
    """The largest fraction, and arm -> what each of its cells there measured along the fraction's
    stage, the views' measures beside the others."""
    fraction = max((cell["fraction"] for cell in results["cells"]), default=1.0)
    found = defaultdict(list)
    for cell in results["cells"]:
        if cell["fraction"] == fraction:
            entries = [e for e in cell["diagnostics"] if e["stage"] == results["fraction_stage"]]
            found[cell["arm"]].append([(each.get("views") or {}) | each for each in entries])
    return fraction, found


def _curves(cells: list[list[dict[str, Any]]]) -> dict[str, dict[float, float]]:
    """Measure -> share of the steps -> mean over seeds."""
    gathered: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entries in cells:
        last = max((entry["step"] for entry in entries), default=0) or 1
        for entry in entries:
            for measure, _, _ in _MEASURES:
                if entry.get(measure) is not None:
                    gathered[measure][entry["step"] / last].append(float(entry[measure]))
    return {
        measure: {x: sum(ys) / len(ys) for x, ys in sorted(points.items())}
        for measure, points in gathered.items()
    }
