"""What a run will cost, before anything is loaded: parameters, memory, steps, hours, disk.

Operations of one step, with N weights in the language model's layers, T tokens in rows of length L:

    forward of layers     2 N T + 4 h L T num_layers   (packed rows are masked, not skipped)
    backward              the same again for what passes through, and again for weights that learn
    recomputed            the same again
    head                  2 h V for each supervised token, four times (it is recomputed)
    vision tower          2 per weight and patch, forward only

Hours are these operations over what the GPU is assumed to reach. Not counted: reading data,
held-out measurements, answers generated for the best checkpoint, waiting for other GPUs.
"""

from dataclasses import dataclass, replace

from exgra_med.model.config import ExgraConfig
from exgra_med.model.vlm import ExgraForConditionalGeneration
from exgra_med.recipe.combinations import reason_against_shares
from exgra_med.recipe.schema import Recipe, StageSettings
from exgra_med.training.hardware import find_gpu
from exgra_med.training.memory import (
    Memory,
    Parameters,
    count_parameters,
    moment_bytes,
    stage_memory,
    weight_bytes,
)
from exgra_med.training.order import num_steps
from exgra_med.training.sizes import meta_model, model_config, num_parameters
from exgra_med.training.workload import CHARACTERS_PER_TOKEN, Workload, measure_workload

FILLER = 1.05
"""Assumed: padding adds a twentieth to packed rows."""
SUPERVISED = 0.5
"""Assumed: the share of a conversation's text that is learned from."""
RESERVED = 1.5e9
"""Assumed: bytes that the driver, the libraries and gaps in memory take."""


@dataclass(frozen=True)
class StageEstimate:
    """What one stage costs. Memory and time are for one pass and for all steps."""

    name: str
    parameters: Parameters
    workload: Workload
    records_per_step: int
    tokens_per_step: float
    num_steps: int
    memory: Memory
    memory_sharded: Memory | None
    """What `sharding: full` would need; none for one GPU, where it is set, or refused."""
    fits: bool
    hours: float
    disk: float


@dataclass(frozen=True)
class Estimate:
    """What a run costs."""

    gpu: str
    num_gpus: int
    stages: list[StageEstimate]
    start_disk: float
    """Bytes of the checkpoint that is built before the first stage."""

    @property
    def hours(self) -> float:
        """Of all stages."""
        return sum(stage.hours for stage in self.stages)

    @property
    def disk(self) -> float:
        """Bytes of everything that the run writes."""
        return self.start_disk + sum(stage.disk for stage in self.stages)


def estimate_run(recipe: Recipe, gpu: str, num_gpus: int = 1) -> Estimate:
    """Estimate a run.

    Args:
        recipe: the recipe.
        gpu: a name in `hardware.GPUS`.
        num_gpus: devices that share each step.

    Raises:
        ExgraMedError: sizes or data cannot be found out.
    """
    config = model_config(recipe.model)
    model = meta_model(config)
    stages = [_estimate_stage(recipe, name, config, model, gpu, num_gpus) for name in recipe.stages]
    built = recipe.model.start is None
    return Estimate(gpu, num_gpus, stages, 4.0 * num_parameters(model) * built)


def stage_disk(stage: StageSettings, parameters: Parameters) -> float:
    """Bytes that a stage writes: its last checkpoint, resumable ones, the best.

    One resumable checkpoint more than is kept exists while it is written.
    """
    learning = weight_bytes(stage) * parameters.learning
    state = learning + moment_bytes(stage, parameters)
    resumable = float(state) * (stage.keep_checkpoints + 1)
    best = 2.0 * learning
    return (
        float(weight_bytes(stage)) * parameters.total
        + resumable * (stage.save_every_steps is not None)
        + best * (stage.choose == "best")
    )


def step_operations(
    config: ExgraConfig,
    model: ExgraForConditionalGeneration,
    stage: StageSettings,
    tokens: float,
    supervised: float,
    images: float,
) -> float:
    """Floating-point operations of `tokens` of text and `images`, forward and backward."""
    text = config.text_config
    layers = num_parameters(model.get_decoder().layers)  # type: ignore
    attention = 4 * text.hidden_size * stage.tokens_per_row * text.num_hidden_layers
    learns_all = "language" in stage.learn and stage.lora is None
    times = 3 if learns_all else 2
    forward = tokens * (2 * layers + attention)
    tower = num_parameters(model.model.vision_tower)
    projector = num_parameters(model.model.multi_modal_projector)
    return (
        forward * (times + stage.activation_checkpointing)
        + supervised * 2 * text.hidden_size * text.vocab_size * (times + 1)
        + images * (config.image_seq_length + 1) * (2 * tower + 3 * 2 * projector)
    )


def _estimate_stage(
    recipe: Recipe,
    name: str,
    config: ExgraConfig,
    model: ExgraForConditionalGeneration,
    gpu: str,
    num_gpus: int,
) -> StageEstimate:
    stage, hardware = recipe.stages[name], find_gpu(gpu)
    work = measure_workload(recipe, name, config.image_seq_length)
    parameters = count_parameters(model, stage)
    per_record = (work.conversation + work.alignment) * FILLER
    parts = stage.accumulation_steps * num_gpus
    steps = num_steps(work.num_records, stage.batch_size, parts, stage.epochs)
    steps = steps if stage.max_steps is None else min(steps, stage.max_steps)
    records = min(stage.batch_size * parts, work.num_records)
    supervised = max(0.0, work.conversation - work.images * config.image_seq_length) * SUPERVISED
    operations = step_operations(
        config, model, stage, records * per_record, records * supervised, records * work.images
    )
    tokens, images = stage.batch_size * per_record, stage.batch_size * work.images
    memory = stage_memory(config, stage, parameters, tokens, images, num_gpus)
    memory = replace(memory, reserved=RESERVED)
    sharded = None
    if num_gpus > 1 and stage.sharding == "none" and reason_against_shares(stage) is None:
        full = stage.model_copy(update={"sharding": "full"})
        sharded = stage_memory(config, full, parameters, tokens, images, num_gpus)
        sharded = replace(sharded, reserved=RESERVED)
    rate = hardware.operations_per_second * hardware.utilisation * num_gpus
    return StageEstimate(
        name=name,
        parameters=parameters,
        workload=work,
        records_per_step=records,
        tokens_per_step=records * per_record,
        num_steps=steps,
        memory=memory,
        memory_sharded=sharded,
        fits=memory.total <= hardware.memory,
        hours=steps * operations / rate / 3600,
        disk=stage_disk(stage, parameters),
    )


def assumptions(estimate: Estimate) -> list[str]:
    """What the figures rest on, one sentence each."""
    hardware = find_gpu(estimate.gpu)
    guessed = [stage.name for stage in estimate.stages if not stage.workload.counted]
    lines = [
        f"{estimate.gpu} reaches {hardware.utilisation:.0%} of "
        f"{hardware.operations_per_second / 1e12:.0f} TFLOP/s (bfloat16, dense).",
        f"A token has {CHARACTERS_PER_TOKEN} characters; padding adds {FILLER - 1:.0%}.",
        f"{RESERVED / 1e9} GB of memory go to driver, libraries and gaps (`reserved`).",
        "Reading data, held-out measurements and communication take no time.",
    ]
    if guessed:
        lines.append(f"The data of {', '.join(guessed)} is not there: counts and lengths assumed.")
    return lines
