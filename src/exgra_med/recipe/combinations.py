"""Settings of a stage that do not go together, each with its sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exgra_med.recipe.schema import StageSettings


def check_together(stage: StageSettings) -> None:
    """Refuse settings that contradict one another, or that nobody has tested together.

    Raises:
        ValueError: what does not go with what; pydantic adds where.
    """
    if stage.lora is not None and "language" not in stage.learn:
        raise ValueError("`lora` needs `language` among the parts that learn")
    _check_graphs(stage)
    if stage.sharding == "full" and (reason := reason_against_shares(stage)) is not None:
        raise ValueError(f"`sharding: full` {reason}")
    if stage.weights == "bfloat16":
        _check_half_weights(stage)


def _check_graphs(stage: StageSettings) -> None:
    """A graph of one node has loss 0: such a stage would train without alignment in silence."""
    alignment = stage.alignment
    if alignment is None or alignment.weight == 0 or alignment.scope == "global":
        return
    if stage.batch_size == 1:
        raise ValueError(
            "`alignment` needs a `batch_size` of 2 or more, which is the number of nodes of a "
            "graph (one node has loss 0); or set `alignment.weight` to 0"
        )


def reason_against_shares(stage: StageSettings) -> str | None:
    """Why the weights of a stage cannot be shared out, whether it wants that or not."""
    if stage.lora is not None and stage.lora.quantize != "none":
        return "cannot cut weights in 4 bits; set `lora.quantize` or `sharding` to none"
    if "vision" in stage.learn:
        return "does not cut the tower; leave `vision` out of `learn`"
    untested = {
        "weights: bfloat16": stage.weights == "bfloat16",
        "optimizer: adamw8bit": stage.optimizer == "adamw8bit",
        "compile: true": stage.compile,
    }
    found = " and ".join(f"`{setting}`" for setting, given in untested.items() if given)
    return f"was not tested with {found}; set `sharding` to none" if found else None


def _check_half_weights(stage: StageSettings) -> None:
    if stage.optimizer != "adamw8bit":
        raise ValueError("`weights: bfloat16` needs `optimizer: adamw8bit`")
    if stage.precision != "bfloat16":
        raise ValueError("`weights: bfloat16` needs `precision: bfloat16`")
    if stage.lora is not None and stage.lora.quantize != "none":
        raise ValueError("`weights: bfloat16` does not go with `lora.quantize`")
