"""What a study will cost before anything runs: steps, tokens and hours of every kind of run."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError
from exgra_med.recipe.schema import Recipe
from exgra_med.studies.budget import matched_steps
from exgra_med.studies.changes import changed
from exgra_med.studies.folder import is_finished
from exgra_med.studies.plan import Node
from exgra_med.studies.schema import Study
from exgra_med.training.estimate import StageEstimate, estimate_run


@dataclass(frozen=True)
class Cost:
    """Runs that differ in their seed only."""

    name: str
    """Their folder, without the seed."""
    num_runs: int
    num_steps: int | None
    """Of one run; like the others None where it is not known yet."""
    tokens: float | None
    """Through the language model in training, of one run."""
    hours: float | None
    """Of one run in training, on one GPU."""
    why_unknown: str = ""


def study_cost(study: Study, nodes: Sequence[Node], folder: Path, gpu: str) -> list[Cost]:
    """Cost of every kind of run, in the plan's order.

    Args:
        study: the study.
        nodes: its nodes.
        folder: its folder, which need not exist.
        gpu: a name in `training.hardware.GPUS`.

    Raises:
        ExgraMedError: sizes cannot be found out, or there is no such GPU.
    """
    kinds: dict[str, list[Node]] = {}
    for node in nodes:
        if node.recipe is not None:
            kinds.setdefault(node.id.rpartition("/")[0], []).append(node)
    unmade = [
        node.id for node in nodes if node.is_made and not is_finished(folder, node, study.metric)
    ]
    if unmade:
        why = f"known once {' and '.join(unmade)} is made"
        return [Cost(name, len(same), None, None, None, why) for name, same in kinds.items()]
    return [_cost(name, same, nodes, gpu) for name, same in kinds.items()]


def _cost(name: str, same: Sequence[Node], nodes: Sequence[Node], gpu: str) -> Cost:
    try:
        stages = _stages(same[0], nodes, gpu)
    except DataError as error:
        return Cost(name, len(same), None, None, None, error.message)
    return Cost(
        name,
        len(same),
        sum(stage.num_steps for stage in stages),
        sum(stage.num_steps * stage.tokens_per_step for stage in stages),
        sum(stage.hours for stage in stages),
    )


def _stages(node: Node, nodes: Sequence[Node], gpu: str) -> list[StageEstimate]:
    recipe = node.recipe
    assert recipe is not None, "only runs have a cost"
    stages = _estimated(_with_origin(recipe, node, nodes), gpu)
    if node.budget is None:
        return stages
    budget = node.budget
    (other,) = (
        each
        for each in _estimated(_with_origin(budget.reference, node, nodes), gpu)
        if each.name == budget.stage
    )
    return [
        _with_steps(each, matched_steps(each, other, budget.match.by))
        if each.name == budget.stage
        else each
        for each in stages
    ]


def _with_steps(stage: StageEstimate, num_steps: int) -> StageEstimate:
    return replace(stage, num_steps=num_steps, hours=stage.hours / stage.num_steps * num_steps)


def _with_origin(recipe: Recipe, node: Node, nodes: Iterable[Node]) -> Recipe:
    """The recipe on the model that its shared run starts from, which need not exist yet."""
    for other in nodes:
        if other.id in node.needs and other.recipe is not None:
            model = _with_origin(other.recipe, other, nodes).model_dump(mode="json")["model"]
            return changed(recipe, {"model": model}, node.id)
    return recipe


_KNOWN: dict[tuple[str, str], list[StageEstimate]] = {}


def _estimated(recipe: Recipe, gpu: str) -> list[StageEstimate]:
    """Estimates are asked for again and again: by arms with one recipe, and by their controls."""
    values: dict[str, Any] = recipe.model_dump(mode="json")
    key = (json.dumps([values[name] for name in ("model", "stages", "text", "data")]), gpu)
    if key not in _KNOWN:
        _KNOWN[key] = estimate_run(recipe, gpu).stages
    return _KNOWN[key]
