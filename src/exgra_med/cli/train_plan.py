"""What `exgra-med train --dry-run` prints."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exgra_med.recipe.schema import Recipe
    from exgra_med.training.estimate import Estimate, StageEstimate


def plan(recipe: "Recipe", gpu: str, num_gpus: int, as_json: bool) -> None:
    """Print what a run will cost."""
    from exgra_med.cli.output import print_json, say
    from exgra_med.training.estimate import assumptions, estimate_run

    estimate = estimate_run(recipe, gpu, num_gpus)
    if as_json:
        print_json(as_data(recipe.name, estimate) | {"assumptions": assumptions(estimate)})
        return
    say(f"{recipe.name} on {num_gpus} x {gpu}")
    for stage in estimate.stages:
        say(f"\n{stage.name}")
        for name, value in stage_lines(stage):
            say(f"  {name:<20} {value}")
    say(f"\nHours in all         {estimate.hours:.1f}")
    say(f"Disk in all          {gigabytes(estimate.disk)}")
    say("\nThis assumes:")
    for line in assumptions(estimate):
        say(f"  {line}")


def as_data(name: str, estimate: "Estimate") -> dict[str, Any]:
    """The estimate as plain data; bytes, hours and numbers."""
    stages = []
    for stage in estimate.stages:
        memories = {"memory": stage.memory, "memory_sharded": stage.memory_sharded}
        totals = {
            key: None if memory is None else asdict(memory) | {"total": memory.total}
            for key, memory in memories.items()
        }
        stages.append(asdict(stage) | totals)
    return {
        "recipe": name,
        "gpu": estimate.gpu,
        "num_gpus": estimate.num_gpus,
        "stages": stages,
        "hours": estimate.hours,
        "disk": estimate.disk,
    }


def stage_lines(stage: "StageEstimate") -> list[tuple[str, str]]:
    """Name and text of each figure of a stage."""
    parameters, memory, work = stage.parameters, stage.memory, stage.workload
    parts = ", ".join(f"{name} {gigabytes(value)}" for name, value in asdict(memory).items())
    records = f"{work.num_records:,} ({'counted' if work.counted else 'assumed'})"
    lines = [
        ("parameters", f"{parameters.total:,}, of which {parameters.learning:,} learn"),
        ("records", records),
        ("records a step", f"{stage.records_per_step:,}"),
        ("tokens a step", f"{stage.tokens_per_step:,.0f}"),
        ("steps", f"{stage.num_steps:,}"),
        ("memory of a GPU", f"{gigabytes(memory.total)}: {parts}"),
    ]
    if work.share_cut:
        lines.append(("cut at max_length", f"{work.share_cut:.1%} of the records"))
    if stage.memory_sharded is not None:
        lines.append(("  sharding: full", gigabytes(stage.memory_sharded.total)))
    return [
        *lines,
        ("fits", "yes" if stage.fits else "no"),
        ("hours", f"{stage.hours:.1f}"),
        ("disk", gigabytes(stage.disk)),
    ]


def gigabytes(value: float) -> str:
    """Bytes for a person."""
    return f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{value / 1e6:.1f} MB"
