"""The table of a study as Markdown, LaTeX or CSV; published numbers in a block of their own.

Published numbers join the study's table only where they are the same score of the same data.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import SHORT_DIGEST
from exgra_med.evaluation.published import CURVE_METRIC, CURVES, curves_of
from exgra_med.evaluation.report.page import plain
from exgra_med.evaluation.tables import Cell, bounded
from exgra_med.lab.studies.compare import told_apart
from exgra_med.lab.studies.conclude import percent

FORMATS = ("markdown", "latex", "csv")


@dataclass(frozen=True)
class Row:
    """One line: a method, and its score at each fraction."""

    title: str
    cells: list[Cell]
    each: list[str]
    """Every seed at each fraction, as text."""
    is_baseline: bool = False


@dataclass(frozen=True)
class Block:
    """Rows that may be compared with one another."""

    caption: str
    metric: str
    fractions: list[float]
    rows: list[Row]


def blocks(results: dict[str, Any]) -> list[Block]:
    """The study's own block, one for each further outcome and each part of a test, then the
    published one where there is one."""
    own = _own(results)
    others = [
        _block(f"{results['study']}: {name}; {_MEAN}", results, each["arms"])
        for name, each in results.get("outcomes", {}).items()
    ]
    parts = [
        _block(
            f"{results['study']}: {name}, {each['num_questions']} questions on "
            f"{each['num_images']} images; {_MEAN}; reported, not tested",
            results,
            each["arms"],
        )
        for name, each in results.get("parts", {}).items()
    ]
    return [own, *others, *parts, *_published(results, own.fractions)]


def one_block(results: dict[str, Any]) -> Block:
    """Study and publication in one block.

    Raises:
        ScoreError: they are not the same score of the same data.
    """
    own = _own(results)
    others = _published(results, own.fractions)
    if not others:
        return own
    (published,) = others
    dataset = (results["questions"] or {}).get("dataset")
    if own.metric != published.metric or dataset != results["published"]["dataset"]:
        raise ScoreError(
            f"The study's score ({own.metric}, {dataset}) is not the published one "
            f"({published.metric}, {results['published']['dataset']}), so they are not put in one "
            "comparison.",
            "Print them apart, which is what the table does without --together.",
        )
    return Block(own.caption, own.metric, own.fractions, own.rows + published.rows)


def comparison_rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Every comparison as text: method (and outcome, where it is another than the score), fraction,
    difference, interval, p (Holm), p, detectable, told apart."""
    told = [("", each) for each in results["comparisons"]]
    for name, outcome in results.get("outcomes", {}).items():
        told += [(f" ({name})", each) for each in outcome["comparisons"]]
    return [
        (
            results["arms"][each["arm"]]["title"] + of_what,
            "all" if each["fraction"] is None else percent(each["fraction"]),
            cell.signed,
            cell.bounds or "–",
            *(f"{each[p]:.2g}" for p in ("p_holm", "p", "p_images")),
            # Equal scores have no spread, from which nothing follows.
            "–" if each.get("same_scores") else f"{each['detectable']:.1f}",
            "yes" if told_apart(each) else "no",
        )
        for of_what, each in told
        for cell in [bounded(each["value"], each["interval"])]
    ]


COMPARISON_COLUMNS = (
    "method", "data", "difference", "95 % interval", "p (Holm)", "p", "p, images only",
    "could find", "told apart",
)  # fmt: skip


def render(results: dict[str, Any], form: str, together: bool = False) -> str:
    """The tables of a study; `together` puts published numbers into the study's own.

    Raises:
        ScoreError: no such format, or the numbers may not be put together.
    """
    shown = [one_block(results)] if together else blocks(results)
    if form == "markdown":
        return _markdown(results, shown)
    if form == "latex":
        return "\n".join(map(_latex, shown))
    if form == "csv":
        return _csv(results, shown)
    raise ScoreError(f"There is no table format {form!r}.", f"Known are {', '.join(FORMATS)}.")


_MEAN = "mean over seeds (95 % interval over images and seeds)"


def _own(results: dict[str, Any]) -> Block:
    questions = results["questions"] or {}
    caption = (
        f"{results['study']}: {questions.get('dataset', '–')}, {questions.get('split', '–')} "
        f"split, {questions.get('num_open', 0)} open and {questions.get('num_closed', 0)} closed "
        f"questions on {questions.get('num_images', 0)} images; {_MEAN}"
    )
    return _block(caption, results, results["arms"])


def _block(caption: str, results: dict[str, Any], arms: dict[str, Any]) -> Block:
    fractions = sorted({point["fraction"] for arm in arms.values() for point in arm["points"]})
    rows = []
    for name, arm in arms.items():
        points = {point["fraction"]: point for point in arm["points"]}
        found = [points.get(fraction) for fraction in fractions]
        cells = [bounded(p["value"], p["interval"]) if p else Cell(None) for p in found]
        each = [", ".join(f"{v:.1f}" for v in point["each"]) if point else "" for point in found]
        rows.append(Row(arm["title"], cells, each, name == results["baseline"]))
    return Block(caption, str(results["metric"]), fractions, rows)


def _published(results: dict[str, Any], fractions: Sequence[float]) -> list[Block]:
    named = results["published"]
    chosen = curves_of(named)
    if not chosen:
        return []
    shares = sorted({*fractions, *(share for *_, curve in chosen for share in curve)})
    rows = [
        Row(name, [Cell(curve.get(share)) for share in shares], [""] * len(shares))
        for _, name, curve in chosen
    ]
    caption = (
        f"Published on {named['dataset']}, another score and not comparable with the table above: "
        f"{CURVES[named['dataset']].source}"
    )
    return [Block(caption, CURVE_METRIC, shares, rows)]


def _markdown(results: dict[str, Any], shown: Sequence[Block]) -> str:
    lines = [f"# {plain(results['study'])}", "", plain(results["description"]), ""]
    lines += [f"- {plain(sentence)}" for sentence in results["conclusion"]] + [""]
    for block in shown:
        lines += [plain(block.caption) + ".", "", f"Score: {plain(block.metric)}.", ""]
        lines += _markdown_table(
            ["method", *map(percent, block.fractions)],
            [[plain(row.title), *(_with_bounds(cell) for cell in row.cells)] for row in block.rows],
        )
    if results["comparisons"]:
        title = results["arms"].get(results["baseline"], {}).get("title", results["baseline"])
        lines += [f"Minus {plain(title)}, in points, in pairs of equal seed and question.", ""]
        rows = [[plain(text) for text in row] for row in comparison_rows(results)]
        lines += _markdown_table(list(COMPARISON_COLUMNS), rows)
    if results["cells"]:
        lines += [plain(basis_sentence(results)), ""]
    lines += ["Research use only. Nothing here is clinical advice.", ""]
    return "\n".join(lines)


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return [f"| {' | '.join(line)} |" for line in (head, rule, *rows)] + [""]


def _with_bounds(cell: Cell) -> str:
    return f"{cell.text} ({cell.bounds})" if cell.bounds else cell.text


def _latex(block: Block) -> str:
    columns = "l" + "c" * len(block.fractions)
    head = " & ".join(["Method", *(percent(f).replace("%", r"\%") for f in block.fractions)])
    body = [
        " & ".join([_tex(row.title), *(_tex_cell(cell) for cell in row.cells)]) + r" \\"
        for row in block.rows
    ]
    rows = "\n".join([r"\hline", head + r" \\", r"\hline", *body, r"\hline"])
    return (
        f"% {block.metric}\n\\begin{{table}}\n\\caption{{{_tex(block.caption)}.}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n{rows}\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def _tex_cell(cell: Cell) -> str:
    text = cell.text.replace("−", "$-$").replace("–", "--")
    bounds = cell.bounds.replace("−", "$-$")
    return rf"{text} {{\footnotesize ({bounds})}}" if bounds else text


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def _csv(results: dict[str, Any], shown: Sequence[Block]) -> str:
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["method", "metric", "fraction", "mean", "low", "high", "seeds"]
    writer.writerow([*head, "questions", "answered", "missing", "empty", "unparsed", "sha256"])
    cells: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for each in results["cells"]:
        title = results["arms"][each["arm"]]["title"]
        cells.setdefault((title, each["fraction"]), []).append(each.get("basis") or {})
    for block in shown:
        for row in block.rows:
            for fraction, cell, each in zip(block.fractions, row.cells, row.each, strict=True):
                if cell.value is not None:
                    own = cells.get((row.title, fraction), []) if block is shown[0] else []
                    numbers = [cell.value, cell.low, cell.high]
                    about = [row.title, block.metric, fraction, *numbers, each]
                    writer.writerow([*about, *_basis_cells(own)])
    return stream.getvalue()


def _basis_cells(runs: Sequence[dict[str, Any]]) -> list[Any]:
    """Sums over the seeds of a number, and the digests of their files; None where not kept."""
    if not runs or any("questions" not in each for each in runs):
        return [None] * 6
    sums = [
        sum(each[name] for each in runs) for name in ("questions", "missing", "empty", "unparsed")
    ]
    digests = " ".join(each["sha256"][:SHORT_DIGEST] for each in runs)
    return [sums[0], sums[0] - sums[1], *sums[1:], digests]


def basis_text(cell: dict[str, Any]) -> str:
    """What stands behind the score of one run: `56 of 56 answered, 3 unparsed, sha256 0123...`."""
    basis = cell.get("basis") or {}
    if "questions" not in basis:
        return "not kept"
    rest = [f"{basis[name]} {name}" for name in ("missing", "empty", "unparsed") if basis[name]]
    answered = f"{basis['questions'] - basis['missing']} of {basis['questions']} answered"
    return ", ".join([answered, *rest, f"sha256 {basis['sha256'][:SHORT_DIGEST]}"])


def basis_sentence(results: dict[str, Any]) -> str:
    """The same of a whole study, in a sentence."""
    found = [each.get("basis") or {} for each in results["cells"]]
    known = [each for each in found if "questions" in each]
    if not known:
        return "How many questions each run answered was not kept when these results were written."
    asked = sum(each["questions"] for each in known)
    counts = {name: sum(each[name] for each in known) for name in ("missing", "empty", "unparsed")}
    return (
        f"Behind it: {len(known)} runs with {asked} questions, {asked - counts['missing']} "
        "answered, "
        + ", ".join(f"{number} {name}" for name, number in counts.items())
        + "; the digest of each file of answers is in results.json."
    )
