"""The page of a study: the answer first, then figures, tests, and what all that does not show."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exgra_med import files
from exgra_med.digests import DIGEST, read_document, write_document
from exgra_med.errors import DamagedFileError, ExgraMedError, RecipeError, RunError
from exgra_med.evaluation.published import curves_of
from exgra_med.evaluation.report.page import NOTICE, template_environment
from exgra_med.evaluation.tasks.vqa import strongest_blind
from exgra_med.lab.studies.collect import Collected, collect
from exgra_med.lab.studies.compare import TOLD_APART, adjust, arm_curves, compare_arms
from exgra_med.lab.studies.conclude import conclude, percent
from exgra_med.lab.studies.differing import Differing, count_differing, find_differing
from exgra_med.lab.studies.figures import (
    Drawing,
    along_training_figure,
    curve_figure,
    difference_figure,
    histogram_figure,
    questions_figure,
)
from exgra_med.lab.studies.folder import open_study, states
from exgra_med.lab.studies.plan import Node
from exgra_med.lab.studies.schema import STUDY_FILE, Study
from exgra_med.lab.studies.table import (
    COMPARISON_COLUMNS,
    basis_text,
    blocks,
    comparison_rows,
    render,
)
from exgra_med.page_style import PAGE_CSS

_TEMPLATES = Path(__file__).parent / "templates"


def render_report(
    results: dict[str, Any],
    failed: Sequence[tuple[str, str]] = (),
    differing: Differing | None = None,
) -> str:
    """The page, with a sentence for each failed node and pictures of questions where they are at
    hand; it needs no network, no other file and no script.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    return _render(
        "study.html.j2",
        results,
        differing,
        failed=failed,
        css=PAGE_CSS,
        study_css=study_css(),
        notice=NOTICE,
        runs=[_cell_row(results, cell) for cell in results["cells"]],
        provenance=provenance(results),
        repeat=repeat_command(results),
    )


def render_fragment(results: dict[str, Any]) -> str:
    """The answer, the figures, the tests and the limits, to stand in a page that has `study_css`.

    Raises:
        DamagedFileError: they were read from a file, and are not what a study writes.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    try:
        return _render("study_fragment.html.j2", results, failed=())
    except ExgraMedError:
        raise
    except Exception as error:
        # A file that was made by hand or by an earlier version has no digest to tell it by, and
        # templates have errors of their own.
        raise DamagedFileError(
            f"The results of the study cannot be shown ({type(error).__name__}: {error}).",
            f"Remove its {RESULTS_FILE}: `exgra-med study report` writes it anew.",
        ) from error


def study_css() -> str:
    """Style of what a study adds to the report's."""
    return (_TEMPLATES / "study.css").read_text(encoding="utf-8")


def _render(
    template: str, results: dict[str, Any], differing: Differing | None = None, **values: Any
) -> str:
    return (
        template_environment(True, _TEMPLATES)
        .get_template(template)
        .render(
            results=results,
            blocks=blocks(results),
            percent=percent,
            columns=COMPARISON_COLUMNS,
            comparisons=comparison_rows(results),
            told_apart=TOLD_APART,
            figures=figures(results, differing),
            budgets=budget_sentences(results),
            limits=limits(results),
            **values,
        )
    )


def figures(results: dict[str, Any], differing: Differing | None = None) -> list[Drawing]:
    """Every figure that the results allow; pictures of questions only where `differing` has some,
    because results hold nothing of a picture."""
    drawn = [
        curve_figure(results),
        difference_figure(results),
        None if differing is None else questions_figure(results, differing),
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
    if curves_of(results["published"]):
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


def repeat_command(results: dict[str, Any]) -> str:
    """What runs one cell of a study again, in a folder of its own.

    From the file in the study's folder, which has the scale and every `--set` written out.
    """
    names = [cell["folder"] for cell in results["cells"]] or ["NAME"]
    return f"exgra-med study run FOLDER/{STUDY_FILE} --out again --only {names[0]}"


def _cell_row(results: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any]:
    """One run, for the list of runs."""
    splits = cell["splits"].items()
    return {
        "title": results["arms"][cell["arm"]]["title"],
        "fraction": percent(cell["fraction"]),
        "seed": cell["seed"],
        "value": f"{cell['value']:.1f}",
        "steps": ", ".join(f"{name} {count}" for name, count in cell["num_steps"].items()),
        "basis": basis_text(cell),
        "splits": ", ".join(f"{name} {score:.1f}" for name, score in splits if score is not None),
        "folder": cell["folder"],
    }


SCHEMA_VERSION = 1
RESULTS_FILE, TABLE_FILE, PAGE_FILE = "results.json", "table.md", "report.html"


def write_results(folder: Path) -> dict[str, Any]:
    """Collect the finished cells of a study, compare them, and write `results.json`.

    Results are never overwritten by fewer: where runs that the stored ones have are not in the
    folder (a committed study has none beside), the file stays, and its content is returned.

    Returns:
        The results. Those that were stored before have `kept`, a sentence that says so.

    Raises:
        RecipeError: the study is none that this version can read, and has no results.
        RunError: there is no study, or the folder has runs that the stored results lack and lacks
            runs that they have.
        DamagedFileError: the stored results, or what a run is read from, are not what was written.
        ScoreError: the cells' numbers are not of one kind.
    """
    return write_results_and_pick(folder, pick=False)[0]


def write_results_and_pick(
    folder: Path, *, pick: bool = True
) -> tuple[dict[str, Any], Differing | None]:
    """See `write_results`; beside them questions that arms answer differently, with pictures, where
    they are to be picked and the results are of the runs in the folder."""
    # Damaged ones are not written over: the folder may lack runs that they have.
    is_first = not os.path.lexists(folder / RESULTS_FILE)
    stored: dict[str, Any] = {"cells": []} if is_first else read_study_results(folder)
    try:
        study, nodes = open_study(folder)
    except RecipeError as error:
        if not stored["cells"]:
            raise
        reason = error.message.replace(f"{folder / STUDY_FILE}: ", "").rstrip(".")
        kept = f"{STUDY_FILE} cannot be read by this version ({reason}): "
        return stored | {"kept": f"{kept}all this is of the numbers in {RESULTS_FILE}."}, None
    collected = collect(folder, study, nodes)
    results = study_results(study, nodes, collected)
    known, found = ({cell["folder"] for cell in each["cells"]} for each in (stored, results))
    if known - found:
        lost = sorted(known - found)
        gone = ", ".join(lost[:3]) + (" and others" if len(lost) > 3 else "")
        if found - known:
            raise RunError(
                f"{folder / RESULTS_FILE} has {len(known - found)} runs that are not in the folder "
                f"({gone}), and the folder has {len(found - known)} that it lacks: writing it anew "
                "would lose numbers.",
                "Bring the folders of the runs back, or move results.json away.",
            )
        kept = (
            f"{len(known - found)} of {len(known)} runs of {RESULTS_FILE} are not in this folder "
            f"({gone}): it was kept as it is, and all this is of the numbers in it."
        )
        return stored | {"kept": kept}, None
    write_document(folder / RESULTS_FILE, results)
    return results, find_differing(folder, study, collected) if pick else None


def read_study_results(folder: Path) -> dict[str, Any]:
    """The results of a study as they were last written.

    Raises:
        RunError: there are none, or they are of another version.
        DamagedFileError: they are not what was written.
    """
    path = folder / RESULTS_FILE
    if not os.path.lexists(path):
        raise RunError(f"{folder}: the study has no results yet.", "Run it first.")
    again = f"Remove it: exgra-med study report {folder} writes it anew from the runs in there."
    results = read_document(path, f"{again} If it was changed on purpose, delete `{DIGEST}` in it.")
    if results.get("schema_version") != SCHEMA_VERSION:
        raise RunError(f"{path} is not of version {SCHEMA_VERSION}.", again)
    cells = results.get("cells")
    if not isinstance(cells, list) or not all(isinstance(e, dict) and "folder" in e for e in cells):
        raise DamagedFileError(f"{path} names no runs.", again)
    return results


def study_results(study: Study, nodes: list[Node], collected: Collected) -> dict[str, Any]:
    """Everything about a study that its table, figures and report are made of."""
    statistics = compare_arms(study, collected)
    statistics["differing"] = count_differing(study, collected)
    others = {name: compare_arms(study, each) for name, each in collected.others.items()}
    adjust([row for each in (statistics, *others.values()) for row in each["comparisons"]])
    first = collected.scores[0] if collected.scores else None
    # The study's metric for the strongest baseline that sees no picture.
    baselines = {} if first is None else first.facts["baselines"]
    floor = strongest_blind(baselines)
    blind = None if floor is None else baselines[floor]
    num_closed = sum(question.answer_type == "CLOSED" for question in collected.questions)
    return {
        "schema_version": SCHEMA_VERSION,
        "study": study.name,
        "description": study.description,
        "scale": study.scale,
        "baseline": study.baseline,
        "metric": None if first is None else first.metric,
        "questions": None
        if first is None
        else {
            "dataset": first.dataset,
            "split": first.split,
            "data_fingerprint": first.data,
            "num_open": len(collected.questions) - num_closed,
            "num_closed": num_closed,
            "num_images": int(collected.clusters.max()) + 1,
        },
        "bootstrap": study.evaluation.model_dump(mode="json"),
        "fraction_stage": study.stage,
        "published": None if study.published is None else study.published.model_dump(mode="json"),
        "makes_data": None if study.make.data is None else study.make.data.source,
        # The model was made for the study, from nothing.
        "is_toy": any(
            (study.recipe.model.architecture, study.make.parts is not None, study.make.base)
        ),
        **statistics,
        "outcomes": others,
        "parts": {
            name: {
                "arms": arm_curves(study, each),
                "num_questions": len(each.questions),
                "num_images": int(each.clusters.max()) + 1,
            }
            for name, each in collected.parts.items()
        },
        "conclusion": conclude(
            study, statistics, collected.missing, blind, unanswered(collected), others
        ),
        "missing": collected.missing,
        "num_cells": sum(node.cell is not None for node in nodes),
        "cells": [
            asdict(score.cell)
            | {"arm": score.cell.arm, "folder": score.folder, "value": score.value}
            | score.facts
            for score in collected.scores
        ],
    }


def unanswered(collected: Collected) -> dict[str, int]:
    """Arms with questions that a run did not answer, and how many; empty where all are answered."""
    found: dict[str, int] = {}
    for score in collected.scores:
        if number := score.facts["unanswered"]:
            found[score.cell.arm] = found.get(score.cell.arm, 0) + number
    return found


def write_outcome(folder: Path) -> dict[str, Any]:
    """Write everything that a study ends with: results, table, figures, page.

    Returns:
        The results, with the path of the page as `report`.

    Raises:
        RunError, ScoreError: see `write_results`.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    results, differing = write_results_and_pick(folder)
    kept = results.pop("kept", None)
    files.write_text(folder / TABLE_FILE, render(results, "markdown"))
    write_figures(folder, results, differing)
    failed = []
    if kept is None:
        failed = [
            (name, attempt.sentence)
            for name, attempt in states(folder, *open_study(folder)).items()
            if attempt.state in ("failed", "not run")
        ]
    else:
        results = results | {"conclusion": [kept, *results["conclusion"]]}
    files.write_text(folder / PAGE_FILE, render_report(results, failed, differing))
    return results | {"report": folder / PAGE_FILE}


def write_figures(
    folder: Path, results: dict[str, Any], differing: Differing | None = None
) -> list[Path]:
    """Write every figure as an SVG of its own; `figure.svg` is the first one."""
    written = []
    for number, drawing in enumerate(figures(results, differing)):
        path = folder / ("figure.svg" if number == 0 else f"figure-{drawing.name}.svg")
        files.write_text(path, drawing.alone)
        written.append(path)
    return written
