"""Everything a report says, gathered from a run folder before anything is drawn."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError, RunError, ScoreError
from exgra_med.evaluation.answers import pair, question_of, read_predictions
from exgra_med.evaluation.baselines import BASELINE_LABELS
from exgra_med.evaluation.engines import facts_path
from exgra_med.evaluation.published import PUBLISHED, SOURCE
from exgra_med.evaluation.report.examples import Examples, pick_examples
from exgra_med.evaluation.report.figures import StageCurves, read_log
from exgra_med.evaluation.report.tables import (
    Cell,
    Column,
    Row,
    Table,
    baseline_table,
    cell,
    entry_table,
    group_table,
    overview_table,
)
from exgra_med.evaluation.results import Entry, read_results
from exgra_med.evaluation.run_folder import answered_questions, answers_file, read_recipe
from exgra_med.evaluation.statistics import smallest_difference
from exgra_med.evaluation.tasks import Task, tasks

NOTICE = (
    "Research use only. Nothing here is clinical advice, and no answer may be used to diagnose or "
    "treat anyone."
)
_CLOSED_LABELS = {
    "macro_f1": "macro F1 over the answers that occur",
    "balanced_accuracy": "balanced accuracy over the answers that occur",
    "yes_true_rate": "of the questions answered by yes, right",
    "no_true_rate": "of the questions answered by no, right",
    "yes_share": "“yes” among the yes/no answers",
    "abstentions": "abstentions (wrong)",
    "several_options": "several options named (wrong)",
    "parse_failures": "no option recognised or no answer (wrong)",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the first screen."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class Block:
    """A table with what is said about it."""

    title: str
    table: Table
    under: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of the results."""

    id: str
    """For links within the page."""
    nav: str
    """Short, for the list of links."""
    block: Block
    further: list[Block] = field(default_factory=list)
    """Baselines and published numbers beside the scores."""
    details: list[Block] = field(default_factory=list)
    """Parts of the scores."""
    examples: Examples | None = None
    """Questions with pictures and answers."""
    examples_problem: str = ""
    """Why there are none; empty for a task without any."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the page and the cards are made of."""

    name: str
    description: str
    is_toy: bool
    notice: str
    verdict: str
    tiles: list[Tile]
    overview: Block | None
    parts: list[Part]
    entries: list[Entry]
    stages: list[StageCurves]
    provenance: list[tuple[str, str]]
    limits: list[str]


def gather(run: Path, data_folder: str | None = None) -> Content:
    """Read a run folder.

    Args:
        run: folder with `recipe.yaml`, and as far as there: `record.json`, `log.jsonl`,
            `results.json`, and the answers.
        data_folder: the prepared folder that was answered, where it is not at its place; of several
            data sets the one that it holds.

    Raises:
        RunError: the folder is no run, or a file in it cannot be read.
    """
    recipe = read_recipe(run)
    entries = read_results(run).results
    record = _read_object(run / "record.json")
    stages = read_log(run / "log.jsonl")
    is_toy = bool((recipe.get("model") or {}).get("architecture"))
    vqa = [each for each in entries if each.task == "vqa"]
    known = tasks()
    overview = Block("Every data set", overview_table(vqa)) if len(vqa) > 1 else None
    # In the order of the tasks, each task's entries in the order of the file.
    order = [each for name in known for each in entries if each.task == name]
    parts = [
        _part(run, recipe, entry, known[entry.task], f"part-{number}", data_folder)
        for number, entry in enumerate(order, start=1)
    ]
    return Content(
        name=str(recipe.get("name") or run.name),
        description=str(recipe.get("description") or ""),
        is_toy=is_toy,
        notice=NOTICE,
        verdict=verdict(vqa),
        tiles=[*_score_tiles(vqa[:1]), *_training_tiles(stages)],
        overview=overview,
        parts=parts,
        entries=entries,
        stages=stages,
        provenance=_provenance(run, recipe, record, entries),
        limits=limits(entries, is_toy),
    )


def verdict(entries: Sequence[Entry]) -> str:
    """The first sentence: the score, and whether it can be told apart from answering blindly."""
    if not entries or entries[0].score("strict", "average").value is None:
        return "This run has not been scored on questions yet."
    entry = entries[0]
    average = cell(entry.score("strict", "average"))
    where = f" on {entry.label}" if len(entries) > 1 else ""
    sentence = f"The strict average{where} is {average.text} %."
    blind = (entry.details.get("baselines") or {}).get("text_nearest") or {}
    score = ((blind.get("scores") or {}).get("strict") or {}).get("average") or {}
    if score.get("value") is None:
        return sentence
    lookup = f"{score['value']:.1f} % of a lookup that never sees an image"
    bounds = ((blind.get("difference") or {}).get("average") or {}).get("interval")
    if bounds is None:
        return f"{sentence} It stands beside the {lookup}."
    if bounds[0] > 0:
        return f"{sentence} It is above the {lookup}, by more than chance on these questions."
    if bounds[1] < 0:
        return f"{sentence} It is below the {lookup}, by more than chance on these questions."
    return f"{sentence} It cannot be told apart from the {lookup}."


def limits(entries: Sequence[Entry], is_toy: bool) -> list[str]:
    """Sentences of the section "what this does not show"; every run gets its own list."""
    vqa = [each for each in entries if each.task == "vqa"]
    sentences = []
    if is_toy:
        sentences.append(
            "The model is a toy: it was built from sizes in the recipe with random weights and "
            "started from no pretrained checkpoint. Its scores show that the path works, and say "
            "nothing about ExGra-Med at full size."
        )
    sentences += [sentence for entry in vqa for sentence in _about_the_numbers(entry)]
    if any("same_image_nearest" in (each.details.get("baselines") or {}) for each in vqa):
        sentences.append(
            "Images of the test questions also occur in the data set's own training split, so for "
            "a model that learned from it the score does not show how it does on new patients; the "
            f"baseline “{BASELINE_LABELS['same_image_nearest']}” is what that alone is worth."
        )
    if any(not each.details.get("baselines") for each in vqa):
        sentences.append("No baseline was computed, so the score lacks its best comparison.")
    if vqa and not any(each.task == "reliance" for each in entries):
        sentences.append(
            "Whether the model looks at the image is not shown: the same questions with blank, "
            "noise or shuffled images were not asked."
        )
    sentences += [
        "One run with one seed: how much another seed would change the score is not in the "
        "intervals, which cover the choice of images only.",
        "The legacy score repeats published rules, defects included; compare it only with numbers "
        "made by the same rules, the same split and the same denominators.",
        "It is no clinical evidence: short answers about teaching-file images do not show that "
        "a model is safe or useful for any patient.",
    ]
    return sentences


def _about_the_numbers(entry: Entry) -> list[str]:
    bounds = entry.score("strict", "average").interval
    if not bounds:
        return []
    half = (bounds[1] - bounds[0]) / 2
    if half == 0:
        return [
            "All images score the same, so the interval has no width; that says nothing about how "
            "far another run may be."
        ]
    # Two independent runs: their difference has the error of both.
    visible = smallest_difference(half / 1.96 * 2**0.5)
    strict = (entry.details.get("scorers") or {}).get("strict") or {}
    return [
        f"With {strict.get('num_open')} open and {strict.get('num_closed')} closed questions about "
        f"{strict.get('num_images')} images of {entry.label}, two separate models must differ by "
        f"about {visible:.0f} points of the average before this test would find it four times in "
        "five; comparing them question by question (exgra-med evaluate compare) can see less."
    ]


def _part(
    run: Path,
    recipe: dict[str, Any],
    entry: Entry,
    task: Task,
    name: str,
    data_folder: str | None,
) -> Part:
    block = Block(
        f"{task.title}: {entry.label}", entry_table(entry, task), task.about, task.notes(entry)
    )
    details = [
        Block(title, group_table(groups, task.measures()))
        for title, groups in task.groups(entry).items()
    ]
    nav = f"{task.title}, {entry.dataset}"
    if entry.task != "vqa":
        return Part(name, nav, block, details=details)
    examples, problem = _examples(run, recipe, entry, data_folder)
    closed = _closed_block(entry)
    return Part(
        name,
        nav,
        block,
        further=[each for each in (_baseline_block(entry), _published_block(entry)) if each],
        details=[*([closed] if closed else []), *details],
        examples=examples,
        examples_problem=problem,
    )


def _baseline_block(entry: Entry) -> Block | None:
    table = baseline_table(entry)
    if table is None:
        return None
    return Block(
        "Beside the baselines",
        table,
        "What the same questions give without looking, or without thinking. The last column "
        "compares model and baseline question by question; an interval that holds 0 means they "
        "cannot be told apart.",
        _leak_notes(entry),
    )


def _leak_notes(entry: Entry) -> list[str]:
    """What of the test set is in the training split beside it."""
    leaks = entry.details.get("leaks") or {}
    if not leaks:
        return []
    counts, total = leaks["counts"], leaks["num_questions"]
    notes = [
        f"Of {total} test questions, {counts['image']} are about an image of the data set's own "
        f"training split, {counts['question_text']} have a text that occurs there, and "
        f"{counts['image_and_question']} repeat image and text. What this model was trained on is "
        "another matter, unless it was that split."
    ]
    clean = leaks.get("clean")
    if clean and counts["image"]:
        average = cell(clean["scores"].get("average"))
        bounds = f" (95 % interval {average.bounds})" if average.bounds else ""
        notes.append(
            f"On the {clean['num_open']} + {clean['num_closed']} questions about other images the "
            f"strict average is {average.text} %{bounds}."
        )
    elif not clean:
        notes.append("No test question is about another image, so there is no clean score.")
    return notes


def _published_block(entry: Entry) -> Block | None:
    published = PUBLISHED.get(entry.dataset, ())
    legacy = cell(entry.score("legacy", "average"))
    if not published or legacy.value is None:
        return None
    rows = [Row(each.model, [f"{each.average:.2f}"]) for each in published]
    return Block(
        "Published averages",
        Table([Column("Average, %")], rows),
        f"{SOURCE}. They can stand beside the legacy average {legacy.text} only where split, "
        "denominators and fine-tuning are the same.",
    )


def _closed_block(entry: Entry) -> Block | None:
    strict = (entry.details.get("scorers") or {}).get("strict") or {}
    closed = strict.get("closed_answers") or {}
    rows = [
        Row(label, [Cell(closed[name])])
        for name, label in _CLOSED_LABELS.items()
        if closed.get(name) is not None
    ]
    return Block("Closed answers", Table([Column("%")], rows)) if rows else None


def _examples(
    run: Path, recipe: dict[str, Any], entry: Entry, data_folder: str | None
) -> tuple[Examples | None, str]:
    """Cards, or why there are none; a report without pictures is still a report."""
    try:
        file = answers_file(run, entry)
        if not file.is_file():
            return None, "This run has no stored answers."
        asked = answered_questions(run, entry, data_folder)
        pairing = pair(
            read_predictions(file).predictions, [question_of(record) for record in asked.records]
        )
    except (DataError, RunError, ScoreError) as error:
        return None, f"The questions are not at hand: {error.message}"
    number = int((recipe.get("evaluation") or {}).get("num_report_images", 12))
    images = asked.prepared.image_folder(asked.max_pixels)
    return pick_examples(pairing, images, number, int(recipe.get("seed") or 0)), ""


def _score_tiles(entries: Sequence[Entry]) -> list[Tile]:
    tiles = []
    for entry in entries:
        for scorer in ("strict", "legacy"):
            score = cell(entry.score(scorer, "average"))
            if score.value is not None:
                detail = f"95 % interval {score.bounds}" if score.bounds else "no interval"
                tiles.append(Tile(f"{scorer} score", f"{score.text} %", detail))
    return tiles


def _training_tiles(stages: Sequence[StageCurves]) -> list[Tile]:
    """Matching accuracy and alignment loss on held-out records, of the last stage that aligned."""
    tiles = []
    for stage in [each for each in stages if each.held_out["matching_accuracy"].values][-1:]:
        accuracy = stage.held_out["matching_accuracy"].values
        value = f"{100 * accuracy[0]:.0f} → {100 * accuracy[-1]:.0f} %"
        tiles.append(Tile("matching accuracy", value, "held out, without noise"))
        loss = stage.held_out["alignment_loss"].values
        if loss:
            tiles.append(Tile("alignment loss", f"{loss[0]:.2f} → {loss[-1]:.2f}", "held out"))
    return tiles


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: cannot be read as JSON.") from error
    return value if isinstance(value, dict) else {}


def _provenance(
    run: Path, recipe: dict[str, Any], record: dict[str, Any], entries: Sequence[Entry]
) -> list[tuple[str, str]]:
    rows = [
        ("recipe", str(recipe.get("name") or run.name)),
        ("seed", str(recipe.get("seed", 0))),
    ]
    for entry in entries:
        rows += _entry_provenance(run, entry)
    return rows + _flat({key: value for key, value in record.items() if key != "recipe"}, "")


def _entry_provenance(run: Path, entry: Entry) -> list[tuple[str, str]]:
    about = f"{entry.task}, {entry.label}"
    rows = []
    if entry.answers:
        file = answers_file(run, entry, next(iter(entry.answers)))
        rows += _flat(_read_object(facts_path(file)), about)
    if entry.data_fingerprint:
        rows.append((f"{about}: sha256 of the data's manifest", entry.data_fingerprint))
    strict = (entry.details.get("scorers") or {}).get("strict") or {}
    if strict:
        versions = f"{strict.get('scorer_version')}, {strict.get('normaliser_version')}"
        bootstrap = strict.get("bootstrap") or {}
        rows += [
            (f"{about}: strict scorer, normaliser", versions),
            (
                f"{about}: intervals",
                f"95 %, {bootstrap.get('samples')} resamples of {strict.get('num_images')} images, "
                f"seed {bootstrap.get('seed')}",
            ),
        ]
    return rows


def _flat(value: Any, name: str) -> list[tuple[str, str]]:
    """Nested facts as rows `a: b`, so that a record of any shape can be shown."""
    if isinstance(value, dict):
        return [
            row
            for key, item in value.items()
            for row in _flat(item, f"{name}: {_words(key)}" if name else _words(key))
        ]
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    return [(name, "–" if value is None else str(value))]


def _words(key: Any) -> str:
    return str(key).replace("_", " ")
