"""A trained run -> multiple-choice answers, option likelihoods and their scores in its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.record import Record
from exgra_med.evaluation.calibration import calibration, softmax
from exgra_med.evaluation.multiple_choice.likelihood import (
    option_scores,
    prior_scores,
    text_only_scores,
)
from exgra_med.evaluation.multiple_choice.questions import Choice, asked_with_options, choice_of
from exgra_med.evaluation.multiple_choice.score import CHOOSERS, score_choices, score_likelihoods
from exgra_med.evaluation.predict import Progress, complete, predict, stored_template
from exgra_med.evaluation.predictions import Prediction, read_predictions
from exgra_med.evaluation.results import update_results
from exgra_med.evaluation.run_folder import check_path
from exgra_med.recipe.schema import EvaluationSettings, Recipe

if TYPE_CHECKING:
    from exgra_med.model.bundle import Bundle

WITH_IMAGE, TEXT_ONLY, PRIOR = "with_image", "text_only", "prior"


def generate_choices(
    bundle: "Bundle",
    records: Sequence[Record],
    images: ImageFolder,
    recipe: Recipe,
    out: Path,
    about: dict[str, Any],
    *,
    num_rotations: int = 1,
    progress: Progress | None = None,
) -> int:
    """Ask every question with its list of options, in one or several orders; resumable.

    Args:
        bundle: model and processor.
        records: with `meta["options"]`.
        images: where their images lie.
        recipe: template and evaluation settings.
        out: file of answers.
        about: facts that decide the answers.
        num_rotations: option orders; a question is not asked in more orders than it has options.
        progress: called with (answered, all).
    """
    asked = [
        asked_with_options(record, rotation)
        for record in records
        for rotation in range(min(num_rotations, len(choice_of(record).options)))
    ]
    return predict(
        bundle,
        asked,
        images,
        recipe.evaluation,
        out,
        template=recipe.text.template,
        about=about | {"protocol": "generation"},
        progress=progress,
    )


def measure_likelihoods(
    bundle: "Bundle",
    records: Sequence[Record],
    images: ImageFolder,
    recipe: Recipe,
    out: Path,
    about: dict[str, Any],
    progress: Progress | None = None,
) -> int:
    """Score every option with the image, without it, and without the question; resumable."""
    arguments = (images, recipe.text.template, recipe.text.max_length)

    def make(batch: Sequence[Record]) -> list[Prediction]:
        made = []
        for record in batch:
            scores = {
                WITH_IMAGE: option_scores(bundle, record, *arguments),
                TEXT_ONLY: text_only_scores(bundle, record, *arguments),
                PRIOR: prior_scores(bundle, record, *arguments),
            }
            best = max(range(len(scores[WITH_IMAGE])), key=scores[WITH_IMAGE].__getitem__)
            text = choice_of(record).options[best]
            made.append(Prediction(id=record.id, text=text, option_scores=scores))
        return made

    facts = about | {"protocol": "likelihood", "template": recipe.text.template}
    return complete(make, records, out, recipe.evaluation.batch_size, facts, progress)


def score_multiple_choice(
    run: Path,
    dataset: str,
    records: Sequence[Record],
    settings: EvaluationSettings,
    *,
    num_rotations: int = 1,
    seed: int = 0,
    num_without_options: int = 0,
) -> dict[str, Any]:
    """Score what is stored, by every protocol that was asked, into `results.json`.

    Args:
        run: the run folder.
        dataset: name of its answer files.
        records: the questions.
        settings: number of resamples.
        num_rotations: option orders that were asked.
        seed: of the resamples.
        num_without_options: records that were left out for having none; goes into the result.

    Returns:
        The section `multiple_choice` of the data set.
    """
    choices = [choice_of(record) for record in records]
    samples = settings.num_bootstrap_samples
    section: dict[str, Any] = {"num_without_options": num_without_options}
    answers = generation_path(run, dataset)
    if answers.is_file():
        predictions = read_predictions(answers).predictions
        for rule in CHOOSERS:
            section[f"generation_{rule}"] = score_choices(
                predictions,
                choices,
                rule,
                num_rotations=num_rotations,
                num_bootstrap_samples=samples,
                seed=seed,
            )
    stored = likelihood_path(run, dataset)
    if stored.is_file():
        scores = {
            each.id: each.option_scores
            for each in read_predictions(stored).predictions
            if each.option_scores is not None
        }
        by_kind = {
            kind: {name: each[kind] for name, each in scores.items()}
            for kind in (WITH_IMAGE, TEXT_ONLY, PRIOR)
        }
        arguments: dict[str, Any] = {"num_bootstrap_samples": samples, "seed": seed}
        section["likelihood"] = score_likelihoods(by_kind[WITH_IMAGE], choices, **arguments)
        section["likelihood_prior_subtracted"] = score_likelihoods(
            by_kind[WITH_IMAGE], choices, by_kind[PRIOR], **arguments
        )
        section["text_only_floor"] = score_likelihoods(by_kind[TEXT_ONLY], choices, **arguments)
        section["calibration"] = _calibration(by_kind[WITH_IMAGE], choices)
    section["templates"] = {
        name: stored_template(file)
        for name, file in (("generation", answers), ("likelihood", stored))
        if file.is_file()
    }
    update_results(run, {"multiple_choice": {dataset: section}})
    return section


def generation_path(run: Path, dataset: str) -> Path:
    """Where a run keeps its generated choices."""
    return check_path(run, dataset, "choices")


def likelihood_path(run: Path, dataset: str) -> Path:
    """Where a run keeps its option likelihoods."""
    return check_path(run, dataset, "likelihoods")


def _calibration(scores: dict[str, list[float]], choices: Sequence[Choice]) -> dict[str, Any]:
    confidence, right = [], []
    for choice in choices:
        if choice.id in scores:
            probabilities = softmax(scores[choice.id])
            best = max(range(len(probabilities)), key=probabilities.__getitem__)
            confidence.append(probabilities[best])
            right.append(best == choice.right)
    return calibration(confidence, right)
