"""`exgra-med train`: run the stages of a recipe."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exgra_med.cli.options import PLAN, DryRun, Gpu, Json, OptionalOutRun, Resume, Set
from exgra_med.errors import RecipeError
from exgra_med.terminal import next_step, remark, reporter, show, waiting_for

if TYPE_CHECKING:
    from exgra_med.recipe.schema import Recipe, StageSettings
    from exgra_med.training.estimate import Estimate, StageEstimate

EXAMPLES = """
Examples:

* `exgra-med train finetune/vqa-rad --dry-run --gpu a100-80`

* `exgra-med train demo --out runs/mine --set stages.aligned.epochs=2`

* `torchrun --nproc_per_node 4 -m exgra_med train pretrain/aligned`
"""


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")
    ],
    out: OptionalOutRun = None,
    assignments: Set = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    gpu: Gpu = "h100",
    gpus: Annotated[
        int, typer.Option("--gpus", min=1, rich_help_panel=PLAN, help="GPUs to plan for.")
    ] = 1,
    timeout_minutes: Annotated[
        int,
        typer.Option(
            "--timeout-minutes",
            min=1,
            help="Stop after so long without a word from another process of the launch.",
        ),
    ] = 30,
    as_json: Json = False,
) -> None:
    """Train the stages of a recipe, one after another.

    The run folder is runs/NAME, after the recipe, without --out. A run that was stopped continues
    with --resume and ends with the same weights. Give every --set again then, as the recipe must
    be the same. `torchrun` or `accelerate launch` decide on how many GPUs training runs.
    """
    from exgra_med.recipe.load import load_recipe

    if dry_run:
        try:
            own = load_recipe(recipe).recipe
        except RecipeError:
            # A recipe that is whole only with --set; if it is not then, the next line says so.
            own = None
        wanted = load_recipe(recipe, assignments or ()).recipe
        _plan(wanted, own, out or Path("runs") / wanted.name, gpu, gpus, as_json)
        return
    from exgra_med.evaluation.held_out import held_out_scorer
    from exgra_med.files import is_unused
    from exgra_med.recipe.run_folder import RECORD, unchecked
    from exgra_med.training.distributed import on_main, process_state, refuse_other_engines
    from exgra_med.training.preflight import check_before_training, start_notes
    from exgra_med.training.stages import begin_run, train_run

    refuse_other_engines()
    if process_state(timeout_minutes).is_main_process:
        from exgra_med.model.bundle import device_sentence

        told_device = device_sentence(str(process_state().device))
        count = process_state().num_processes
        remark(told_device if count == 1 else f"{told_device} {count} processes.")
    loaded = load_recipe(recipe, assignments or ())
    folder = out or Path("runs") / loaded.recipe.name

    def check() -> None:
        with waiting_for("Checking recipe, data and model"):
            check_before_training(loaded.recipe, folder)

    on_main(check)
    told = reporter(as_json)
    if process_state().is_main_process:
        for note in start_notes(loaded.recipe):
            told.console.print(f"Note: {note}")
    if resume and process_state().is_main_process and is_unused(folder, leftovers=(RECORD,)):
        told.console.print(f"There is nothing to go on with in {folder}: a new run begins.")
    run = begin_run(folder, loaded.recipe, resume)
    if (said := unchecked(folder)) and process_state().is_main_process:
        told.console.print(f"Note: {said}")
    final = train_run(run, told, held_out_scorer)
    if process_state().is_main_process:
        done = f"Finished. The last checkpoint is {final}."
        value = {"run": str(folder), "checkpoint": str(final)}
        show(value, as_json, [done, next_step(f"evaluate vqa {folder}")])


def _plan(
    recipe: "Recipe", own: "Recipe | None", out: Path, gpu: str, num_gpus: int, as_json: bool
) -> None:
    """Print what a run will cost: the answer of --dry-run.

    `own` is the recipe as it is written, where it can be read so, without what `--set` changes; its
    records a step are those to keep.
    """
    from exgra_med.training.estimate import assumptions, estimate_run
    from exgra_med.training.preflight import check_plan, missing_here, start_notes

    check_plan(recipe, num_gpus)
    estimate = estimate_run(recipe, gpu, num_gpus)
    warnings = _step_warnings(recipe, own, num_gpus) + _memory_advice(recipe, estimate)
    warnings += start_notes(recipe)
    warnings += [f"This machine cannot run it: {error}" for error in missing_here(recipe, out)]

    def lines() -> Iterator[str]:
        yield f"{recipe.name} on {num_gpus} x {gpu}"
        for stage in estimate.stages:
            yield f"\n{stage.name}"
            for name, value in _stage_lines(stage, recipe.stages[stage.name], num_gpus):
                yield f"  {name:<20} {value}"
        yield f"\nHours in all         {estimate.hours:.1f}"
        yield f"Disk in all          {_gigabytes(estimate.disk)}"
        yield from (f"\nNote: {warning}" for warning in warnings)
        yield "\nThis assumes:"
        yield from (f"  {line}" for line in assumptions(estimate))

    more = {"warnings": warnings, "assumptions": assumptions(estimate)}
    show(_as_data(recipe, estimate) | more, as_json, lines())


def _as_data(recipe: "Recipe", estimate: "Estimate") -> dict[str, Any]:
    """The estimate as plain data; bytes, hours and numbers."""
    stages = []
    for stage in estimate.stages:
        memories = {"memory": stage.memory, "memory_sharded": stage.memory_sharded}
        totals = {
            key: None if memory is None else asdict(memory) | {"total": memory.total}
            for key, memory in memories.items()
        }
        settings = recipe.stages[stage.name]
        step = {
            "batch_size": settings.batch_size,
            "gradient_accumulation_steps": settings.gradient_accumulation_steps,
            "num_gpus": estimate.num_gpus,
            "nodes_of_a_graph": _graph_nodes(settings, estimate.num_gpus),
        }
        stages.append(asdict(stage) | totals | {"step": step})
    about = {"recipe": recipe.name, "gpu": estimate.gpu, "num_gpus": estimate.num_gpus}
    return about | {"stages": stages, "hours": estimate.hours, "disk": estimate.disk}


def _stage_lines(
    stage: "StageEstimate", settings: "StageSettings", num_gpus: int
) -> list[tuple[str, str]]:
    """Name and text of each figure of a stage."""
    parameters, memory, work = stage.parameters, stage.memory, stage.workload
    parts = ", ".join(f"{name} {_gigabytes(value)}" for name, value in asdict(memory).items())
    records = f"{work.num_records:,} ({'counted' if work.counted else 'assumed'})"
    accumulated = settings.gradient_accumulation_steps
    passes = f"{settings.batch_size} a pass x {accumulated} accumulated"
    nodes = _graph_nodes(settings, num_gpus)
    graphs = "" if nodes is None else f"; graphs of {nodes} nodes"
    warm_up = f"{settings.warmup_ratio:.0%} warm-up"
    limit = "" if settings.max_steps is None else f", at most {settings.max_steps:,} steps"
    own = "".join(f", of {part} {rate:g}" for part, rate in settings.learning_rates.items())
    lines = [
        ("parameters", f"{parameters.total:,}, of which {parameters.trainable:,} learn"),
        ("records", records),
        ("records a step", f"{stage.records_per_step:,}: {passes} x {num_gpus} GPUs{graphs}"),
        ("tokens a step", f"{stage.tokens_per_step:,.0f}"),
        ("epochs", f"{settings.epochs:g}{limit}"),
        ("steps", f"{stage.num_steps:,}"),
        ("learning rate", f"{settings.learning_rate:g}{own}, {settings.lr_scheduler}, {warm_up}"),
        ("precision", f"{settings.precision}, weights {settings.weights}, {settings.optimizer}"),
        ("sharding", settings.sharding),
        ("memory of a GPU", f"{_gigabytes(memory.total)}: {parts}"),
    ]
    if work.share_cut:
        lines.append(("cut at max_length", f"{work.share_cut:.1%} of the records"))
    if stage.memory_sharded is not None:
        lines.append(("  sharding: full", _gigabytes(stage.memory_sharded.total)))
    return [
        *lines,
        ("fits", "yes" if stage.fits else "no"),
        ("hours", f"{stage.hours:.1f}"),
        ("disk", _gigabytes(stage.disk)),
    ]


def _graph_nodes(settings: "StageSettings", num_gpus: int) -> int | None:
    """Nodes of each graph; none in a stage without alignment."""
    if settings.alignment is None:
        return None
    return settings.batch_size * (num_gpus if settings.alignment.scope == "global" else 1)


def _step_warnings(recipe: "Recipe", own: "Recipe | None", num_gpus: int) -> list[str]:
    """A sentence for each stage that several GPUs give other records a step than its recipe has."""
    sentences = []
    for name, stage in recipe.stages.items():
        written = None if own is None else own.stages.get(name)
        if written is None or num_gpus == 1:
            continue
        wanted = written.batch_size * written.gradient_accumulation_steps
        planned = stage.batch_size * stage.gradient_accumulation_steps * num_gpus
        if planned == wanted:
            continue
        passes, rest = divmod(wanted, stage.batch_size * num_gpus)
        keep = (
            f"--set stages.{name}.gradient_accumulation_steps={passes} keeps {wanted}."
            if passes and not rest
            else f"No gradient_accumulation_steps gives {wanted} at batch_size {stage.batch_size}."
        )
        sentences.append(
            f"{num_gpus} GPUs make {planned} records a step of stage {name}, and the recipe has "
            f"{wanted}: fewer steps, another experiment. {keep}"
        )
    return sentences


def _memory_advice(recipe: "Recipe", estimate: "Estimate") -> list[str]:
    """What to try where a stage does not fit, one sentence for each stage."""
    from exgra_med.recipe.load import shipped_recipes
    from exgra_med.training.estimate import find_gpu

    smaller = [f"{recipe.name}-{end}" for end in ("one-card", "lora", "qlora")]
    known = [name for name in smaller if name in shipped_recipes()]
    sentences = []
    for stage in estimate.stages:
        if stage.fits:
            continue
        shared = stage.memory_sharded
        if shared is not None and shared.total <= find_gpu(estimate.gpu).memory:
            remedy = f"--set stages.{stage.name}.sharding=full."
            sentences.append(f"Stage {stage.name} fits with {remedy}")
            continue
        settings = recipe.stages[stage.name]
        can_share = settings.reason_against_sharding is None
        ways = [f"the recipe {name}" for name in known]
        if not known and settings.lora is None and "language" in settings.trainable:
            ways.append(f"adapters (--set 'stages.{stage.name}.lora={{rank: 64}}')")
        ways += [f"more GPUs with stages.{stage.name}.sharding=full (--gpus)"] * can_share
        ways.append("a card with more memory (--gpu)")
        if not settings.activation_checkpointing:
            ways.append(f"stages.{stage.name}.activation_checkpointing=true")
        sentences.append(f"Stage {stage.name} does not fit. Try {' or '.join(ways)}.")
    return sentences


def _gigabytes(value: float) -> str:
    """Bytes for a person."""
    return f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{value / 1e6:.1f} MB"
