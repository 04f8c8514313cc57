"""Everything a report says, gathered from a run folder before anything is drawn."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError, RunError, ScoreError
from exgra_med.evaluation.pairing import pair
from exgra_med.evaluation.predict import facts_path
from exgra_med.evaluation.predictions import read_predictions
from exgra_med.evaluation.published import PUBLISHED, SOURCE, Published
from exgra_med.evaluation.questions import question_of
from exgra_med.evaluation.report import chat_tables, check_tables, tables
from exgra_med.evaluation.report.examples import Examples, pick_examples
from exgra_med.evaluation.report.limits import limits, verdict
from exgra_med.evaluation.report.log import StageCurves, read_log
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.run_folder import (
    answered_datasets,
    answered_questions,
    predictions_path,
    read_recipe,
)
from exgra_med.evaluation.wording import counts_sentences

NOTICE = (
    "Research use only. Nothing here is clinical advice, and no answer may be used to diagnose or "
    "treat anyone."
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the first screen."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class Content:
    """What the page, the Markdown and the CSV are made of."""

    name: str
    description: str
    is_toy: bool
    notice: str
    verdict: str
    tiles: list[Tile]
    dataset: str
    scores: list[tables.ScoreRow]
    datasets: list[tables.DatasetRow]
    floors: list[tables.FloorRow]
    published: list[Published]
    published_source: str
    leaks: list[str]
    reliance: list[check_tables.RelianceRow]
    mirror: list[str]
    choices: list[check_tables.ChoiceRow]
    choice_notes: list[str]
    chat: list[chat_tables.ChatRow]
    chat_notes: list[str]
    groups: dict[str, list[tables.GroupRow]]
    balance: list[tuple[str, str]]
    oddities: list[str]
    stages: list[StageCurves]
    examples: Examples | None
    examples_problem: str
    provenance: list[tuple[str, str]]
    limits: list[str]


def gather(run: Path, data_folder: str | None = None) -> Content:
    """Read a run folder.

    Args:
        run: folder with `recipe.yaml`, and as far as there: `record.json`, `log.jsonl`,
            `results.json`, `predictions/*.jsonl`.
        data_folder: the prepared folder that was answered, where it is not at the recipe's place.

    Raises:
        RunError: the folder is no run, or a file in it cannot be read.
    """
    recipe = read_recipe(run)
    results = read_results(run)
    vqa = results.get("vqa") or {}
    record = _read_object(run / "record.json")
    stages = read_log(run / "log.jsonl")
    is_toy = bool((recipe.get("model") or {}).get("architecture"))
    dataset = str(vqa.get("dataset") or next(iter(answered_datasets(run)), ""))
    examples, problem = _examples(run, recipe, dataset, data_folder)
    return Content(
        name=str(recipe.get("name") or run.name),
        description=str(recipe.get("description") or ""),
        is_toy=is_toy,
        notice=NOTICE,
        published_source=SOURCE,
        verdict=verdict(results),
        tiles=_tiles(results),
        dataset=f"{dataset}, {vqa.get('split', 'test')} split" if dataset else "",
        scores=tables.score_rows(vqa),
        datasets=tables.dataset_rows(results),
        floors=tables.floor_rows(results),
        published=list(PUBLISHED.get(dataset, ())) if vqa.get("legacy") else [],
        leaks=check_tables.leak_sentences(results),
        reliance=check_tables.reliance_rows(results),
        mirror=check_tables.mirror_sentences(results),
        choices=check_tables.choice_rows(results),
        choice_notes=check_tables.choice_sentences(results),
        chat=chat_tables.chat_rows(results),
        chat_notes=chat_tables.chat_sentences(results),
        groups=tables.group_tables(vqa),
        balance=tables.balance_rows(vqa),
        oddities=_oddities(vqa),
        stages=stages,
        examples=examples,
        examples_problem=problem,
        provenance=_provenance(run, recipe, record, vqa, dataset),
        limits=limits(results, is_toy),
    )


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: cannot be read as JSON.") from error
    return value if isinstance(value, dict) else {}


def _examples(
    run: Path,
    recipe: dict[str, Any],
    dataset: str,
    data_folder: str | None,
) -> tuple[Examples | None, str]:
    """Cards, or why there are none; a report without pictures is still a report."""
    answers = predictions_path(run, dataset)
    if not dataset or not answers.is_file():
        return None, "This run has no stored answers."
    try:
        asked = answered_questions(run, dataset, data_folder)
        pairing = pair(
            read_predictions(answers).predictions,
            [question_of(record) for record in asked.records],
        )
    except (DataError, ScoreError) as error:
        return None, f"The questions are not at hand: {error.message}"
    number = int((recipe.get("evaluation") or {}).get("num_report_images", 12))
    images = asked.prepared.image_folder(asked.max_pixels)
    return pick_examples(pairing, images, number, int(recipe.get("seed") or 0)), ""


def _tiles(results: dict[str, Any]) -> list[Tile]:
    vqa, alignment = results.get("vqa") or {}, results.get("alignment") or {}
    tiles = []
    for scorer, label in (("strict", "strict score"), ("legacy", "legacy score")):
        score = tables.cell(vqa.get(scorer) or {}, "average")
        if score.value is not None:
            detail = f"95 % interval {score.bounds}" if score.bounds else "no interval"
            tiles.append(Tile(label, f"{score.text} %", detail))
    accuracy = alignment.get("matching_accuracy") or {}
    if accuracy.get("start") is not None and accuracy.get("end") is not None:
        value = f"{100 * accuracy['start']:.0f} → {100 * accuracy['end']:.0f} %"
        tiles.append(Tile("matching accuracy", value, "held out, without noise"))
    loss = alignment.get("loss") or {}
    if loss.get("start") is not None and loss.get("end") is not None:
        tiles.append(Tile("alignment loss", f"{loss['start']:.2f} → {loss['end']:.2f}", "held out"))
    return tiles


def _oddities(vqa: dict[str, Any]) -> list[str]:
    strict = vqa.get("strict") or {}
    if "pairing" not in strict:
        return []
    # Answers are made in order of length, so their order says nothing here.
    pairing = strict["pairing"] | {"same_order": True}
    return counts_sentences(strict | {"scorer": "strict", "pairing": pairing})


def _provenance(
    run: Path, recipe: dict[str, Any], record: dict[str, Any], vqa: dict[str, Any], dataset: str
) -> list[tuple[str, str]]:
    facts = _read_object(facts_path(predictions_path(run, dataset))) if dataset else {}
    strict = vqa.get("strict") or {}
    rows = [
        ("recipe", str(recipe.get("name") or run.name)),
        ("seed", str(recipe.get("seed", 0))),
        *_flat(facts, "answers"),
    ]
    if vqa.get("data_fingerprint"):
        rows.append(("data: sha256 of the manifest", str(vqa["data_fingerprint"])))
    if strict:
        rows.append(("strict scorer, normaliser", f"{strict.get('scorer_version')}, "
                     f"{strict.get('normaliser_version')}"))  # fmt: skip
        bootstrap = strict.get("bootstrap") or {}
        rows.append(
            (
                "intervals",
                f"95 %, {bootstrap.get('samples')} resamples of {strict.get('num_images')} images, "
                f"seed {bootstrap.get('seed')}",
            )
        )
    return rows + _flat({key: value for key, value in record.items() if key != "recipe"}, "")


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
