"""The matched graphs of a run as a part of a page, or as a page of its own."""

import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path

from exgra_med.data.records import Record
from exgra_med.evaluation.graphs import GRAPHS, Graphs, Matched, Moment
from exgra_med.evaluation.report.page import (
    LEVELS,
    NOTICE,
    jpeg,
    template_environment,
    template_text,
)
from exgra_med.evaluation.tables import Column, Row, Table
from exgra_med.files import write_text
from exgra_med.page_style import PAGE_CSS

# Colours are CSS variables of the page, so light and dark both work; a wrong match is also dashed,
# so that nobody needs to tell green from red. Every text is escaped.

WIDTH, ROW = 430, 46
_LEFT, _NODE, _RIGHT = 62, 168, 352
_THUMBNAIL, _STRIP, _RADIUS = 40, 84, 15
_LINE_CHARACTERS, _LINES = 22, 3
_CELL = 24
_AXIS = 18
"""Room for the name of an axis of a matrix."""


def pair_svg(
    pair: Matched, records: Sequence[Record], thumbnails: Sequence[Sequence[str]], title: str
) -> str:
    """One pair: the first graph on the left, the second on the right, the same records in rows.

    Thumbnails are JPEG as base64, those of all images of each record; the title is for those who do
    not see the picture.
    """
    count = len(pair.matches)
    height = ROW * count + 8
    marks = [
        _arcs(pair.first_edges, _LEFT - 4, -1),
        _arcs(pair.second_edges, _RIGHT + _RADIUS + 4, 1),
        *(_match(node, match) for node, match in enumerate(pair.matches)),
    ]
    for number, (record, own) in enumerate(zip(records, thumbnails, strict=True)):
        marks.append(_node(pair.first, number, record, own, pair.matches[number]))
        marks.append(_other(pair.second, number, record))
    summary = f"{title}: {pair.num_right} of {count} matches are right"
    return (
        f'<svg class="graphs" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(summary, quote=True)}">{"".join(marks)}</svg>'
    )


def matrix_svg(pair: Matched, low: float, high: float, title: str) -> str:
    """Similarities as a square of cells; the cell of each match has a ring, a wrong one a cross.

    Rows are the nodes of the first graph, columns those of the second; both axes have their names.
    A cell is empty at the cosine `low` and full at `high`.
    """
    count = len(pair.matches)
    size = _CELL * (count + 1) + 6
    span = max(high - low, 1e-9)
    cells = []
    for row, values in enumerate(pair.similarity):
        y = _CELL * (row + 1)
        cells.append(_text(_CELL / 2, y + _CELL / 2 + 4, str(row + 1), "number"))
        cells.append(_text(y + _CELL / 2, _CELL / 2 + 4, str(row + 1), "number"))
        for column, value in enumerate(values):
            x = _CELL * (column + 1)
            share = min(1.0, max(0.0, (value - low) / span))
            cells.append(
                f'<rect class="cell" x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" '
                f'height="{_CELL - 2}" rx="3" fill-opacity="{share:.2f}">'
                f"<title>{row + 1} with {column + 1}: cosine {value:.2f}</title></rect>"
            )
        cells.append(_cell_mark(row, pair.matches[row]))
    middle = _CELL * (1 + count / 2)
    names = (
        _text(middle, -5, f"{GRAPHS[pair.second]} →", "axis"),
        f'<g transform="translate(-5 {middle:g}) rotate(-90)">'
        f"{_text(0, 0, f'← {GRAPHS[pair.first]}', 'axis')}</g>",
    )
    return (
        f'<svg class="matrix" viewBox="{-_AXIS} {-_AXIS} {size + _AXIS} {size + _AXIS}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(names)}{"".join(cells)}</svg>'
    )


def _middle(row: int) -> float:
    return ROW * row + ROW / 2 + 4


def _arcs(edges: Sequence[tuple[int, int]], x: float, side: int) -> str:
    """kNN edges beside a column of nodes; a longer way makes a wider arc."""
    lines = []
    for one, two in sorted({(min(edge), max(edge)) for edge in edges}):
        top, bottom = _middle(one), _middle(two)
        bulge = x + side * (10 + min(52, 8.5 * (two - one)))
        lines.append(f"M{x:g} {top:g}Q{bulge:g} {(top + bottom) / 2:g} {x:g} {bottom:g}")
    return f'<path class="edge" d="{"".join(lines)}"/>'


def _match(node: int, match: int) -> str:
    if match < 0:
        return ""
    kind = "right" if match == node else "wrong"
    x, end = _LEFT + _NODE + 4, _RIGHT - _RADIUS - 4
    y, to, third = _middle(node), _middle(match), (end - x) / 3
    path = f"M{x:g} {y:g}C{x + third:g} {y:g} {end - third:g} {to:g} {end:g} {to:g}"
    return f'<path class="match {kind}" d="{path}"/>'


def _node(graph: int, number: int, record: Record, thumbnails: Sequence[str], match: int) -> str:
    y = _middle(number)
    state = "none" if match < 0 else "right" if match == number else "wrong"
    box = (
        f'<rect class="node {state}" x="{_LEFT}" y="{y - ROW / 2 + 2:g}" width="{_NODE}" '
        f'height="{ROW - 4}" rx="8"/>'
    )
    label = _text(_LEFT + 14, y + 4, str(number + 1), "number")
    if graph == 0:
        words = "no partner" if match < 0 else f"matched with {match + 1}"
        if len(thumbnails) == 1:
            at = _LEFT + 80
        else:
            words, at = "none" if match < 0 else f"→ {match + 1}", _LEFT + 32 + _STRIP
        return box + label + _thumbnails(thumbnails, y) + _text(at, y + 4, words, "words")
    text = " · ".join((record.answers if graph == 1 else record.extended) or [])
    lines = textwrap.wrap(text, _LINE_CHARACTERS, max_lines=_LINES, placeholder=" …")
    first = y + 4 - 6.5 * (len(lines) - 1)
    words = "".join(
        _text(_LEFT + 28, first + 13 * place, line, "words") for place, line in enumerate(lines)
    )
    return f"<g><title>{escape(text)}</title>{box}{label}{words}</g>"


def _thumbnails(thumbnails: Sequence[str], middle: float) -> str:
    """The images of a node: one square, or a strip of as many rows as make them largest."""
    count = len(thumbnails)
    rows = max(range(1, count + 1), key=lambda rows: _side(count, rows))
    side, columns = _side(count, rows), -(-count // rows)
    top, gap = middle - rows * side / 2, 2 * (count > 1)
    return "".join(
        f'<image x="{_LEFT + 28 + side * (place % columns):g}" '
        f'y="{top + side * (place // columns):g}" width="{side - gap:g}" height="{side - gap:g}" '
        'preserveAspectRatio="xMidYMid slice" '
        f'href="data:image/jpeg;base64,{thumbnail}"/>'
        for place, thumbnail in enumerate(thumbnails)
    )


def _side(count: int, rows: int) -> float:
    return min(_THUMBNAIL / rows, _STRIP / -(-count // rows))


def _other(graph: int, number: int, record: Record) -> str:
    """A node of the second graph; a barycenter is nothing that can be shown but its number."""
    y = _middle(number)
    what = f"{GRAPHS[graph]} of {record.id}"
    return (
        f"<g><title>{escape(what)}</title>"
        f'<circle class="center" cx="{_RIGHT}" cy="{y:g}" r="{_RADIUS}"/>'
        f"{_text(_RIGHT, y + 4, str(number + 1), 'number')}</g>"
    )


def _cell_mark(row: int, match: int) -> str:
    if match < 0:
        return ""
    x, y = _CELL * (match + 1.5), _CELL * (row + 1.5)
    path = f"M{x - 6:g} {y - 6:g}l12 12m0 -12l-12 12"
    kind = "wrong"
    if match == row:
        path, kind = f"M{x - 7:g} {y:g}a7 7 0 1 0 14 0a7 7 0 1 0 -14 0", "right"
    # The halo keeps the mark visible on a full cell.
    return f'<path class="halo" d="{path}"/><path class="ring {kind}" d="{path}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


_THUMBNAIL_PIXELS = 96


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
    return PAGE_CSS + template_text("graphs.css")


def _values(graphs: Graphs) -> dict[str, object]:
    thumbnails = [
        [jpeg(graphs.images.open(name, record.id), _THUMBNAIL_PIXELS) for name in record.images]
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

    def drawn(moment: Moment, pair: Matched) -> dict[str, object]:
        names = f"{GRAPHS[pair.first]} with {GRAPHS[pair.second]}"
        title = f"{names}, {moment.title} training"
        return {
            "right": f"{pair.num_right} of {len(pair.matches)} right",
            "graphs": pair_svg(pair, graphs.records, thumbnails, title),
            "matrix": matrix_svg(pair, low, high, f"Similarities of {title}"),
            "sentences": [_sentence(node, match) for node, match in enumerate(pair.matches)],
        }

    moments = (graphs.before, graphs.after)
    rows = [
        (f"{GRAPHS[one.first]} ↔ {GRAPHS[one.second]}", [drawn(graphs.before, one),
                                                          drawn(graphs.after, two)])
        for one, two in zip(graphs.before.pairs, graphs.after.pairs, strict=True)
    ]  # fmt: skip
    return {
        "graphs": graphs,
        "rows": rows,
        "moments": moments,
        "levels": levels_table(graphs),
        "low": f"{low:.2f}",
        "high": f"{high:.2f}",
        "chance": f"{100 / len(graphs.records):.3g}",
    }


def levels_table(graphs: Graphs) -> Table:
    """What finds its own partner, one row a pair of views, bare embeddings first."""
    rows = []
    for name in dict.fromkeys(each.partition("/")[0] for each in graphs.after.levels):
        before, after, floor = (
            f"{100 * moment.levels[f'{name}/{kind}']:.0f}"
            for moment, kind in (
                (graphs.before, "accuracy"), (graphs.after, "accuracy"), (graphs.after, "unrelated")
            )
        )  # fmt: skip
        rows.append(Row(LEVELS[name], [before, after, floor], "bare embeddings", not rows))
    drawn = [f"{100 * each:.0f}" for each in (graphs.before.accuracy, graphs.after.accuracy)]
    way = "through graph layers" if graphs.message_passing else "bare embeddings"
    label = "as drawn below"
    rows.append(Row(label, [*drawn, f"{100 * graphs.after.unrelated:.0f}"], way))
    columns = ("Before, %", "After, %", "Unrelated views, %")
    return Table([Column(each) for each in columns], rows, "Pair")


def _sentence(node: int, match: int) -> str:
    if match < 0:
        return f"{node + 1}: no partner"
    return f"{node + 1}: its own" if match == node else f"{node + 1}: {match + 1}, wrong"
