"""`exgra-med study`: one question asked of many runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exgra_med.cli.output import print_json, say
from exgra_med.cli.recipe import AsJson, Assignments

if TYPE_CHECKING:
    from exgra_med.lab.studies.plan import Node
    from exgra_med.lab.studies.schema import Study

app = typer.Typer(
    help="Ask one question of many runs: plan, run, compare, report.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="Name of a shipped study, or a YAML file.")]
Folder = Annotated[Path, typer.Argument(help="The study's folder.")]
Scale = Annotated[str | None, typer.Option(help="One of the study's scales, such as smoke.")]

_RUN_EXAMPLES = """
Examples:

* `exgra-med study run data-efficiency --scale smoke --jobs 2`

* `exgra-med study run data-efficiency --dry-run
  --set recipe=[pretrain/connector,pretrain/aligned,finetune/slake] --set make=null`

* `exgra-med study run controls --slurm --jobs 8`
"""


@app.command(epilog=_RUN_EXAMPLES)
def run(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="Folder; runs/studies/NAME or NAME-SCALE else.")
    ] = None,
    scale: Scale = None,
    assignments: Assignments = None,
    jobs: Annotated[int, typer.Option(min=1, help="Nodes at the same time.")] = 1,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes of one node, one GPU each (torch.distributed).")
    ] = 1,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Write Slurm arrays, print how to submit them.")
    ] = False,
    submit: Annotated[bool, typer.Option("--submit", help="With --slurm: submit them.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run and what it costs.")
    ] = False,
    gpu: Annotated[str, typer.Option(help="GPU to plan for, with --dry-run.")] = "h100",
    as_json: AsJson = False,
) -> None:
    """Run whatever of a study is not finished, then collect, compare and report.

    Started again, also after a crash, it goes on where it was. --json belongs to --dry-run.
    """
    from exgra_med.lab.studies.schema import load_study

    study = load_study(name, scale, assignments or ())
    folder = out or Path("runs/studies") / "-".join(filter(None, (study.name, study.scale)))
    if dry_run:
        from exgra_med.cli.study_plan import print_plan

        print_plan(study, folder, gpu, as_json)
        return
    from exgra_med.lab.studies.folder import start_study

    nodes = start_study(folder, study)
    if slurm:
        _slurm(folder, study, nodes, jobs, submit)
        return
    _run_here(folder, study, nodes, jobs, processes)
    _finish(folder)


def _run_here(folder: Path, study: "Study", nodes: "list[Node]", jobs: int, processes: int) -> None:
    from rich.console import Console

    from exgra_med.errors import ExgraMedError
    from exgra_med.lab.studies.run import StudyFailed, run_study, share_machine, visible_gpus
    from exgra_med.progress import RichReporter

    say("Research use only. No number of a study is clinical evidence.")
    resources = share_machine(jobs, processes, visible_gpus(os.environ))
    try:
        run_study(folder, study, nodes, resources, RichReporter(Console()))
    except StudyFailed:
        # What there is can still be looked at; the failures end the command all the same.
        try:
            _finish(folder)
        except ExgraMedError as error:
            say(f"Nothing was concluded: {error}")
        raise


def _finish(folder: Path) -> None:
    from exgra_med.lab.studies.report import write_outcome

    outcome = write_outcome(folder)
    for sentence in outcome["conclusion"]:
        say(sentence)
    say(f"Open {outcome['report']} in a browser; {folder / 'results.json'} has the numbers.")


def _slurm(folder: Path, study: "Study", nodes: "list[Node]", jobs: int, submit_them: bool) -> None:
    from exgra_med.lab.studies.folder import is_finished
    from exgra_med.lab.studies.run import share_machine
    from exgra_med.lab.studies.slurm import shell_lines, submit, write_arrays

    finished = {node.id for node in nodes if is_finished(folder, node, study.metric)}
    threads = share_machine(1, 1, ()).threads
    commands = write_arrays(folder, study.name, nodes, finished, jobs, threads)
    for line in shell_lines(commands):
        say(line)
    if submit_them:
        say(f"Submitted: {', '.join(submit(commands))}.")
    say(f"Afterwards: exgra-med study report {folder}")


@app.command(epilog="Example: exgra-med study node runs/studies/x cells/exgra-med/0.1/seed-0")
def node(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The node, as `study status` names it.")],
) -> None:
    """Do one node of a study in this process; `study run` and Slurm call this."""
    from rich.console import Console

    from exgra_med.lab.studies.node import run_node
    from exgra_med.progress import RichReporter

    run_node(folder, name, RichReporter(Console()))


@app.command(epilog="Example: exgra-med study status runs/studies/data-efficiency-smoke")
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Say which nodes are finished, running, waiting or failed, and why."""
    from exgra_med.lab.studies.folder import open_study, write_status

    study, nodes = open_study(folder)
    found = write_status(folder, study, nodes)
    if as_json:
        print_json(found)
        return
    for name, attempt in found["nodes"].items():
        seconds = attempt["seconds"]
        took = f"{seconds:.0f} s" if seconds and attempt["state"] != "running" else ""
        say(f"{attempt['state']:<9} {took:>7}  {name}  {attempt['sentence']}".rstrip())
    say(", ".join(f"{count} {state}" for state, count in found["counts"].items()))


@app.command("list", epilog="Example: exgra-med study list")
def list_studies(as_json: AsJson = False) -> None:
    """List the studies that come with the package."""
    from exgra_med.lab.studies.schema import load_study, scales_of, shipped_studies

    rows = {
        name: {"description": load_study(name).description, "scales": scales_of(name)}
        for name in shipped_studies()
    }
    if as_json:
        print_json(rows)
        return
    for name, row in rows.items():
        say(f"{name}  {' '.join(row['description'].split())} Scales: {', '.join(row['scales'])}.")


@app.command(epilog="Example: exgra-med study show data-efficiency --scale smoke")
def show(
    name: Name, scale: Scale = None, assignments: Assignments = None, as_json: AsJson = False
) -> None:
    """Print a study with its recipe and every value written out."""
    from exgra_med.lab.studies.schema import load_study, study_yaml

    study = load_study(name, scale, assignments or ())
    if as_json:
        print_json(study.model_dump(mode="json"))
    else:
        typer.echo(study_yaml(study), nl=False)


@app.command(epilog="Example: exgra-med study table runs/studies/data-efficiency --format latex")
def table(
    folder: Folder,
    form: Annotated[
        str, typer.Option("--format", help="markdown, latex or csv.", metavar="NAME")
    ] = "markdown",
    together: Annotated[
        bool,
        typer.Option(help="Published numbers in the same table; refused for another score."),
    ] = False,
) -> None:
    """Print the table of what is finished; published numbers stand apart."""
    from exgra_med.lab.studies.report import write_results
    from exgra_med.lab.studies.table import render

    typer.echo(render(write_results(folder), form, together), nl=False)


@app.command(epilog="Example: exgra-med study plot runs/studies/data-efficiency")
def plot(folder: Folder) -> None:
    """Write the figures of what is finished, as SVG."""
    from exgra_med.lab.studies.report import write_figures, write_results

    for path in write_figures(folder, write_results(folder)):
        say(path)


@app.command(epilog="Example: exgra-med study report runs/studies/data-efficiency")
def report(folder: Folder) -> None:
    """Write results.json, table.md, the figures and report.html of what is finished."""
    _finish(folder)
