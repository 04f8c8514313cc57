"""One node of a study, done by the process that calls this."""

import shutil
import time
from pathlib import Path

from exgra_med import files
from exgra_med.data.records import open_prepared
from exgra_med.errors import ExgraMedError, RecipeError, RunError
from exgra_med.evaluation.held_out import held_out_scorer
from exgra_med.evaluation.session import open_session
from exgra_med.evaluation.tasks import reliance, vqa
from exgra_med.lab.base_models.make import make_parts
from exgra_med.lab.base_models.settings import check_parts
from exgra_med.lab.phantom.make import NAME as PHANTOM
from exgra_med.lab.phantom.make import make_phantom, parse_settings
from exgra_med.lab.studies.cost import spend_like
from exgra_med.lab.studies.folder import Attempt, is_finished, lock_path, open_study, write_attempt
from exgra_med.lab.studies.plan import DATA_NODE, Node, find_node
from exgra_med.lab.studies.schema import Study
from exgra_med.recipe.run_folder import now
from exgra_med.terminal import Reporter
from exgra_med.training.distributed import on_main, process_state
from exgra_med.training.loop import TrainingStopped
from exgra_med.training.preflight import check_before_training
from exgra_med.training.stages import begin_run, train_run

SECONDS_TO_SAVE = 60.0


def run_node(folder: Path, name: str, reporter: Reporter) -> None:
    """Do a node, or go on with it where it was stopped; nothing happens where it is finished.

    Raises:
        RunError: no such node, something it needs is not finished, another process works on it.
        ExgraMedError: what the work itself found.
    """
    study, nodes = open_study(folder)
    node = find_node(nodes, name)
    if is_finished(folder, node, study):
        _tidy(folder, study, node)
        return
    for need in node.needs:
        if not is_finished(folder, find_node(nodes, need), study):
            raise RunError(f"{name} needs {need}, which is not finished.")
    lock = lock_path(folder, name)
    lock.parent.mkdir(parents=True, exist_ok=True)
    if not process_state().is_main_process:
        _work(folder, study, node, reporter)
        return
    # The node of a start that was killed saves where it is before it ends.
    with files.sole_writer(lock, f"The node {name}", patience=SECONDS_TO_SAVE):
        _attempt(folder, study, node, reporter)


def _attempt(folder: Path, study: Study, node: Node, reporter: Reporter) -> None:
    started, clock = now(), time.monotonic()

    def note(state: str, sentence: str = "") -> None:
        seconds = round(time.monotonic() - clock, 3)
        write_attempt(folder, node.id, Attempt(state, started, seconds, sentence))

    note("running")
    try:
        _work(folder, study, node, reporter)
    except (TrainingStopped, KeyboardInterrupt):
        note("stopped")
        raise
    except ExgraMedError as error:
        note("failed", str(error))
        raise
    except Exception as error:
        # A fault of the software: the log has its traceback, which may quote what it worked on.
        note("failed", f"{type(error).__name__}, see the log.")
        raise
    _tidy(folder, study, node)
    note("finished")


def _tidy(folder: Path, study: Study, node: Node) -> None:
    """Remove the weights of a cell that is scored, where the study does not keep them."""
    weights = folder / node.id / "checkpoints"
    if node.kind == "cell" and not study.keep_weights and weights.is_dir():
        shutil.rmtree(weights)


def _work(folder: Path, study: Study, node: Node, reporter: Reporter) -> None:
    place = folder / node.id
    made = study.make
    if node.kind == "data" and made.data is not None:
        if made.data.source != PHANTOM:
            raise RecipeError(
                f"make.data.source: there is no maker {made.data.source!r}.", f"Known: {PHANTOM}."
            )
        settings = made.data.settings
        texts = {name: str(value) for name, value in settings.items() if name != "seed"}
        make_phantom(place, parse_settings(int(settings.get("seed", 0)), texts))
    elif node.kind == "parts" and made.parts is not None:
        data = str(folder / DATA_NODE) if made.data else study.recipe.data.folder
        make_parts(check_parts(made.parts, "make.parts"), data, place, reporter)
    else:
        _train_and_evaluate(place, study, node, reporter)


def _train_and_evaluate(place: Path, study: Study, node: Node, reporter: Reporter) -> None:
    assert node.recipe is not None, "a node that makes nothing is a run"
    recipe, counted = node.recipe, None
    if node.budget is not None:
        recipe, counted = spend_like(recipe, node.budget)
    # What is asked afterwards is looked for before hours of training.
    for test in study.evaluation.also:
        open_prepared(test).split_path("test")
    on_main(lambda: check_before_training(recipe, place))
    run = begin_run(place, recipe, resume=True)
    if counted is not None and process_state().is_main_process:
        run.add_to_record("budget", counted)
    train_run(run, reporter, held_out_scorer)
    if node.kind == "cell":
        settings = study.evaluation
        for split in reversed(settings.splits[1:]):
            vqa.evaluate(open_session(run.path, reporter, split=split))
        # The main test comes last: its score says that the node is finished.
        sessions = [
            *(
                open_session(run.path, reporter, data=each, split="test", stage=settings.also_after)
                for each in settings.also
            ),
            open_session(run.path, reporter, split=settings.splits[0]),
        ]
        for session in sessions:
            if settings.conditions:
                reliance.evaluate(session, settings.conditions)
            else:
                vqa.evaluate(session)
