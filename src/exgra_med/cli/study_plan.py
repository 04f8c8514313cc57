"""What `exgra-med study run --dry-run` prints."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from exgra_med.cli.output import print_json, say

if TYPE_CHECKING:
    from exgra_med.lab.studies.cost import Cost
    from exgra_med.lab.studies.schema import Study


def print_plan(study: "Study", folder: Path, gpu: str, as_json: bool) -> None:
    """Print every node of a study, and what its runs cost."""
    from exgra_med.lab.studies.cost import study_cost
    from exgra_med.lab.studies.folder import is_finished
    from exgra_med.lab.studies.plan import plan_study

    nodes = plan_study(study, folder)
    finished = {node.id for node in nodes if is_finished(folder, node, study.metric)}
    costs = study_cost(study, nodes, folder, gpu)
    known = [cost for cost in costs if cost.hours is not None]
    hours = sum(cost.num_runs * (cost.hours or 0.0) for cost in known)
    tokens = sum(cost.num_runs * (cost.tokens or 0.0) for cost in known)
    if as_json:
        print_json(
            {
                "study": study.name,
                "scale": study.scale,
                "folder": str(folder),
                "gpu": gpu,
                "nodes": [
                    {"id": node.id, "needs": list(node.needs), "finished": node.id in finished}
                    for node in nodes
                ],
                "runs": [asdict(cost) for cost in costs],
                "tokens": tokens if len(known) == len(costs) else None,
                "hours": hours if len(known) == len(costs) else None,
            }
        )
        return
    say(f"{study.name}: {len(nodes)} nodes in {folder}, {len(finished)} finished")
    for node in nodes:
        if node.is_made:
            say(f"  {node.id}")
    width = max(len(cost.name) for cost in costs)
    say(f"\n{'run':<{width}}  {'runs':>4} {'steps':>9} {'tokens':>9} {'hours':>8}   (of one run)")
    for cost in costs:
        say(f"{cost.name:<{width}}  {cost.num_runs:>4} {_figures(cost)}")
    if len(known) == len(costs):
        say(f"\nIn all: {_short(tokens)} tokens, {hours:.1f} hours of one {gpu} in training.")
    say("Hours are operations over what the GPU is assumed to reach; answers are not counted.")


def _figures(cost: "Cost") -> str:
    if cost.num_steps is None or cost.tokens is None or cost.hours is None:
        return f"  {cost.why_unknown}"
    return f"{cost.num_steps:>9,} {_short(cost.tokens):>9} {cost.hours:>8.2f}"


def _short(tokens: float) -> str:
    return f"{tokens / 1e6:,.1f} M" if tokens >= 1e6 else f"{tokens / 1e3:,.1f} k"
