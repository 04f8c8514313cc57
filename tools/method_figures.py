"""Draws the figures of docs/explanation/method.md; every curve and every edge in them is computed.

PYTHONPATH=src python tools/method_figures.py
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import torch

from exgra_med.alignment.cost import matching_costs
from exgra_med.alignment.graph import build_edges
from exgra_med.alignment.loss import barycenter
from exgra_med.alignment.matching import solve_matching
from exgra_med.files import write_text

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures"
IMAGE, ANSWER, EXTENDED, CENTRE, INK, FAINT = (
    "#2a6f97",
    "#d1691b",
    "#3a8f5c",
    "#3d3d46",
    "#22252b",
    "#8a93a0",
)
VIEWS = (("image", IMAGE), ("answer", ANSWER), ("extended answer", EXTENDED))
Point = tuple[float, float]


class Drawing:
    """An SVG that is put together from a few shapes; units are pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse">'
            '<path d="M0 0L10 5L0 10z" fill="context-stroke"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def text(self, at: Point, what: str, fill: str = INK, size: int = 14, **more: str) -> None:
        """Text, centred on a point unless `anchor` says otherwise."""
        anchor, weight = more.get("anchor", "middle"), more.get("weight", "normal")
        self.parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" fill="{fill}" font-size="{size}" '
            f'text-anchor="{anchor}" font-weight="{weight}">{escape(what)}</text>'
        )

    def box(self, corner: Point, size: Point, lines: Sequence[str], colour: str) -> None:
        """A rounded box with centred lines of text."""
        (left, top), (width, height) = corner, size
        self.parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="7" '
            f'fill="{colour}" fill-opacity="0.1" stroke="{colour}" stroke-width="1.5"/>'
        )
        first = top + height / 2 + 5 - 9 * (len(lines) - 1)
        for number, line in enumerate(lines):
            self.text((left + width / 2, first + 18 * number), line)

    def line(self, points: Iterable[Point], colour: str, width: float = 1.6, **more: str) -> None:
        """A line through points; `tip` ends it with an arrow, `dash` breaks it."""
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        tip = ' marker-end="url(#tip)"' if more.get("tip") else ""
        dash = f' stroke-dasharray="{more["dash"]}"' if "dash" in more else ""
        opacity = f' stroke-opacity="{more["opacity"]}"' if "opacity" in more else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"'
            f"{opacity}{dash}{tip}/>"
        )

    def dot(self, at: Point, colour: str, radius: float = 7, label: str = "") -> None:
        """A filled circle, with a label inside."""
        self.parts.append(
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius}" fill="{colour}"/>'
        )
        if label:
            self.text((at[0], at[1] + 4), label, "white", 12, weight="bold")

    def save(self, name: str) -> None:
        """Write it into the figures of the documentation."""
        write_text(FOLDER / name, "\n".join([*self.parts, "</svg>"]) + "\n")


def step_figure() -> None:
    """From a batch to the two losses."""
    draw = Drawing(900, 350, "One step: from a batch to two losses")
    tops = (20, 130, 240)
    inputs = (("image", "B pictures"), ("answer", "one a sample"), ("extended answer", "longer"))
    for top, (name, colour), (_, note) in zip(tops, VIEWS, inputs, strict=True):
        draw.box((10, top), (130, 62), [name, note], colour)
    draw.box((190, 20), (130, 62), ["CLIP tower,", "projector"], FAINT)
    draw.box((190, 130), (130, 172), ["language", "model"], FAINT)
    draw.line([(140, 51), (190, 51)], IMAGE, tip="yes")
    draw.line([(140, 161), (190, 161)], ANSWER, tip="yes")
    draw.line([(140, 271), (190, 271)], EXTENDED, tip="yes")
    draw.line([(255, 82), (255, 130)], IMAGE, tip="yes")
    for top, (_, colour), symbol in zip(tops, VIEWS, ("x", "a", "e"), strict=True):
        draw.line([(320, top + 31), (385, top + 31)], colour, tip="yes")
        draw.box((385, top + 6), (112, 50), ["mean:", f"{symbol}  [B, D]"], colour)
        draw.line([(497, top + 31), (560, top + 31)], colour, tip="yes")
    draw.box((560, 20), (130, 287), ["four graphs,", "b = (x + a + e) / 3", "", "six matchings"],
             CENTRE)  # fmt: skip
    draw.line([(690, 120), (750, 120)], CENTRE, tip="yes")
    draw.box((750, 92), (140, 56), ["alignment loss", "Hamming(X, I)"], CENTRE)
    draw.line([(255, 302), (255, 328), (820, 328), (820, 268)], FAINT, tip="yes")
    draw.box((750, 212), (140, 56), ["language loss", "next tokens"], FAINT)
    draw.text((820, 183), "+  α ×", INK, 15)
    draw.save("method-step.svg")


def graphs_figure() -> None:
    """Three views of six samples, their neighbours, and the barycenter: all computed."""
    torch.manual_seed(3)
    base = torch.randn(6, 2)
    views = [base + 0.45 * torch.randn(6, 2) for _ in VIEWS]
    sets = [*views, barycenter(*views)]
    draw = Drawing(900, 330, "Three views of a batch, and their barycenter, as graphs")
    colours = [colour for _, colour in VIEWS] + [CENTRE]
    titles = [name for name, _ in VIEWS] + ["barycenter"]
    symbols = ("x", "a", "e", "b")
    for panel, (nodes, colour, title) in enumerate(zip(sets, colours, titles, strict=True)):
        places = _places(nodes, 225 * panel + 15, 60, 195, 200)
        edges = build_edges(nodes, kind="knn", neighbours=2)
        for asker, neighbour in edges.T.tolist():
            draw.line(_shorten(places[asker], places[neighbour]), colour, 1.3, tip="yes",
                      opacity="0.65")  # fmt: skip
        for number, place in enumerate(places):
            draw.dot(place, colour, 11, str(number + 1))
        draw.text((225 * panel + 112, 30), f"{symbols[panel]}: {title}", colour, 15, weight="bold")
    draw.text((450, 312), "each of the three graphs is matched with the barycenter, and the "
              "barycenter with it: six problems", FAINT, 13)  # fmt: skip
    draw.save("method-graphs.svg")


def matching_figure() -> None:
    """A real partial matching of six image nodes with the barycenter's."""
    torch.manual_seed(13)
    base = torch.randn(6, 3)
    image, rest = base + 0.8 * torch.randn(6, 3), base + 0.8 * torch.randn(6, 3)
    centre = barycenter(image, rest, rest)
    edges = build_edges(image, kind="knn", neighbours=2)[None]
    unary, quadratic = matching_costs(image[None], centre[None], edges)
    found = solve_matching(unary, quadratic, edges).assignment[0].tolist()
    draw = Drawing(900, 330, "A matching, and its distance to the right one")
    left = [(120.0, 50.0 + 45 * row) for row in range(6)]
    right = [(380.0, 50.0 + 45 * row) for row in range(6)]
    for asker, neighbour in edges[0].T.tolist():
        _arc(draw, left[asker], left[neighbour], -1, IMAGE)
        _arc(draw, right[asker], right[neighbour], 1, CENTRE)
    for node, partner in enumerate(found):
        if partner >= 0:
            good = partner == node
            draw.line([left[node], right[partner]], EXTENDED if good else "#c1121f", 2.4)
    for row in range(6):
        draw.dot(left[row], IMAGE, 12, str(row + 1))
        draw.dot(right[row], CENTRE, 12, str(row + 1))
    draw.text((120, 22), "x", IMAGE, 16, weight="bold")
    draw.text((380, 22), "b", CENTRE, 16, weight="bold")
    wrong = sum(partner != node for node, partner in enumerate(found))
    extra = sum(partner not in (node, -1) for node, partner in enumerate(found))
    lines = [
        ("a line: a node is matched,", "it costs U[i, k]"),
        ("an edge that lands on an edge:", "it costs Q[e, f]"),
        ("no line: the node stays alone,", "it costs nothing"),
        (f"here: {6 - wrong} of 6 nodes find themselves,", f"{extra} find another, "
         f"{wrong - extra} none: Hamming {wrong} + {extra} = {wrong + extra}"),
    ]  # fmt: skip
    for number, (first, second) in enumerate(lines):
        draw.text((520, 62 + 66 * number), first, INK, 15, anchor="start", weight="bold")
        draw.text((520, 82 + 66 * number), second, INK, 15, anchor="start")
    draw.save("method-matching.svg")


def gradient_figure(perturbations: Sequence[float] = (0.4, 1.2)) -> None:
    """The loss along a line of costs: a staircase, and what lambda makes of it."""
    rng = np.random.default_rng(5)
    nodes = 4
    costs, direction = rng.normal(-0.4, 0.6, (nodes, nodes)), rng.normal(0, 1, (nodes, nodes))
    choices = _all_matchings(nodes)
    losses = np.array([np.abs(each - np.eye(nodes)).sum() / nodes for each in choices])
    flat = np.array([each.ravel() for each in choices])
    places = np.linspace(-1.6, 1.6, 641)
    curves: dict[str, list[float]] = {"loss": []} | {f"{lam}": [] for lam in perturbations}
    for place in places:
        energy = flat @ (costs + place * direction).ravel()
        best = int(energy.argmin())
        curves["loss"].append(losses[best])
        for lam in perturbations:
            moved = int((energy + lam * losses).argmin())
            curves[f"{lam}"].append(losses[moved] - (energy[best] - energy[moved]) / lam)
    draw = Drawing(900, 330, "A loss in steps, and the slope that a perturbation gives it")
    colours = dict(zip(curves, (INK, IMAGE, ANSWER), strict=True))
    low = min(map(min, curves.values()))
    high = max(map(max, curves.values()))
    for name, values in curves.items():
        points = [
            (60 + 560 * (place + 1.6) / 3.2, 285 - 245 * (value - low) / (high - low))
            for place, value in zip(places, values, strict=True)
        ]
        draw.line(points, colours[name], 2.4 if name == "loss" else 2.0)
    draw.line([(55, 20), (55, 290), (640, 290)], FAINT, 1.2)
    draw.text((350, 318), "costs, moved along one direction", FAINT, 13)
    draw.text((20, 14), "loss", FAINT, 13, anchor="start")
    notes = [
        ("the loss of the matching", "flat almost everywhere: its gradient is 0", INK),
        (f"with λ = {perturbations[0]}", "slopes appear near the steps", IMAGE),
        (f"with λ = {perturbations[1]}", "and reach further; (X' - X) / λ is this slope", ANSWER),
    ]
    for number, (first, second, colour) in enumerate(notes):
        top = 70 + 80 * number
        draw.line([(640, top - 5), (665, top - 5)], colour, 3)
        draw.text((675, top), first, colour, 14, anchor="start", weight="bold")
        for row, part in enumerate(second.split(": ") if ": " in second else second.split("; ")):
            draw.text((675, top + 20 + 18 * row), part, INK, 12, anchor="start")
    draw.save("method-gradient.svg")


def _all_matchings(nodes: int) -> list[np.ndarray]:
    """Every partial matching as a 0/1 matrix [nodes, nodes]."""
    found = {}
    for kept in itertools.product((False, True), repeat=nodes):
        for order in itertools.permutations(range(nodes)):
            matrix = np.zeros((nodes, nodes))
            for row in range(nodes):
                matrix[row, order[row]] = float(kept[row])
            found[matrix.tobytes()] = matrix
    return list(found.values())


def _places(nodes: torch.Tensor, left: float, top: float, width: float, height: float) -> list:
    low, high = nodes.min(0).values, nodes.max(0).values
    scaled = (nodes - low) / (high - low)
    return [
        (left + 14 + (width - 28) * x, top + 14 + (height - 28) * y) for x, y in scaled.tolist()
    ]


def _shorten(start: Point, end: Point, by: float = 13) -> list[Point]:
    length = math.dist(start, end) or 1
    step = ((end[0] - start[0]) / length * by, (end[1] - start[1]) / length * by)
    return [(start[0] + step[0], start[1] + step[1]), (end[0] - step[0], end[1] - step[1])]


def _arc(draw: Drawing, start: Point, end: Point, side: int, colour: str) -> None:
    """A bent edge beside a column of nodes; it starts and ends at the nodes' rims."""
    bend = side * (10 + 0.3 * abs(end[1] - start[1]))
    drop = 4 if end[1] > start[1] else -4
    points = [
        (
            start[0] + side * 13 + bend * math.sin(math.pi * place),
            start[1] + drop + (end[1] - start[1] - 2 * drop) * place,
        )
        for place in np.linspace(0, 1, 17)
    ]
    draw.line(points, colour, 1.1, tip="yes", opacity="0.6")


if __name__ == "__main__":
    step_figure()
    graphs_figure()
    matching_figure()
    gradient_figure()
