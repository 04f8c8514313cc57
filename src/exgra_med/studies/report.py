"""The page of a study: the answer first, then figures, tests, and what all that does not show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.evaluation.report.content import NOTICE
from exgra_med.evaluation.report.environment import template_environment, template_text
from exgra_med.studies.conclude import percent
from exgra_med.studies.diagnostics_plot import along_training_figure, histogram_figure
from exgra_med.studies.plot import Drawing, curve_figure, difference_figure
from exgra_med.studies.table import COMPARISON_COLUMNS, blocks, comparison_rows

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class CellRow:
    """One run, for the list of runs."""

    title: str
    fraction: str
    seed: int
    value: str
    steps: str
    splits: str
    folder: str


def render_report(results: dict[str, Any], failed: Sequence[tuple[str, str]] = ()) -> str:
    """The page; it needs no network, no other file and no script.

    Args:
        results: from `outcome.write_results`.
        failed: nodes that failed or were not run, each with its sentence.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    return _render(
        "study.html.j2",
        results,
        failed=failed,
        css=template_text("report.css"),
        study_css=study_css(),
        notice=NOTICE,
        runs=[_cell_row(results, cell) for cell in results["cells"]],
        provenance=provenance(results),
    )


def render_fragment(results: dict[str, Any]) -> str:
    """The answer, the figures, the tests and the limits, to stand in another page.

    Args:
        results: as for `render_report`; `study_css` goes into the page's head.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    return _render("study_fragment.html.j2", results, failed=())


def study_css() -> str:
    """Style of what a study adds to the report's."""
    return (_TEMPLATES / "study.css").read_text(encoding="utf-8")


def _render(template: str, results: dict[str, Any], **values: Any) -> str:
    return (
        template_environment(True, _TEMPLATES)
        .get_template(template)
        .render(
            results=results,
            blocks=blocks(results),
            percent=percent,
            columns=COMPARISON_COLUMNS,
            comparisons=comparison_rows(results),
            figures=figures(results),
            budgets=budget_sentences(results),
            limits=limits(results),
            **values,
        )
    )


def figures(results: dict[str, Any]) -> list[Drawing]:
    """Every figure that the results allow."""
    drawn = [
        curve_figure(results, with_paper=results["published"] is not None),
        difference_figure(results),
        along_training_figure(results),
        histogram_figure(results),
    ]
    return [each for each in drawn if each is not None]


def budget_sentences(results: dict[str, Any]) -> list[str]:
    """What matched controls were given, one sentence an arm and fraction."""
    told: dict[tuple[str, float], str] = {}
    for cell in results["cells"]:
        budget = cell["budget"]
        if budget is None:
            continue
        other = results["arms"].get(budget["method"], {}).get("title", budget["method"])
        told.setdefault(
            (cell["arm"], cell["fraction"]),
            f"{results['arms'][cell['arm']]['title']}, {percent(cell['fraction'])}: "
            f"{budget['num_steps']} steps instead of {budget['num_steps_of_reference']}, which is "
            f"{100 * budget['spent']:.1f} % of the {budget['by']} of {other}.",
        )
    return list(told.values())


def limits(results: dict[str, Any]) -> list[str]:
    """Sentences of the section "what this does not show"."""
    sentences = []
    if results["is_toy"]:
        sentences.append(
            "The models are toys made for this study. It shows how the methods behave beside one "
            "another at this size, not what they do at the size of the paper."
        )
    if results["makes_data"]:
        sentences.append(
            f"The data is made ({results['makes_data']}), not medical: its questions are balanced "
            "and its truth is known, which real data never offers."
        )
    if results["published"] is not None:
        sentences.append(
            "The published numbers are of other models, other data and another score. They stand "
            "beside this study to show what was claimed; no difference between the two is formed."
        )
    if any(not p["seeds_counted"] for a in results["arms"].values() for p in a["points"]):
        sentences.append(
            "Where there is one seed, neither interval nor test knows how much another seed would "
            "change the score."
        )
    if any(cell["budget"] for cell in results["cells"]):
        sentences.append(
            "Equal tokens and equal compute are counted from mean lengths of the records; time "
            "spent in the matching solver and in held-out measurements is not part of them."
        )
    return [
        *sentences,
        "Hyper-parameters were chosen once for all methods; a method may do better with its own.",
        "“No difference was found” is not “there is none”: see what each comparison could find.",
        "It is no clinical evidence: nothing here shows that a model is safe or useful for any "
        "patient.",
    ]


def provenance(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What the numbers come from."""
    questions = results["questions"] or {}
    software = {
        f"exgra-med {s['exgra_med']}, commit {s['git_commit']}, "
        f"torch {s['versions'].get('torch')}, transformers {s['versions'].get('transformers')}"
        for s in (cell["software"] for cell in results["cells"])
    }
    bootstrap = results["bootstrap"]
    return [
        ("study", f"{results['study']}, scale {results['scale'] or 'as written'}"),
        ("score", str(results["metric"])),
        ("questions", f"{questions.get('dataset')}, {questions.get('split')} split"),
        ("data: sha256 of the manifest", str(questions.get("data_fingerprint"))),
        ("resamples", f"{bootstrap['num_bootstrap_samples']}, seed {bootstrap['seed']}"),
        *(("software", each) for each in sorted(software)),
    ]


def _cell_row(results: dict[str, Any], cell: dict[str, Any]) -> CellRow:
    splits = ", ".join(
        f"{name} {score:.1f}" for name, score in cell["splits"].items() if score is not None
    )
    return CellRow(
        title=results["arms"][cell["arm"]]["title"],
        fraction=percent(cell["fraction"]),
        seed=cell["seed"],
        value=f"{cell['value']:.1f}",
        steps=", ".join(f"{name} {count}" for name, count in cell["num_steps"].items()),
        splits=splits,
        folder=cell["folder"],
    )
