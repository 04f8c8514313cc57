"""A model of another family through `evaluate`: a service answers, our scorers and files follow."""

import json
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepared import Prepared, open_prepared
from exgra_med.data.record import Record
from exgra_med.errors import RunError, ServiceError
from exgra_med.evaluation.multiple_choice.questions import asked_with_options, choice_of
from exgra_med.evaluation.multiple_choice.run import generation_path, score_multiple_choice
from exgra_med.evaluation.predict import answer_records
from exgra_med.evaluation.run_folder import predictions_path, read_recipe
from exgra_med.evaluation.service_answers import (
    ServiceAnswerer,
    allowed_endpoint,
    refuse_identifying,
)
from exgra_med.evaluation.vqa import score_run
from exgra_med.files import write_text
from exgra_med.llm.service import ServiceSettings
from exgra_med.progress import Reporter
from exgra_med.recipe.load import write_yaml
from exgra_med.recipe.run_folder import describe_software, now
from exgra_med.recipe.schema import EvaluationSettings

MAX_PIXELS = 50_000_000


def evaluate_vqa_by_service(
    folder: Path, settings: ServiceSettings, reporter: Reporter, on: str, split: str = "test"
) -> dict[str, Any]:
    """Let a service answer a split, then score the answers as those of a run.

    Args:
        folder: a new folder, or one of an earlier call with this model.
        settings: the service; `sampling.max_tokens` is the longest answer.
        reporter: told how far the answers are.
        on: a prepared folder.
        split: a split of it.

    Returns:
        The whole results.

    Raises:
        ServiceError: the service cannot be used.
        RunError: the folder holds something else.
    """
    prepared = open_prepared(on)
    records = prepared.records(split)
    dataset = prepared.manifest["dataset"]
    start_folder(folder, settings, {"folder": on}, split)
    out = predictions_path(folder, dataset)
    facts = {"data": prepared.fingerprint, "split": split}
    ask_service(settings, records, prepared.image_folder(MAX_PIXELS), out, facts, reporter)
    return score_run(
        folder,
        dataset,
        records,
        prepared.records("train"),
        split=split,
        data_fingerprint=prepared.fingerprint,
        data_folder=on,
    )


def evaluate_choices_by_service(
    folder: Path,
    settings: ServiceSettings,
    reporter: Reporter,
    on: str,
    split: str = "test",
    num_rotations: int = 1,
) -> dict[str, Any]:
    """Let a service choose between options by generation; likelihoods are not to be had there.

    Args:
        folder: see `evaluate_vqa_by_service`.
        settings: the service.
        reporter: told how far the answers are.
        on: a prepared folder; records without options are left out and counted.
        split: its split.
        num_rotations: option orders to ask in.

    Returns:
        The section of the data set in `results.json`.
    """
    prepared: Prepared = open_prepared(on)
    everything = prepared.records(split)
    records = [record for record in everything if record.meta.get("options")]
    dataset = prepared.manifest["dataset"]
    start_folder(folder, settings, {"folder": on}, split)
    asked = [
        asked_with_options(record, rotation)
        for record in records
        for rotation in range(min(num_rotations, len(choice_of(record).options)))
    ]
    facts = {"data": prepared.fingerprint, "split": split, "num_rotations": num_rotations}
    images = prepared.image_folder(MAX_PIXELS)
    ask_service(settings, asked, images, generation_path(folder, dataset), facts, reporter)
    return score_multiple_choice(
        folder,
        dataset,
        records,
        EvaluationSettings(),
        num_rotations=num_rotations,
        num_without_options=len(everything) - len(records),
    )


def ask_service(
    settings: ServiceSettings,
    records: list[Record],
    images: ImageFolder,
    out: Path,
    facts: dict[str, Any],
    reporter: Reporter,
) -> None:
    """Answer records by a service into `out`; resumable, what failed is asked again.

    Raises:
        ServiceError: the service cannot be used.
        DataError: text that seems to identify patients would leave this machine.
    """
    endpoint = allowed_endpoint(settings)
    texts = {record.id: record.question for record in records}
    refuse_identifying(texts, settings, endpoint)
    facts = facts | {
        "engine": "openai",
        "model": settings.served_name(endpoint),
        "host": endpoint.host,
        "decoding": settings.sampling.given(),
    }
    with ServiceAnswerer(settings, images) as answer:
        reporter.start(f"answers of {settings.model}", len(records), 0)
        answer_records(
            answer,
            records,
            out,
            settings.concurrency,
            facts,
            lambda done, _: reporter.advance(
                done, f"{answer.num_failed} failed" if answer.num_failed else ""
            ),
        )
        reporter.finish()
    if answer.last_failure is not None and not _has_text(out):
        raise ServiceError(
            f"The server answered no question: {answer.last_failure.message}",
            "Check its address and the name of the model; the same call asks again.",
        )


def start_folder(folder: Path, settings: ServiceSettings, data: dict[str, Any], split: str) -> None:
    """Make the folder of a served model's answers, or check that an older one is of this model.

    A folder without any answer, such as a wrong name of the model leaves, is begun anew.

    Raises:
        ServiceError: the service may not be asked; nothing is made.
        RunError: it holds a trained run, another model's answers, or something else.
    """
    allowed_endpoint(settings)
    recipe = folder / "recipe.yaml"
    if recipe.is_file():
        served = (read_recipe(folder).get("served") or {}).get("model")
        if served == settings.model:
            return
        if served is None or any(map(_has_text, (folder / "predictions").rglob("*.jsonl"))):
            what = f"answers of {served}" if served else "a trained run"
            raise RunError(f"{folder} holds {what}.", "Name another folder for this model.")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists and is not a run folder.", "Name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    record = {"created": now(), **describe_software(), "seed": 0}
    write_text(folder / "record.json", json.dumps(record, indent=2) + "\n")
    values = {
        "name": folder.name,
        "description": f"Answers of {settings.model}, asked through its server.",
        "seed": 0,
        "served": {"model": settings.model},
        "data": data,
        "evaluation": {"split": split},
    }
    write_text(recipe, write_yaml(values))


def _has_text(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
