"""The matched graphs of a run as a part of a page, or as a page of its own."""

from dataclasses import dataclass
from pathlib import Path

from exgra_med.evaluation.graphs import GRAPHS, Graphs, Matched, Moment
from exgra_med.evaluation.report.content import NOTICE
from exgra_med.evaluation.report.environment import template_environment, template_text
from exgra_med.evaluation.report.graph_figures import matrix_svg, pair_svg
from exgra_med.evaluation.report.thumbnails import jpeg
from exgra_med.files import write_text

_THUMBNAIL_PIXELS = 96


@dataclass(frozen=True, slots=True)
class Drawn:
    """One pair at one moment."""

    title: str
    right: str
    graphs: str
    matrix: str
    sentences: list[str]
    """The matching in words."""


def graphs_fragment(graphs: Graphs) -> str:
    """HTML of the pictures, to stand in a page that has the report's colours.

    Raises:
        DataError: an image cannot be read.
        MissingExtraError: jinja2 is not installed.
    """
    return template_environment(escape=True).get_template("graphs.html.j2").render(_values(graphs))


def write_graphs(graphs: Graphs, out: Path) -> Path:
    """Write the pictures as one self-contained page.

    Raises:
        DataError: an image cannot be read.
        MissingExtraError: jinja2 is not installed.
    """
    page = template_environment(escape=True).get_template("graphs_page.html.j2")
    values = _values(graphs) | {"css": graphs_css(), "notice": NOTICE}
    write_text(out, page.render(values))
    return out


def graphs_css() -> str:
    """Style of the report and of the pictures."""
    return template_text("report.css") + template_text("graphs.css")


def _values(graphs: Graphs) -> dict[str, object]:
    thumbnails = [
        jpeg(graphs.images.open(record.images[0], record.id), _THUMBNAIL_PIXELS)
        for record in graphs.records
    ]
    cosines = [
        value
        for moment in (graphs.before, graphs.after)
        for pair in moment.pairs
        for row in pair.similarity
        for value in row
    ]
    low, high = min(cosines), max(cosines)

    def drawn(moment: Moment, pair: Matched) -> Drawn:
        names = f"{GRAPHS[pair.first]} with {GRAPHS[pair.second]}"
        title = f"{names}, {moment.title} training"
        return Drawn(
            title=title,
            right=f"{pair.num_right} of {len(pair.matches)} right",
            graphs=pair_svg(pair, graphs.records, thumbnails, title),
            matrix=matrix_svg(pair, low, high, f"Similarities of {title}"),
            sentences=[_sentence(node, match) for node, match in enumerate(pair.matches)],
        )

    moments = (graphs.before, graphs.after)
    rows = [
        (f"{GRAPHS[one.first]} ↔ {GRAPHS[one.second]}", [drawn(moments[0], one),
                                                          drawn(moments[1], two)])
        for one, two in zip(graphs.before.pairs, graphs.after.pairs, strict=True)
    ]  # fmt: skip
    return {
        "graphs": graphs,
        "rows": rows,
        "moments": moments,
        "low": f"{low:.2f}",
        "high": f"{high:.2f}",
        "chance": f"{100 / len(graphs.records):.3g}",
    }


def _sentence(node: int, match: int) -> str:
    if match < 0:
        return f"{node + 1}: no partner"
    return f"{node + 1}: its own" if match == node else f"{node + 1}: {match + 1}, wrong"
