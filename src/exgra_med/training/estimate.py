"""What a run will cost, before anything is loaded: parameters, memory, steps, hours, disk.

Operations of one step, with N weights in the language model's layers, T tokens in rows of length L:

    forward of layers     2 N T + 4 h L T num_layers   (packed rows are masked, not skipped)
    backward              the same again for activations, and again for trainable weights
    recomputed            the same again
    head                  2 h V for each supervised token, four times (it is recomputed)
    vision tower          2 per weight and patch, three times that where it is trained

Hours are these operations over what the GPU is assumed to reach. Not counted: reading data,
held-out measurements, answers generated for the best checkpoint, waiting for other GPUs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from exgra_med.data.chat_template import IMAGE_BLOCK, alignment_text, conversation_segments
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, open_prepared
from exgra_med.errors import DataError, MissingExtraError, RecipeError
from exgra_med.model.batch import chosen_records, conversations_of
from exgra_med.model.bundle import load_processor
from exgra_med.model.image_budget import ImageCost, fixed_cost, image_cost, set_image_budget
from exgra_med.model.native import ExgraConfig
from exgra_med.model.probe import known_facts
from exgra_med.model.sizes import meta_model, model_config, num_parameters, origin, part_of
from exgra_med.recipe.schema import ModelSettings, Recipe, StageSettings
from exgra_med.training.memory import (
    Memory,
    Parameters,
    Shape,
    count_parameters,
    moment_bytes,
    shape_of,
    stage_memory,
    weight_bytes,
)
from exgra_med.training.order import num_steps


@dataclass(frozen=True)
class Gpu:
    """Part of its name in the driver, memory in bytes, dense bfloat16 operations per second as its
    maker states them, and the share of these that training is assumed to reach."""

    driver_name: str
    memory: float
    operations_per_second: float
    utilisation: float = 0.40


# GPUs that a run can be planned for. An H100 on PCIe or an H200 NVL has another peak and is not in
# it. Source: NVIDIA's data sheets (H100 SXM and H200 SXM: 1,979 TFLOPS with sparsity, so 989
# without).
GPUS = {
    "h200": Gpu("H200", 141e9, 989e12),
    "h100": Gpu("H100 80GB HBM3", 80e9, 989e12),
    "a100-80": Gpu("A100-SXM4-80GB", 80e9, 312e12),
    "a100-40": Gpu("A100-SXM4-40GB", 40e9, 312e12),
    "l40s": Gpu("L40S", 48e9, 362e12, 0.35),
    "a6000": Gpu("RTX A6000", 48e9, 155e12, 0.35),
    "rtx4090": Gpu("RTX 4090", 24e9, 165e12, 0.35),
}


def peak_of(device_name: str) -> float | None:
    """Dense bfloat16 operations per second of a device by its driver's name, where known."""
    if "NVL" in device_name:
        return None
    peaks = (g.operations_per_second for g in GPUS.values() if g.driver_name in device_name)
    return next(peaks, None)


def find_gpu(name: str) -> Gpu:
    """A GPU of `GPUS` by its name.

    Raises:
        RecipeError: no GPU is called so; lists the known ones.
    """
    if name not in GPUS:
        raise RecipeError(f"There is no GPU {name!r} in the table.", f"Known: {', '.join(GPUS)}.")
    return GPUS[name]


CHARACTERS_PER_TOKEN = 3.5
"""Assumed: medical English under LLaMA's tokenizer."""
NUM_SAMPLED = 500
"""Records whose length is measured; they are spread over the whole split."""
NUM_PICTURES = 50
"""Of these records the sizes of the images are read, where a model has more tokens for larger."""
FILLER = 1.05
"""Assumed: padding adds a twentieth to packed rows."""
PADDED = 1.3
"""Assumed: what padding makes of rows with one conversation each."""
PICTURE = (512, 512)
"""Assumed: width and height of an image of data that is not there."""
SUPERVISED = 0.5
"""Assumed: the share of a conversation's text that the loss counts."""
RESERVED = 1.5e9
"""Assumed: bytes that the driver, the libraries and gaps in memory take."""


@dataclass(frozen=True)
class Workload:
    """How much text and how many images a stage has: counted in its data, or assumed."""

    num_records: int
    conversation: float
    """Mean tokens of a record's conversations."""
    alignment: float
    """Mean tokens of the texts that its graphs add."""
    images: float
    """Mean images of a record."""
    image: ImageCost
    """Of a mean image."""
    share_cut: float
    """Share of the records whose conversation is longer than `text.max_length`."""
    counted: bool
    """Whether the data was found; otherwise all of it is assumed."""


ASSUMED = {
    # name of the folder: records, conversation, answer + extended answer
    "llava-med-alignment": (500_000, 370, 180),
    "llava-med-instruct": (60_000, 640, 640),
    "vqa-rad": (1_797, 330, 60),
    "slake": (4_919, 330, 60),
    "pathvqa": (19_755, 330, 60),
}
"""Published or prepared counts; lengths are guesses, with the image of `ASSUMED_IMAGE` tokens."""
ASSUMED_IMAGE = 258


@dataclass
class PlannedModel:
    """What a plan knows of a model beside its sizes: what its images cost, and whether it packs."""

    config: Any
    processor: Any = None
    """What images are measured with; none for this project's own model, whose images all cost the
    same, and where it is not here."""
    packs: bool = True
    """Whether rows hold several conversations. Of another model it was measured, or it does not."""
    notes: list[str] = field(default_factory=list)
    """What is assumed, one sentence each."""
    _known: dict[tuple[int, int], ImageCost] = field(default_factory=dict)

    def of_size(self, size: tuple[int, int]) -> ImageCost:
        """Of an image of a width and height."""
        if self.processor is None:
            return fixed_cost(self.config)
        if size not in self._known:
            self._known[size] = image_cost(self.processor, self.config, size)
        return self._known[size]

    def mean(self, records: Sequence[Record], images: ImageFolder) -> ImageCost:
        """Of the images of some records."""
        if self.processor is None:
            return fixed_cost(self.config)
        some = records[:: max(1, len(records) // NUM_PICTURES)]
        found = [self.of_size(images.size(n, each.id)) for each in some for n in each.images]
        found = found or [self.of_size(PICTURE)]
        return ImageCost(
            sum(each.tokens for each in found) / len(found),
            sum(each.length for each in found) / len(found),
            sum(each.patches for each in found) / len(found),
        )


def planned_model(settings: ModelSettings, config: Any) -> PlannedModel:
    """What is known of a recipe's model without its weights.

    Raises:
        CheckpointError: the model's processor is damaged, or has no chat template.
        RecipeError: it has no such image budget as the recipe asks for.
    """
    if isinstance(config, ExgraConfig):
        return PlannedModel(config)
    place = origin(settings)
    if not isinstance(place, Path):
        # A joined model's images are of one size, which its configuration tells.
        return PlannedModel(config, packs=False)
    facts = known_facts(place).get("float32")
    packs = facts is not None and facts.image_packing is not None
    try:
        processor = load_processor(place)
    except MissingExtraError as error:
        tokens = fixed_cost(config).tokens
        note = f"An image is assumed to have {tokens:.0f} tokens, as it cannot be measured: {error}"
        return PlannedModel(config, None, packs, [note])
    if settings.images is not None:
        set_image_budget(processor, config, settings.images)
    return PlannedModel(config, processor, packs)


def measure_workload(recipe: Recipe, name: str, planned: PlannedModel) -> Workload:
    """Measure the data of a stage.

    Raises:
        DataError: the data is not there, and nothing is known about a folder of that name; or the
            images of a record are longer than a conversation may be.
    """
    settings, stage = recipe.stage_data(name), recipe.stages[name]
    aligned = stage.aligned is not None
    with_extended = stage.alignment is not None and stage.alignment.has_extended
    try:
        prepared = open_prepared(settings.folder)
    except DataError:
        known = ASSUMED.get(settings.folder.rstrip("/").rpartition("/")[2])
        if known is None:
            raise
        count, conversation, alignment = known
        records, image = max(1, round(count * settings.fraction)), planned.of_size(PICTURE)
        if not isinstance(planned.config, ExgraConfig):
            conversation += image.length - ASSUMED_IMAGE
        return Workload(records, conversation, alignment * aligned, 1.0, image, 0.0, counted=False)
    records = chosen_records(prepared.stored(settings.split), settings)
    if not records:
        raise DataError(f"{settings.folder}: the split {settings.split!r} has no record.")
    images = prepared.image_folder(settings.max_pixels)
    held_out = [] if settings.held_out_split is None else prepared.iterate(settings.held_out_split)
    most = max(chain(records, held_out), key=lambda record: len(record.images))
    needed = planned.mean([most], images).length * len(most.images)
    if needed > recipe.text.max_length:
        raise DataError(
            f"The {len(most.images)} images of record {most.id!r} of {settings.folder} alone need "
            f"{needed:.0f} tokens, and `text.max_length` is {recipe.text.max_length}.",
            "Raise `text.max_length`, or leave the record out.",
        )
    sampled = records[:: max(1, len(records) // NUM_SAMPLED)]
    longest, image = recipe.text.max_length, planned.mean(sampled, images)
    conversations = [each for record in sampled for each in conversations_of(record, stage.answers)]
    lengths = [
        _conversation_tokens(each, recipe.text.template, image.length) for each in conversations
    ]
    texts = [
        min(2 * longest, _alignment_tokens(each, with_extended)) if aligned else 0.0
        for each in sampled
    ]
    return Workload(
        len(records),
        sum(min(longest, length) for length in lengths) / len(sampled),
        sum(texts) / len(sampled),
        sum(len(each.images) for each in conversations) / len(sampled),
        image,
        sum(length > longest for length in lengths) / len(conversations),
        counted=True,
    )


def _conversation_tokens(record: Record, template: str, image_length: float) -> float:
    text = "".join(segment.text for segment in conversation_segments(record, template))
    characters = len(text.replace(IMAGE_BLOCK, ""))
    return 1 + characters / CHARACTERS_PER_TOKEN + len(record.images) * image_length


def _alignment_tokens(record: Record, with_extended: bool) -> float:
    texts = [alignment_text(record.answers)]
    texts += [alignment_text(record.extended or [])] if with_extended else []
    return sum(1 + len(text) / CHARACTERS_PER_TOKEN for text in texts)


@dataclass(frozen=True)
class StageEstimate:
    """What one stage costs: memory in bytes of a GPU, hours and disk of all its steps."""

    name: str
    parameters: Parameters
    workload: Workload
    records_per_step: int
    tokens_per_step: float
    num_steps: int
    memory: Memory
    memory_sharded: Memory | None
    """With `sharding: full`; none for one GPU, and where that is set already or not possible."""
    fits: bool
    hours: float
    disk: float


@dataclass(frozen=True)
class Estimate:
    """What a run planned."""

    gpu: str
    num_gpus: int
    stages: list[StageEstimate]
    start_disk: float
    """Bytes of the checkpoint that is built before the first stage."""
    notes: list[str]
    """What is assumed of this model and this data alone, one sentence each."""

    @property
    def hours(self) -> float:
        """Of all stages."""
        return sum(stage.hours for stage in self.stages)

    @property
    def disk(self) -> float:
        """Bytes of everything that the run writes."""
        return self.start_disk + sum(stage.disk for stage in self.stages)


def estimate_run(recipe: Recipe, gpu: str, num_gpus: int = 1) -> Estimate:
    """Estimate a run on GPUs of a name in `GPUS`, one process each.

    Raises:
        ExgraMedError: the model's sizes or the data are not known.
    """
    config = model_config(recipe.model)
    model, planned = meta_model(config), planned_model(recipe.model, config)
    stages = [
        _estimate_stage(recipe, name, model, planned, gpu, num_gpus) for name in recipe.stages
    ]
    built = recipe.model.start is None
    disk = 4.0 * num_parameters(model) * built
    return Estimate(gpu, num_gpus, stages, disk, _notes(planned, stages))


def _notes(planned: PlannedModel, stages: Sequence["StageEstimate"]) -> list[str]:
    """What is assumed of rows and images."""
    lines = [f"Padding adds {FILLER - 1:.0%} to packed rows."]
    if not planned.packs:
        lines = [
            f"Padding adds {PADDED - 1:.0%}, with one conversation a row; whether this model may "
            "pack rows is measured when it is loaded."
        ]
    lines += planned.notes
    if not shape_of(planned.config).vision_layers:
        lines.append(
            "The model's configuration does not say the sizes of its vision tower, so what that "
            "keeps for its backward pass is not counted."
        )
    for each in stages if planned.processor is not None else []:
        work = each.workload
        how = "the mean by" if work.counted else f"if it is {PICTURE[0]} x {PICTURE[1]}, by"
        lines.append(
            f"An image of {each.name} has {work.image.tokens:.0f} tokens and "
            f"{work.image.patches:.0f} patches, {how} the model's own processor."
        )
    return lines


def stage_disk(stage: StageSettings, parameters: Parameters) -> float:
    """Bytes that a stage writes: its final checkpoint, resumable ones, the best.

    While a resumable checkpoint is written, there is one more than is kept.
    """
    trainable = weight_bytes(stage) * parameters.trainable
    resumable = float(trainable + moment_bytes(stage, parameters)) * (stage.keep_checkpoints + 1)
    best = 2.0 * trainable
    return (
        float(weight_bytes(stage)) * parameters.total
        + resumable * (stage.save_every_steps is not None)
        + best * stage.load_best_model_at_end
    )


def step_operations(
    model: Any,
    shape: Shape,
    stage: StageSettings,
    tokens: float,
    supervised: float,
    images: float,
) -> float:
    """Floating-point operations of `tokens` of text and `images`, forward and backward."""
    layers = num_parameters(model.get_decoder().layers)
    row = shape.row_length or stage.tokens_per_row
    attention = 4 * shape.width * row * shape.num_layers
    trains_all = "language" in stage.trainable and stage.lora is None
    times = 3 if trains_all else 2
    forward = tokens * (2 * layers + attention)
    tower, connector = (
        sum(each.numel() for each in part_of(model, name)) for name in ("vision", "connector")
    )
    tower *= 3 if "vision" in stage.trainable else 1
    return (
        forward * (times + stage.activation_checkpointing)
        + supervised * 2 * shape.width * shape.vocabulary * (times + 1)
        + images * (shape.image.patches * 2 * tower + shape.image.tokens * 3 * 2 * connector)
    )


def _estimate_stage(
    recipe: Recipe, name: str, model: Any, planned: PlannedModel, gpu: str, num_gpus: int
) -> StageEstimate:
    stage, hardware = recipe.stages[name], find_gpu(gpu)
    work = measure_workload(recipe, name, planned)
    # A packed row is no longer than all conversations of a batch together.
    row_length = min(stage.tokens_per_row, stage.batch_size * work.conversation * FILLER)
    if not planned.packs:
        row_length = work.conversation * PADDED
    shape = shape_of(model.config, work.image, row_length)
    parameters = count_parameters(model, stage)
    per_record = (work.conversation + work.alignment) * (FILLER if planned.packs else PADDED)
    micro_batches = stage.gradient_accumulation_steps * num_gpus
    steps = num_steps(
        work.num_records, stage.batch_size, micro_batches, stage.epochs, stage.max_steps
    )
    records = min(stage.batch_size * micro_batches, work.num_records)
    supervised = max(0.0, work.conversation - work.images * work.image.tokens) * SUPERVISED
    operations = step_operations(
        model, shape, stage, records * per_record, records * supervised, records * work.images
    )
    tokens, images = stage.batch_size * per_record, stage.batch_size * work.images

    def memory_of(stage: StageSettings) -> Memory:
        needed = stage_memory(shape, stage, parameters, tokens, images, num_gpus)
        return replace(needed, reserved=RESERVED)

    memory, sharded = memory_of(stage), None
    if num_gpus > 1 and stage.sharding == "none" and stage.reason_against_sharding is None:
        sharded = memory_of(stage.model_copy(update={"sharding": "full"}))
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
    """What the estimate assumes, one sentence each."""
    hardware = find_gpu(estimate.gpu)
    guessed = [stage.name for stage in estimate.stages if not stage.workload.counted]
    lines = [
        f"{estimate.gpu} reaches {hardware.utilisation:.0%} of "
        f"{hardware.operations_per_second / 1e12:.0f} TFLOP/s (bfloat16, dense).",
        f"A token has {CHARACTERS_PER_TOKEN} characters.",
        *estimate.notes,
        f"{RESERVED / 1e9} GB of memory go to driver, libraries and gaps (`reserved`).",
        "Reading data, held-out measurements and communication take no time.",
    ]
    if guessed:
        lines.append(f"There is no data of {', '.join(guessed)} yet: counts and lengths assumed.")
    return lines
