"""A trained run -> multiple choice, and what its answers owe to the image, in its folder."""

from typing import Any, Literal

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepared import open_prepared
from exgra_med.data.record import Record
from exgra_med.errors import RunError
from exgra_med.evaluation.blind import BLINDNESS, blinded, visual_reliance
from exgra_med.evaluation.device import best_place, load_to_answer
from exgra_med.evaluation.mirror import MirroredImages, mirror_probe, sided_records
from exgra_med.evaluation.multiple_choice.run import (
    generate_choices,
    generation_path,
    likelihood_path,
    measure_likelihoods,
    score_multiple_choice,
)
from exgra_med.evaluation.predict import predict, stored_template
from exgra_med.evaluation.predictions import Prediction, read_predictions
from exgra_med.evaluation.results import update_dataset_results
from exgra_med.evaluation.run import answer_facts
from exgra_med.evaluation.run_folder import answers_path, check_path, is_own_data
from exgra_med.evaluation.sharding import launched_processes, told_once
from exgra_med.progress import Reporter
from exgra_med.recipe.run_folder import Run

Protocol = Literal["generation", "likelihood", "both"]


def evaluate_multiple_choice(
    run: Run,
    reporter: Reporter,
    on: str,
    split: str = "test",
    protocol: Protocol = "both",
    num_rotations: int = 1,
) -> dict[str, Any]:
    """Answer the multiple-choice questions of a prepared folder and score them.

    Args:
        run: a run whose stages are finished.
        reporter: told how far the answers are.
        on: a prepared folder; records without options (open questions) are left out and counted.
        split: its split.
        protocol: generate an answer, compare likelihoods of the options, or both.
        num_rotations: option orders to ask in when generating.

    Returns:
        The section of the data set in `results.json`; nothing in all but the first process of
        `accelerate launch`.

    Raises:
        RunError: the run is not finished, or holds answers made in another way.
        ScoreError: no record has options.
    """
    recipe, place, reporter = run.recipe, best_place(), told_once(reporter)
    prepared = open_prepared(on)
    everything = prepared.records(split)
    records = [record for record in everything if record.meta.get("options")]
    images = prepared.image_folder(recipe.data.max_pixels)
    dataset = prepared.manifest["dataset"]
    facts = answer_facts(run.last_checkpoint, prepared, split, place)
    bundle = load_to_answer(run.last_checkpoint, place)
    if protocol in ("generation", "both"):
        reporter.start(f"choices on {dataset}/{split}", len(records) * num_rotations, 0)
        generate_choices(
            bundle,
            records,
            images,
            recipe,
            generation_path(run.path, dataset),
            facts | {"num_rotations": num_rotations},
            num_rotations=num_rotations,
            progress=lambda done, _: reporter.advance(done, ""),
        )
        reporter.finish()
    if protocol in ("likelihood", "both"):
        reporter.start(f"option likelihoods on {dataset}/{split}", len(records), 0)
        measure_likelihoods(
            bundle,
            records,
            images,
            recipe,
            likelihood_path(run.path, dataset),
            facts,
            lambda done, _: reporter.advance(done, ""),
        )
        reporter.finish()
    if not launched_processes().is_first:
        return {}
    return score_multiple_choice(
        run.path,
        dataset,
        records,
        recipe.evaluation,
        num_rotations=num_rotations,
        seed=recipe.seed,
        num_without_options=len(everything) - len(records),
    )


def evaluate_reliance(
    run: Run, reporter: Reporter, on: str | None = None, split: str | None = None
) -> dict[str, Any]:
    """Ask the questions again with blank, noise and exchanged images, and say what that costs.

    Questions whose answer names a side are also asked with the image mirrored.

    Args:
        run: a run whose questions are answered (`evaluate_vqa`).
        reporter: told how far the answers are.
        on: the prepared folder that was answered; the recipe's where absent.
        split: the split that was answered; the recipe's where absent.

    Returns:
        The section `visual_reliance` of `results.json`; nothing in all but the first process.

    Raises:
        RunError: the questions have not been answered with their images yet.
    """
    recipe, place, reporter = run.recipe, best_place(), told_once(reporter)
    prepared = open_prepared(on or recipe.evaluation_data.folder)
    split = split or recipe.evaluation.split
    records = prepared.records(split)
    dataset = prepared.manifest["dataset"]
    apart = split != recipe.evaluation.split
    seeing = answers_path(run.path, dataset, split, apart=apart)
    if not seeing.is_file():
        raise RunError(
            f"{run.path} has no answers to {dataset}/{split} yet.",
            "Run `exgra-med evaluate vqa` first.",
        )
    asked_with = stored_template(seeing)
    if asked_with not in (None, recipe.text.template):
        raise RunError(
            f"The answers to {dataset}/{split} were asked with the template {asked_with!r}.",
            f"Give --template {asked_with}.",
        )
    facts = answer_facts(run.last_checkpoint, prepared, split, place)
    images = prepared.image_folder(recipe.data.max_pixels)
    bundle = load_to_answer(run.last_checkpoint, place)

    def ask(kind: str, asked: list[Record], shown: ImageFolder) -> list[Prediction]:
        name = f"image-{kind}-{split}" if apart else f"image-{kind}"
        out = check_path(run.path, dataset, name)
        reporter.start(f"answers with {kind} images", len(asked), 0)
        predict(
            bundle,
            asked,
            shown,
            recipe.evaluation,
            out,
            template=recipe.text.template,
            about=facts | {"images": kind, "seed": recipe.seed},
            progress=lambda done, _: reporter.advance(done, ""),
        )
        reporter.finish()
        return read_predictions(out).predictions

    seen = read_predictions(seeing).predictions
    blind: dict[str, list[Prediction]] = {
        kind: ask(kind, *blinded(kind, records, images, recipe.seed)) for kind in BLINDNESS
    }
    sided = sided_records(records)
    mirrored = ask("mirrored", sided, MirroredImages(images.root, images.max_pixels))
    if not launched_processes().is_first:
        return {}
    samples = recipe.evaluation.num_bootstrap_samples
    section = visual_reliance(seen, blind, records, samples, recipe.seed)
    section["mirrored"] = mirror_probe(seen, mirrored, sided)
    update_dataset_results(
        run.path,
        dataset,
        {"visual_reliance": section},
        own=is_own_data(recipe.evaluation_data.folder, on, dataset),
        apart=split if apart else None,
    )
    return section
