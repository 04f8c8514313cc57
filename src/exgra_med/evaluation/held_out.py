"""Score of a model while it trains: answers to held-out questions, strict average."""

from exgra_med.data.records import Prepared
from exgra_med.errors import RecipeError, ScoreError
from exgra_med.evaluation.answers import Prediction, QuestionsAside
from exgra_med.evaluation.engines import greedy_answers, shown_question
from exgra_med.evaluation.measures import by_name, measures, parts_of
from exgra_med.evaluation.score import score_vqa
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.run_folder import Run
from exgra_med.recipe.schema import DataSettings
from exgra_med.training.held_out import Scorer

MEASURE = "average"


def held_out_scorer(run: Run, prepared: Prepared, settings: DataSettings) -> Scorer:
    """The scorer of a stage that chooses its best checkpoint; see `training.held_out`.

    Returns:
        A function from a model to its strict VQA average, in percent. It raises ScoreError where
        the split has no open or no closed question.
    """
    wanted = {MEASURE, *parts_of(by_name(MEASURE))}
    chosen = [each for each in measures() if each.name in wanted]

    def score(bundle: Bundle) -> float:
        if settings.held_out_split is None:
            raise RecipeError(
                "A stage with `load_best_model_at_end: true` needs data.held_out_split.",
                "Name a split, or set load_best_model_at_end to false.",
            )
        records = prepared.records(settings.held_out_split)
        evaluation = run.recipe.evaluation
        images = prepared.image_folder(settings.max_pixels)
        template = run.recipe.text.template
        predictions = [
            Prediction(id=record.id, text=each.text, prompt=shown_question(record))
            for start in range(0, len(records), evaluation.batch_size)
            for batch in [records[start : start + evaluation.batch_size]]
            for record, each in zip(
                batch,
                greedy_answers(bundle, batch, images, template, evaluation.max_new_tokens),
                strict=True,
            )
        ]
        questions = QuestionsAside.of(records)
        result = score_vqa(
            predictions, questions, num_bootstrap_samples=0, groups=False, only=chosen
        )
        average = result["scores"][MEASURE]["value"]
        if average is None:
            raise ScoreError(
                f"The split {settings.held_out_split!r} has no open or no closed question, so it "
                "gives no average to choose a checkpoint by.",
                "Name another split there, or set `load_best_model_at_end` to false.",
            )
        return float(average)

    return score
