"""`exgra-med study`: one question asked of many runs."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from exgra_med.cli.options import Data, DryRun, Gpu, Json, OptionalOutRun, Out, Set
from exgra_med.terminal import next_step, reporter, say, show, spoken_time

if TYPE_CHECKING:
    from exgra_med.lab.studies.cost import Cost
    from exgra_med.lab.studies.plan import Node
    from exgra_med.lab.studies.schema import Study

app = typer.Typer(
    help="Ask one question of many runs: see the plan (`run --dry-run`), run, compare.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
)
StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of a shipped study, or a YAML file.")
]
FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Folder of a study that was run.")
]
Scale = Annotated[
    str | None,
    typer.Option("--scale", metavar="NAME", help="One of the study's scales, such as smoke."),
]


@app.command("list", epilog="Example: `exgra-med study list`")
def list_studies(as_json: Json = False) -> None:
    """List the studies that come with the package."""
    from exgra_med.lab.studies.schema import load_study, scales_of, shipped_studies

    rows = {
        name: {"description": load_study(name).description, "scales": scales_of(name)}
        for name in shipped_studies()
    }

    def lines() -> Iterator[str]:
        for name, row in rows.items():
            text = " ".join(row["description"].split())
            yield f"{name}  {text} Scales: {', '.join(row['scales'])}."
        yield next_step("study run STUDY --scale smoke --dry-run")

    show(rows, as_json, lines())


@app.command("show", epilog="Example: `exgra-med study show data-efficiency --scale smoke`")
def show_study(
    study: StudyArgument, scale: Scale = None, assignments: Set = None, as_json: Json = False
) -> None:
    """Print a study with its recipe and every value resolved, as YAML."""
    from exgra_med.lab.studies.schema import load_study, study_yaml

    loaded = load_study(study, scale, assignments or ())
    show(loaded.model_dump(mode="json"), as_json, [study_yaml(loaded).rstrip("\n")])


_RUN_EXAMPLES = """
Examples:

* `exgra-med study run data-efficiency --scale smoke --jobs 2`

* `exgra-med study run data-efficiency --dry-run
  --set recipe=[pretrain/connector,pretrain/aligned,finetune/slake] --set make=null`

* `exgra-med study run controls --slurm --jobs 8`

* `exgra-med study run real-small --out again --only cells/exgra-med/0.1/seed-0`
"""
of_machines = partial(typer.Option, rich_help_panel="Machines")


@app.command(epilog=_RUN_EXAMPLES)
def run(
    study: StudyArgument,
    out: OptionalOutRun = None,
    scale: Scale = None,
    assignments: Set = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NODE",
            help="Run this node and what it needs, as `study status` and the report name it. May "
            "be repeated.",
        ),
    ] = None,
    dry_run: DryRun = False,
    gpu: Gpu = "h100",
    jobs: Annotated[int, of_machines("--jobs", min=1, max=4096, help="Runs at the same time.")] = 1,
    processes: Annotated[
        int,
        of_machines(
            "--processes",
            min=1,
            max=4096,
            help="Processes of one run, one GPU each (torch.distributed).",
        ),
    ] = 1,
    slurm: Annotated[
        bool, of_machines("--slurm", help="Write Slurm arrays. Say how to submit them.")
    ] = False,
    submit: Annotated[bool, of_machines("--submit", help="With --slurm: submit them.")] = False,
    as_json: Json = False,
) -> None:
    """Run what is not finished of a study, then compare and report.

    The folder is runs/studies/NAME-SCALE without --out. Started again, also after a crash, it
    continues where it was.
    """
    from exgra_med.lab.studies.schema import load_study

    loaded = load_study(study, scale, assignments or ())
    folder = out or Path("runs/studies") / "-".join(filter(None, (loaded.name, loaded.scale)))
    if dry_run:
        _print_plan(loaded, folder, gpu, jobs, as_json)
        return
    from exgra_med.lab.studies.folder import start_study
    from exgra_med.lab.studies.plan import with_needs
    from exgra_med.lab.studies.slurm import check_words

    if slurm:
        check_words(folder, loaded.name)
    nodes = with_needs(start_study(folder, loaded), only or ())
    if slurm:
        _slurm(folder, loaded, nodes, jobs, submit)
        return
    _run_here(folder, loaded, nodes, jobs, processes, as_json)
    _write_outcome(folder, as_json)


def _run_here(
    folder: Path, study: "Study", nodes: "list[Node]", jobs: int, processes: int, as_json: bool
) -> None:
    from exgra_med.errors import ExgraMedError
    from exgra_med.lab.studies.run import StudyFailed, run_study, share_machine, visible_gpus

    typer.echo("Research use only. No number of a study is clinical evidence.", err=as_json)
    resources = share_machine(jobs, processes, visible_gpus(os.environ))
    try:
        run_study(folder, study, nodes, resources, reporter(as_json))
    except StudyFailed:
        # What there is can still be looked at; the failures end the command all the same.
        try:
            _write_outcome(folder, as_json)
        except ExgraMedError as error:
            typer.echo(f"Nothing was concluded: {error}", err=True)
        raise


def _write_outcome(folder: Path, as_json: bool) -> None:
    from exgra_med.lab.studies.report import write_outcome

    outcome = write_outcome(folder)
    page = f"Open {outcome['report']} in a browser; {folder / 'results.json'} has the numbers."
    value = outcome | {"report": str(outcome["report"])}
    show(value, as_json, [*outcome["conclusion"], page])


def _slurm(folder: Path, study: "Study", nodes: "list[Node]", jobs: int, submit_them: bool) -> None:
    from exgra_med.lab.studies.folder import is_finished
    from exgra_med.lab.studies.run import share_machine
    from exgra_med.lab.studies.slurm import shell_lines, submit, write_arrays

    finished = {node.id for node in nodes if is_finished(folder, node, study)}
    threads = share_machine(1, 1, ()).threads
    commands = write_arrays(folder, study.name, nodes, finished, jobs, threads)
    for line in shell_lines(commands):
        say(line)
    if submit_them:
        say(f"Submitted: {', '.join(submit(commands))}.")
    say(f"Afterwards: exgra-med study report {folder}")


_NODE_SECONDS = 10.0


@app.command(
    hidden=True, epilog="Example: `exgra-med study node runs/studies/x cells/exgra-med/0.1/seed-0`"
)
def node(
    folder: FolderArgument,
    name: Annotated[
        str, typer.Argument(metavar="NODE", help="The node, as `study status` names it.")
    ],
) -> None:
    """Do one node of a study in this process. `study run` and Slurm call this."""
    from exgra_med.lab.studies.node import run_node

    # `study run` shows the last line of each log.
    run_node(folder, name, reporter(on_stderr=False, seconds_between_lines=_NODE_SECONDS))


@app.command(epilog="Example: `exgra-med study status runs/studies/data-efficiency-smoke`")
def status(folder: FolderArgument, as_json: Json = False) -> None:
    """Say which nodes are finished, running, waiting or failed, and why."""
    from exgra_med.lab.studies.folder import open_study, remaining_seconds, states, write_status

    study, nodes = open_study(folder)
    found = write_status(folder, study, nodes)
    left = remaining_seconds(nodes, states(folder, study, nodes), jobs=1)

    def lines() -> Iterator[str]:
        for name, attempt in found["nodes"].items():
            seconds = attempt["seconds"]
            took = f"{seconds:.0f} s" if seconds and attempt["state"] != "running" else ""
            yield f"{attempt['state']:<9} {took:>7}  {name}  {attempt['sentence']}".rstrip()
        yield ", ".join(f"{count} {state}" for state, count in found["counts"].items())
        if left is not None:
            yield f"About {spoken_time(left)} left with --jobs 1."
        yield next_step(f"study report {folder}")

    show(found, as_json, lines())


_REPORT_EXAMPLES = """
Examples:

* `exgra-med study report runs/studies/data-efficiency`

* `exgra-med study report runs/studies/data-efficiency --format latex`
"""


@app.command(epilog=_REPORT_EXAMPLES)
def report(
    folder: FolderArgument,
    output_format: Annotated[
        Literal["html", "markdown", "latex", "csv", "svg"],
        typer.Option("--format", help="A page, a table to print, or the figures."),
    ] = "html",
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="Published numbers in the same table. Refused for another score."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Report what is finished of a study.

    `html` writes report.html with results.json, table.md and the figures into the folder, `svg`
    the figures alone. Both show a few test pictures. `markdown`, `latex` and `csv` print the table.
    """
    from exgra_med.lab.studies.report import write_figures, write_results_and_pick
    from exgra_med.lab.studies.table import render

    if output_format == "html":
        _write_outcome(folder, as_json)
        return
    is_drawn = output_format == "svg"
    results, differing = write_results_and_pick(folder, pick=is_drawn)
    if kept := results.pop("kept", None):
        typer.echo(kept, err=True)
    if is_drawn:
        lines = [f"Written: {path}" for path in write_figures(folder, results, differing)]
    else:
        lines = [render(results, output_format, together).rstrip("\n")]
    show(results, as_json, lines)


@app.command(
    "make-parts",
    epilog="Example: `exgra-med study make-parts --data data/phantom --out runs/parts`",
)
def make_parts(
    data: Data,
    out: Out,
    settings: Annotated[
        Path | None,
        typer.Argument(metavar="SETTINGS", help="YAML file. The defaults suit the phantoms."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train small base models for `model.parts`: a vision tower and a language model.

    The data needs the splits `vision` and `language`. Neither model sees a question about an image.
    Started again, it continues where it was.
    """
    from exgra_med.lab.base_models.make import make_parts as make
    from exgra_med.lab.base_models.settings import PartsSettings, load_parts

    chosen = PartsSettings() if settings is None else load_parts(settings)
    make(chosen, Path(data), out, reporter(as_json))
    places = {part: str(out / part) for part in ("language", "vision")}
    show(places, as_json, [f"Finished. In a recipe:\nmodel:\n  parts: {json.dumps(places)}"])


def _print_plan(study: "Study", folder: Path, gpu: str, jobs: int, as_json: bool) -> None:
    """Print every node of a study, what its runs cost, and how long they take here if known."""
    from exgra_med.lab.studies.cost import study_cost
    from exgra_med.lab.studies.folder import remaining_seconds, states
    from exgra_med.lab.studies.plan import plan_study

    nodes = plan_study(study, folder)
    found = states(folder, study, nodes)
    finished = {name for name, attempt in found.items() if attempt.state == "finished"}
    cells = [node.id for node in nodes if node.kind == "cell"]
    seconds = remaining_seconds(nodes, found, jobs)
    costs = study_cost(study, nodes, folder, gpu)
    known = [cost for cost in costs if cost.hours is not None]
    hours = sum(cost.num_runs * (cost.hours or 0.0) for cost in known)
    tokens = sum(cost.num_runs * (cost.tokens or 0.0) for cost in known)
    all_known = len(known) == len(costs)
    value = {
        "study": study.name,
        "scale": study.scale,
        "folder": str(folder),
        "gpu": gpu,
        "nodes": [
            {"id": node.id, "needs": list(node.needs), "finished": node.id in finished}
            for node in nodes
        ],
        "runs": [asdict(cost) for cost in costs],
        "tokens": tokens if all_known else None,
        "hours": hours if all_known else None,
        "num_cells": len(cells),
        "num_cells_finished": len(finished.intersection(cells)),
        "jobs": jobs,
        "seconds_left_here": seconds,
    }

    def lines() -> Iterator[str]:
        yield (
            f"{study.name}: {len(nodes)} nodes in {folder}, {len(finished)} finished; "
            f"{len(cells)} of them are cells (runs that are compared), "
            f"{len(finished.intersection(cells))} finished"
        )
        yield from (f"  {node.id}" for node in nodes if node.is_made)
        width = max(len(cost.name) for cost in costs)
        head = f"{'runs':>4} {'steps':>9} {'tokens':>9} {'hours':>8}   (of one run)"
        yield f"\n{'run':<{width}}  {head}"
        yield from (f"{each.name:<{width}}  {each.num_runs:>4} {_figures(each)}" for each in costs)
        if all_known:
            yield f"\nIn all: {_short(tokens)} tokens, {hours:.1f} hours of one {gpu} in training."
        yield "Hours are operations over what the GPU is assumed to reach; answers are not counted."
        yield _time_here(seconds, jobs, len(finished) == len(nodes))

    show(value, as_json, lines())


def _time_here(seconds: float | None, jobs: int, is_done: bool) -> str:
    if is_done:
        return "On this machine: everything is finished."
    if seconds is None:
        return (
            "On this machine: not known before a run is finished here; then this plan and "
            "`study status` say it."
        )
    return (
        f"On this machine: about {spoken_time(seconds)} with --jobs {jobs}, from what is finished."
    )


def _figures(cost: "Cost") -> str:
    if cost.num_steps is None or cost.tokens is None or cost.hours is None:
        return f"  {cost.why_unknown}"
    return f"{cost.num_steps:>9,} {_short(cost.tokens):>9} {cost.hours:>8.2f}"


def _short(tokens: float) -> str:
    return f"{tokens / 1e6:,.1f} M" if tokens >= 1e6 else f"{tokens / 1e3:,.1f} k"
