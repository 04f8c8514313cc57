"""Score of a model while it trains: answers to held-out questions, strict average."""

from exgra_med.data.prepared import Prepared
from exgra_med.errors import RecipeError
from exgra_med.evaluation.predict import model_answerer, shown_question
from exgra_med.evaluation.predictions import Prediction
from exgra_med.evaluation.questions import question_of
from exgra_med.evaluation.score import score_vqa
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.run_folder import Run
from exgra_med.recipe.schema import DataSettings
from exgra_med.training.held_out import Scorer


def held_out_scorer(run: Run, prepared: Prepared, settings: DataSettings) -> Scorer:
    """The scorer of a stage that chooses its best checkpoint; see `training.best`.

    Args:
        run: whose template and evaluation settings to use.
        prepared: the stage's data.
        settings: names the held-out split.

    Returns:
        A function from a model to its strict VQA average, in percent.
    """

    def score(bundle: Bundle) -> float:
        if settings.held_out_split is None:
            raise RecipeError(
                "A stage with `load_best_model_at_end: true` needs data.held_out_split.",
                "Name a split, or set load_best_model_at_end to false.",
            )
        records = prepared.records(settings.held_out_split)
        evaluation = run.recipe.evaluation
        answer = model_answerer(
            bundle,
            prepared.image_folder(settings.max_pixels),
            run.recipe.text.template,
            evaluation.max_new_tokens,
        )
        predictions = [
            Prediction(id=record.id, text=each.text if each else "", prompt=shown_question(record))
            for start in range(0, len(records), evaluation.batch_size)
            for batch in [records[start : start + evaluation.batch_size]]
            for record, each in zip(batch, answer(batch), strict=True)
        ]
        questions = [question_of(record) for record in records]
        result = score_vqa(predictions, questions, "strict", num_bootstrap_samples=0, groups=False)
        return float(result["metrics"]["average"])

    return score
