"""Report content -> `report.html` and `scores.csv` in the run folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from exgra_med.errors import import_extra
from exgra_med.evaluation.report.content import Content, Curve, StageCurves, gather
from exgra_med.evaluation.tables import scores_csv
from exgra_med.files import write_text

# Curves as inline SVG that takes its colours from the page, so light and dark both work.

# Colours are drawn as these and then replaced by CSS variables of the page.
INK, GRID, ACCENT, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
_VARIABLES = {
    INK: "var(--muted)",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
}
_MAX_POINTS = 400
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "exgra-med",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture: `svg` is safe to put into a page as it is."""

    title: str
    note: str
    svg: str


def training_figures(stages: list[StageCurves]) -> list[Figure]:
    """Loss curves of every stage, and matching accuracies where they were measured.

    Args:
        stages: curves from `read_log`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = []
    for stage in stages:
        if stage.has("language_loss"):
            figures.append(_figure(stage, "language_loss", "language-model loss"))
        if stage.has("alignment_loss"):
            figures.append(_figure(stage, "alignment_loss", "alignment loss"))
        if stage.has("matching_accuracy"):
            figures.append(_figure(stage, "matching_accuracy", "matching accuracy", stage.chance))
        # Held out only, and one point is no curve.
        if len(stage.held_out["image_answer_accuracy"].values) > 1:
            label = "image-answer matching, bare embeddings"
            figures.append(_figure(stage, "image_answer_accuracy", label, stage.chance))
    return figures


def _figure(stage: StageCurves, measure: str, label: str, chance: float | None = None) -> Figure:
    plt = pyplot()
    train, held_out = stage.train[measure], stage.held_out[measure]
    in_percent = measure.endswith("accuracy")
    scale = 100.0 if in_percent else 1.0
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.0, 2.75), layout="constrained")
        if train.values:
            raw, smooth = _thinned(train), _smoothed(train)
            name = "training, with noise" if in_percent else "training"
            axes.plot(raw.steps, _times(raw, scale), color=ACCENT, alpha=0.28, linewidth=1)
            axes.plot(smooth.steps, _times(smooth, scale), color=ACCENT, linewidth=1.9, label=name)
        if held_out.values:
            name = "held out, without noise" if in_percent else "held out"
            axes.plot(
                held_out.steps,
                _times(held_out, scale),
                color=SECOND,
                linewidth=1.3,
                marker="o",
                markersize=4,
                label=name,
            )
        if chance is not None:
            axes.axhline(100 * chance, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                f"chance {100 * chance:.3g} %",
                (1, 100 * chance),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8.5,
            )
        if in_percent:
            axes.set_ylim(0, 103)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.set_xlabel("optimizer step")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1)
        svg = inline_svg(figure, f"{stage.name}-{measure}", label=f"{stage.name}: {label}")
        plt.close(figure)
    return Figure(f"{stage.name}: {label}", _note(train, held_out, in_percent), svg)


def _note(train: Curve, held_out: Curve, in_percent: bool) -> str:
    curve, where = (held_out, "held out") if len(held_out.values) > 1 else (train, "in training")
    first, last = curve.values[0], curve.values[-1]
    if in_percent:
        return f"{100 * first:.0f} % at the start, {100 * last:.0f} % at the end ({where})"
    return f"{first:.3f} at the start, {last:.3f} at the end ({where})"


def _times(curve: Curve, scale: float) -> list[float]:
    return [value * scale for value in curve.values]


def _thinned(curve: Curve) -> Curve:
    size = -(-len(curve.values) // _MAX_POINTS)
    return curve if size <= 1 else _means(curve, size)


def _means(curve: Curve, size: int) -> Curve:
    thin = Curve()
    for start in range(0, len(curve.values), size):
        part = slice(start, start + size)
        steps, values = curve.steps[part], curve.values[part]
        thin.add(sum(steps) / len(steps), sum(values) / len(values))
    return thin


def _smoothed(curve: Curve) -> Curve:
    """Centred running mean over a fifteenth of the curve: follows it, without a start-up lag."""
    half = len(curve.values) // 30
    smooth = Curve()
    for index, step in enumerate(curve.steps):
        window = curve.values[max(0, index - half) : index + half + 1]
        smooth.add(step, sum(window) / len(window))
    return _thinned(smooth)


def inline_svg(
    figure: Any, name: str, variables: Mapping[str, str] | None = None, label: str = ""
) -> str:
    """A figure as SVG for a page, which gives its colours, size and font.

    Args:
        figure: drawn under `STYLE`.
        name: unlike that of every other figure of the page.
        variables: further colours, and what the page calls them.
        label: what it shows, for those who do not see it; its name else.
    """
    stream = StringIO()
    figure.savefig(
        stream,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in (_VARIABLES | dict(variables or {})).items():
        svg = svg.replace(colour, variable)
    # Several pictures share one page, so their ids must not meet.
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Size, namespaces and font are the page's business.
    (box,) = re.findall(r"<svg [^>]*?viewBox=\"([^\"]*)\"", svg)
    head = f'<svg viewBox="{box}" role="img" aria-label="{escape(label or name, quote=True)}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", svg).strip()


def pyplot() -> Any:
    """matplotlib, drawing into files.

    Raises:
        MissingExtraError: it is not installed.
    """
    import_extra("matplotlib", "The report", "report").use("svg")
    return import_extra("matplotlib.pyplot", "The report", "report")


# Templates of the report: escaped for HTML, made plain for Markdown.


_TEMPLATES = Path(__file__).parent / "templates"


def template_environment(escape: bool, *folders: Path) -> Any:
    """A jinja2 environment over the report's templates.

    Args:
        escape: turn markup in values into text; for HTML.
        folders: templates of another report, looked into first.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "The report", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment


def template_text(name: str) -> str:
    """A file beside the templates, as it is."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def plain(text: Any) -> str:
    """Text for a Markdown table or line: one line, with nothing that Markdown would act on."""
    flat = " ".join(str(text).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#!~" else char for char in flat)


def write_report(run: Path, data_folder: str | None = None) -> Path:
    """Write `report.html` and `scores.csv` of a run.

    The page needs no network, no other file and no script to be read.

    Args:
        run: the run folder.
        data_folder: the prepared folder that was answered, where it is not at its place.

    Returns:
        The path of `report.html`.

    Raises:
        RunError: the folder is no run.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    content = gather(run, data_folder)
    html = render_html(content)
    write_text(run / "scores.csv", scores_csv(content.entries))
    write_text(run / "report.html", html)
    return run / "report.html"


def render_html(content: Content) -> str:
    """The page. Whatever a model or a data set says is shown as text, never as markup."""
    template = template_environment(escape=True).get_template("report.html.j2")
    figures = training_figures(content.stages)
    return template.render(report=content, figures=figures, css=template_text("report.css"))
