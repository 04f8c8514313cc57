"""A trained run -> answers, scores and alignment figures in its folder."""

from pathlib import Path
from typing import Any

from exgra_med.data.prepared import Prepared, file_sha256, open_prepared
from exgra_med.evaluation.device import Place, best_place, load_to_answer
from exgra_med.evaluation.predict import predict
from exgra_med.evaluation.results import update_results
from exgra_med.evaluation.run_folder import answers_path, is_own_data
from exgra_med.evaluation.sharding import launched_processes, told_once
from exgra_med.evaluation.vqa import score_run
from exgra_med.progress import Reporter
from exgra_med.recipe.run_folder import Run
from exgra_med.training.log import read_log


def evaluate_vqa(
    run: Run, reporter: Reporter, on: str | None = None, split: str | None = None
) -> dict[str, Any]:
    """Answer a split with the last checkpoint of a run, then score the answers.

    Args:
        run: a run whose stages are finished.
        reporter: told how far the answers are.
        on: a prepared folder; the recipe's evaluation data where absent. Scores of any other data
            set are kept beside the headline, below `other_datasets.<name>` of the results.
        split: a split of it; the recipe's where absent. Any other is kept apart, as
            `other_splits.<split>` of the results, so that one run can answer several.

    Returns:
        The whole results; nothing in all but the first process of `accelerate launch`.

    Raises:
        RunError: the run is not finished, or holds answers made in another way.
        DataError: the data cannot be used.
    """
    recipe = run.recipe
    settings = recipe.evaluation
    data = recipe.evaluation_data
    prepared = open_prepared(on or data.folder)
    split = split or settings.split
    apart = split != settings.split
    records = prepared.records(split)
    checkpoint, place = run.last_checkpoint, best_place()
    reporter = told_once(reporter)
    dataset = prepared.manifest["dataset"]
    reporter.start(f"answers to {dataset}/{split}", len(records), 0)
    predict(
        load_to_answer(checkpoint, place),
        records,
        prepared.image_folder(data.max_pixels),
        settings,
        answers_path(run.path, dataset, split, apart=apart),
        template=recipe.text.template,
        about=answer_facts(checkpoint, prepared, split, place),
        progress=lambda done, _: reporter.advance(done, ""),
    )
    reporter.finish()
    if not launched_processes().is_first:
        return {}
    update_results(run.path, alignment_section(run))
    return score_run(
        run.path,
        dataset,
        records,
        prepared.records("train"),
        split=split,
        apart=apart,
        own=is_own_data(data.folder, on, dataset),
        num_bootstrap_samples=settings.num_bootstrap_samples,
        seed=recipe.seed,
        data_fingerprint=prepared.fingerprint,
        data_folder=on or data.folder,
    )


def alignment_section(run: Run) -> dict[str, Any]:
    """Held-out matching accuracy (without noise) and alignment loss of the last aligned stage.

    Returns:
        `{"alignment": {"matching_accuracy": {"start", "end", "chance"}, "loss": {"start", "end"},
        "stage", "num_records"}}`; empty where no stage measured them.
    """
    measured = [
        event
        for event in read_log(run.log)
        if event["kind"] == "held_out" and "matching_accuracy" in event
    ]
    if not measured:
        return {}
    stage = measured[-1]["stage"]
    first, *_ = steps = [event for event in measured if event["stage"] == stage]
    last = steps[-1]
    return {
        "alignment": {
            "stage": stage,
            "num_records": last["num_records"],
            "matching_accuracy": {
                "start": first["matching_accuracy"],
                "end": last["matching_accuracy"],
                "chance": last["chance"],
            },
            "loss": {"start": first["alignment_loss"], "end": last["alignment_loss"]},
        }
    }


def answer_facts(checkpoint: Path, prepared: Prepared, split: str, place: Place) -> dict[str, Any]:
    """What decides answers beside the recipe: weights and their type, data, and the split."""
    facts = {"data": prepared.fingerprint, "split": split}
    return checkpoint_facts(checkpoint, place) | facts


def checkpoint_facts(checkpoint: Path, place: Place) -> dict[str, Any]:
    """Hashes of the weights, and the type they are used in."""
    weights = {
        path.name: file_sha256(path) for path in sorted(checkpoint.glob("model*.safetensors"))
    }
    return {"checkpoint": weights, "dtype": place.dtype}
