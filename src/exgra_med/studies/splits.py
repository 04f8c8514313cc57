"""Further splits that a cell answers beside the one that is compared."""

from collections.abc import Sequence

from exgra_med.data.prepared import open_prepared
from exgra_med.evaluation.device import best_place, load_to_answer
from exgra_med.evaluation.predict import predict
from exgra_med.evaluation.predictions import read_predictions
from exgra_med.evaluation.results import update_results
from exgra_med.evaluation.run import answer_facts
from exgra_med.evaluation.run_folder import check_path
from exgra_med.evaluation.score import score_vqa
from exgra_med.evaluation.sharding import launched_processes, told_once
from exgra_med.progress import Reporter
from exgra_med.recipe.run import Run

SECTION = "splits"


def evaluate_more_splits(run: Run, reporter: Reporter, splits: Sequence[str]) -> None:
    """Answer and score splits: section `splits.NAME.strict` of the run's results.

    Args:
        run: a run whose stages are finished.
        reporter: told how far the answers are.
        splits: names of splits of the recipe's evaluation data.

    Raises:
        DataError: the data has no such split.
    """
    if not splits:
        return
    settings, data = run.recipe.evaluation, run.recipe.evaluation_data
    prepared, place = open_prepared(data.folder), best_place()
    dataset, reporter = prepared.manifest["dataset"], told_once(reporter)
    bundle = load_to_answer(run.last_checkpoint, place)
    for split in splits:
        records = prepared.records(split)
        answers = check_path(run.path, dataset, f"split-{split}")
        reporter.start(f"answers to {dataset}/{split}", len(records), 0)
        predict(
            bundle,
            records,
            prepared.image_folder(data.max_pixels),
            settings,
            answers,
            template=run.recipe.text.template,
            about=answer_facts(run.last_checkpoint, prepared, split, place),
            progress=lambda done, _: reporter.advance(done, ""),
        )
        reporter.finish()
        if not launched_processes().is_first:
            continue
        score = score_vqa(
            read_predictions(answers).predictions,
            records,
            num_bootstrap_samples=settings.num_bootstrap_samples,
            seed=run.recipe.seed,
            groups=False,
        )
        update_results(run.path, {SECTION: {split: {"strict": score}}})
