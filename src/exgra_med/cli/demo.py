"""`exgra-med demo`: the whole system once on bundled data, with the small model or a toy."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.console import Console

from exgra_med.cli.options import OutRun, Set
from exgra_med.errors import MissingExtraError
from exgra_med.terminal import RichReporter, next_step, remark

EXAMPLES = """
Examples:

* `exgra-med demo`

* `exgra-med demo --toy --out runs/toy`

* `exgra-med demo --self-test`
"""
SMALL, TOY = "small/demo", "demo"


def demo(
    out: OutRun = Path("runs/demo"),
    assignments: Set = None,
    toy: Annotated[
        bool,
        typer.Option("--toy", help="Take a toy with random weights: nothing is fetched."),
    ] = False,
    self_test: Annotated[
        bool,
        typer.Option("--self-test", help="Take a smaller model through everything. Keep nothing."),
    ] = False,
) -> None:
    """Train a model on bundled images, evaluate it, and write a report.

    It takes less than ten minutes on two CPU cores. The model has 160M parameters and comes with
    the package; its two pretrained parts (183 MB) are fetched once. Where they cannot be had, a toy
    with random weights takes its place, and three minutes. Started again, it continues.
    --self-test takes under a minute. Its exit code is 1 where this installation does not work.
    """
    console = Console()
    if self_test:
        with TemporaryDirectory() as folder:
            problems = _follow(Path(folder) / "run", assignments, console)
        for problem in problems:
            typer.secho(f"Problem: {problem}", fg="red", err=True)
        if problems:
            raise typer.Exit(1)
        console.print("The self-test passed: this installation trains, evaluates and answers.")
        return
    recipe = _recipe(out, toy, console)
    what = "a toy, and so are its scores" if recipe == TOY else "of 160M parameters"
    console.print(f"Research use only. The model of this demo is {what}.")
    run = _run(recipe, out, assignments, console, with_reliance=recipe == SMALL)
    from exgra_med.evaluation.report import write_report

    report = write_report(out)
    console.print(f"Done. Open {report} in a browser; {out / 'results.json'} has the numbers.")
    console.print(next_step(f"chat {run.last_checkpoint} IMAGE"), soft_wrap=True)


def _recipe(out: Path, toy: bool, console: Console) -> str:
    """What the folder was begun with; else the small model where it can be had and trained."""
    from exgra_med.errors import CheckpointError
    from exgra_med.model.small_model import small_model
    from exgra_med.plugins import import_extra
    from exgra_med.recipe.run_folder import is_run_folder, open_run

    if toy:
        # A folder that was begun with the small model is refused.
        return TOY
    if is_run_folder(out):
        return TOY if open_run(out).recipe.name == TOY else SMALL
    try:
        import_extra("peft", "Training the small model", "lora")
        small_model()
    except (CheckpointError, MissingExtraError) as error:
        # Square brackets are markup to rich.
        console.print(f"{error}\nA toy model takes the place of the small one.", markup=False)
        return TOY
    return SMALL


def _run(
    recipe: str,
    out: Path,
    assignments: list[str] | None,
    console: Console,
    with_reliance: bool = False,
) -> Any:
    """Train all stages and answer the test questions; gives the opened run."""
    from exgra_med.evaluation.session import open_session
    from exgra_med.evaluation.tasks import reliance, vqa
    from exgra_med.model.bundle import choose_device, device_sentence
    from exgra_med.recipe.load import load_recipe
    from exgra_med.training.stages import begin_run, train_run

    remark(device_sentence(choose_device()))
    run = begin_run(out, load_recipe(recipe, assignments or ()).recipe, resume=True)
    reporter = RichReporter(console)
    train_run(run, reporter)
    session = open_session(out, reporter)
    if with_reliance:
        # One kind of wrong picture: four would take two minutes more.
        reliance.evaluate(session, ["shuffled"])
    else:
        vqa.evaluate(session)
    return run


def _follow(out: Path, assignments: list[str] | None, console: Console) -> list[str]:
    """Run everything in a folder and say what is not as it must be."""
    from exgra_med import load
    from exgra_med.evaluation.report import write_report
    from exgra_med.evaluation.results import read_results
    from exgra_med.training.log import read_log

    run = _run("debug/tiny", out, assignments, console)
    problems = []
    for scorer in ("strict", "legacy"):
        entries = read_results(out).find("vqa")
        average = entries[0].score(scorer, "average").value if entries else None
        if average is None or not 0 <= average <= 100:
            problems.append(f"the {scorer} average is {average}, not a percentage")
    accuracy = [each.get("matching_accuracy") for each in read_log(run.log)]
    measured = [each for each in accuracy if each is not None]
    if len(measured) < 2 or not all(0 <= each <= 1 for each in measured):
        problems.append(f"the matching accuracy is {measured}, not shares along the training")
    for name in ("recipe.yaml", "record.json", "log.jsonl"):
        if not (out / name).is_file():
            problems.append(f"the run has no {name}")
    if not isinstance(load(str(run.last_checkpoint)).ask("Is there a fracture?"), str):
        problems.append("the trained checkpoint does not answer")
    try:
        write_report(out)
    except MissingExtraError as error:
        # Square brackets are markup to rich.
        console.print(f"No report was tried. {error}", markup=False)
    return problems
