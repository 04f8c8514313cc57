"""What a study will cost before anything runs: steps, tokens and hours of every kind of run."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exgra_med.errors import DataError
from exgra_med.lab.studies.folder import is_finished
from exgra_med.lab.studies.plan import Budget, Node, changed
from exgra_med.lab.studies.schema import Study
from exgra_med.recipe.schema import Recipe
from exgra_med.training.estimate import StageEstimate, estimate_run

# Controls of equal tokens or equal compute: how many steps spend what another method spends.
#
# Counted as `train --dry-run` counts, from the records of both methods: tokens are all that pass
# through the language model, texts of the graphs included; compute is floating-point operations of
# the model, without the matching solver, which runs beside it.

_GPU = "h100"
"""Only ratios of its hours are used, which are ratios of operations."""


def spend_like(recipe: Recipe, budget: Budget) -> tuple[Recipe, dict[str, Any]]:
    """A recipe whose stage has as many steps as the budget pays for.

    Returns:
        The recipe with `epochs` and `max_steps` set, and what was counted, for the run's record.

    Raises:
        ExgraMedError: data or model of either recipe are not there.
    """
    own, other = (_stage(each, budget.stage) for each in (recipe, budget.reference))
    by = budget.match.by
    num_steps = matched_steps(own, other, by)
    spent = num_steps * _step_cost(own, by) / (other.num_steps * _step_cost(other, by))
    stage = recipe.stages[budget.stage]
    parts = stage.batch_size * stage.gradient_accumulation_steps
    steps_of_an_epoch = -(-own.workload.num_records // parts)
    changes = {
        f"stages.{budget.stage}.epochs": float(math.ceil(num_steps / steps_of_an_epoch)),
        f"stages.{budget.stage}.max_steps": num_steps,
    }
    counted = {
        "method": budget.match.method,
        "by": by,
        "stage": budget.stage,
        "num_steps": num_steps,
        "num_steps_of_reference": other.num_steps,
        "tokens_per_step": own.tokens_per_step,
        "tokens_per_step_of_reference": other.tokens_per_step,
        "spent": spent,
        "counted_without": "held-out measurements, and the matching solver's time",
    }
    return changed(recipe, changes, recipe.name), counted


def matched_steps(own: StageEstimate, other: StageEstimate, by: str) -> int:
    """Steps of one stage that spend what all steps of another one do, at least one."""
    return max(1, round(other.num_steps * _step_cost(other, by) / _step_cost(own, by)))


def _stage(recipe: Recipe, name: str) -> StageEstimate:
    only = changed(
        recipe, {"stages": {name: recipe.model_dump(mode="json")["stages"][name]}}, recipe.name
    )
    return estimate_run(only, _GPU).stages[0]


def _step_cost(stage: StageEstimate, by: str) -> float:
    return stage.tokens_per_step if by == "tokens" else stage.hours / stage.num_steps


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
    """Cost of every kind of run, in the plan's order; the study's folder need not exist.

    Raises:
        ExgraMedError: sizes cannot be found out, or there is no such GPU.
    """
    kinds: dict[str, list[Node]] = {}
    for node in nodes:
        if node.recipe is not None:
            kinds.setdefault(node.id.rpartition("/")[0], []).append(node)
    unmade = [node.id for node in nodes if node.is_made and not is_finished(folder, node, study)]
    why = f"known once {' and '.join(unmade)} is made" if unmade else ""
    return [_cost(name, same, nodes, gpu, why) for name, same in kinds.items()]


def _cost(name: str, same: Sequence[Node], nodes: Sequence[Node], gpu: str, why: str) -> Cost:
    if not why:
        try:
            stages = _stages(same[0], nodes, gpu)
        except DataError as error:
            why = error.message
        else:
            steps = sum(stage.num_steps for stage in stages)
            tokens = sum(stage.num_steps * stage.tokens_per_step for stage in stages)
            return Cost(name, len(same), steps, tokens, sum(stage.hours for stage in stages))
    return Cost(name, len(same), None, None, None, why)


def _stages(node: Node, nodes: Sequence[Node], gpu: str) -> list[StageEstimate]:
    assert node.recipe is not None, "only runs have a cost"
    stages = _estimated(_with_origin(node.recipe, node, nodes), gpu)
    budget = node.budget
    if budget is None:
        return stages
    others = _estimated(_with_origin(budget.reference, node, nodes), gpu)
    own, other = (
        next(each for each in found if each.name == budget.stage) for found in (stages, others)
    )
    steps = matched_steps(own, other, budget.match.by)
    matched = replace(own, num_steps=steps, hours=own.hours / own.num_steps * steps)
    return [matched if each is own else each for each in stages]


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
