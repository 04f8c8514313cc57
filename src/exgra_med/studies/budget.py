"""Controls of equal tokens or equal compute: how many steps spend what another method spends.

Counted as `train --dry-run` counts, from the records of both methods: tokens are all that pass
through the language model, texts of the graphs included; compute is floating-point operations of
the model, without the matching solver, which runs beside it.
"""

import math
from typing import Any

from exgra_med.recipe.schema import Recipe
from exgra_med.studies.changes import changed
from exgra_med.studies.plan import Budget
from exgra_med.training.estimate import StageEstimate, estimate_run

_GPU = "h100"
"""Only ratios of its hours are used, which are ratios of operations."""


def spend_like(recipe: Recipe, budget: Budget) -> tuple[Recipe, dict[str, Any]]:
    """A recipe whose stage has as many steps as the budget pays for.

    Args:
        recipe: the control's own recipe.
        budget: what to spend, and in which stage.

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
    parts = stage.batch_size * stage.accumulation_steps
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
