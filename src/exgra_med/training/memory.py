"""The memory that a stage needs on one GPU, from sizes alone.

Bytes, with P parameters, of which P_l are trainable; w is 4, or 2 with `weights: bfloat16`, but 4
for adapters and graph layers:

    weights      w P (vision tower, connector, language model, graph layers), with nf4 0.55 for each
                 weight that has an adapter
    copies       2 for each weight of language model and connector under bfloat16 (autocast's cast),
                 but none where they are frozen and activations are recomputed layer by layer, or
                 are kept in bfloat16
    gradients    w P_l, twice that on several GPUs (buckets)
    optimizer    8 P_l (two moments); with `adamw8bit` 2.03 for each weight of a tensor of whole
                 blocks of 256 and at least 4096, 2 w for the others
    activations  T tokens x num_layers x layer_bytes, plus what is constant below

With `sharding: full` (float32 weights and AdamW) on N GPUs, tower T, layers B and
b = B / num_layers each, the rest R = P - T - B (trainable: R_l, b_l), and n bytes a number in a
layer (2 under bfloat16):

    weights      4 (P - T) / N + 4 T, and while gathered 4 R + 3 n b (a layer that computes, the
                 next, and the buffer this one comes in)
    copies       2 for each weight of R in language model and connector under bfloat16
    gradients    4 P_l / N, and while they are gathered 8 R_l + (n + 4) b_l (with what is sent)
    optimizer    8 P_l / N
    activations  the same

One layer of width h, k for keys and values, m inside, rows of L tokens (whose mask is dense), and
b bytes a number (2 under bfloat16):

    all trained  b (5 h + 2 k + 4 m + L) + 16 h   (adapters with dropout: + (b + 1) (6 h + m))
    frozen       b (2 h + 2 k + 3 m + L) + 8 h    (gradients pass through to the connector)
    recomputed   4 h, plus one layer of the above for the moment, of the tokens of one call

A layer of a trained vision tower keeps b (7 h + 2 m) + 16 h for each patch, with h and m its own;
what leaves a layer is kept of every tower, 4 h.

With `weights: bfloat16` what runs between the layers is bfloat16 too: 8 h instead of 16 h, and 2 h
recomputed.

docs/how-to/train-at-full-size.md explains it; tests/unit/training/test_training_estimate.py holds
it to what a step really saves.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from exgra_med.model.image_budget import ImageCost, fixed_cost
from exgra_med.model.lora import adapted_layers
from exgra_med.model.native import ExgraConfig, connector_layers
from exgra_med.model.sizes import num_parameters, part_of
from exgra_med.recipe.schema import StageSettings
from exgra_med.training.objective import TOKENS_PER_CHUNK
from exgra_med.training.optimizer import BYTES, is_eight_bit

BYTES_NF4 = 0.55


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and of its images that the formula reads."""

    width: int
    """h, of the language model."""
    inner: int
    """m."""
    keys: int
    """k."""
    num_layers: int
    vocabulary: int
    vision_width: int
    vision_inner: int
    vision_layers: int
    channels: float
    """What the projector reads for each token of an image."""
    image: ImageCost
    row_length: float | None
    """L; of packed rows the stage's `tokens_per_row` where nothing is said."""


def shape_of(config: Any, image: ImageCost | None = None, row_length: float | None = None) -> Shape:
    """The shape of a model of any kind by its configuration; a tower whose sizes that does not say
    has no layers.

    Args:
        config: of the model.
        image: a mean image; by the configuration alone where absent.
        row_length: see `Shape`.
    """
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    image = image or fixed_cost(config)
    width, heads = text.hidden_size, _size(text, "num_attention_heads") or 1
    # Two towers of Qwen-VL have their own width under a name of their own.
    vision_width = _size(vision, "embed_dim", "hidden_size")
    if isinstance(config, ExgraConfig):
        channels = float(len(connector_layers(config)) * vision_width)
    else:
        channels = vision_width * image.patches / max(1.0, image.tokens)
    wider = _size(vision, "mlp_ratio") or USUAL_RATIO
    return Shape(
        width=width,
        inner=_size(text, "intermediate_size") or USUAL_RATIO * width,
        keys=(_size(text, "head_dim") or width // heads)
        * (_size(text, "num_key_value_heads") or heads),
        num_layers=_size(text, "num_hidden_layers") or 1,
        vocabulary=text.vocab_size,
        vision_width=vision_width,
        vision_inner=_size(vision, "intermediate_size") or int(vision_width * wider),
        vision_layers=_size(vision, "num_hidden_layers", "depth"),
        channels=channels,
        image=image,
        row_length=row_length,
    )


USUAL_RATIO = 4
"""Of a layer's inner width to its width, where a configuration does not say it."""


def _size(config: Any, *names: str) -> int:
    """The first of these sizes that a configuration has; 0 where it has none of them."""
    return next((size for name in names if (size := getattr(config, name, None))), 0)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: float
    copies: float
    gradients: float
    optimizer: float
    activations: float
    reserved: float = 0.0
    """What the driver, the libraries and gaps take; nothing of the formula."""

    @property
    def total(self) -> float:
        """All of it together."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Parameters:
    """Numbers of a stage's parameters."""

    total: int
    trainable: int
    quantized: int
    """Weights that are kept in 4 bits."""
    castable: int
    """Weights of language model and connector outside of the quantized ones."""
    tower: int
    """Weights of the vision tower, which every GPU keeps whole."""
    layers: int
    """Weights in the layers of the language model, adapters among them."""
    trainable_in_layers: int
    """Trainable ones among them."""
    float32: int
    """Weights that stay in float32 whatever the stage's `weights`: adapters and graph layers."""
    eight_bit: int
    """Trainable weights in tensors whose moments `adamw8bit` keeps in 8 bits."""
    small_float32: int
    """Weights among `float32` in tensors too small for that."""


def count_parameters(model: Any, stage: StageSettings) -> Parameters:
    """Count the parameters of a stage on a model whose tensors have no memory (meta device)."""
    whole = num_parameters(model)
    tower = sum(each.numel() for each in part_of(model, "vision"))
    layers = num_parameters(model.get_decoder().layers)
    own = graph_sizes(model.config.get_text_config().hidden_size, stage)
    graph, adapters, quantized = sum(own), 0, 0
    in_layers = layers if "language" in stage.trainable else 0
    if stage.lora is not None:
        layers_by_name = dict(model.named_modules())
        adapted: Any = [layers_by_name[n] for n in adapted_layers(model, stage.lora)]
        widths = [width for each in adapted for width in (each.in_features, each.out_features)]
        own += [stage.lora.rank * width for width in widths]
        in_layers = adapters = sum(own) - graph
        if stage.lora.quantize == "nf4":
            quantized = sum(each.weight.numel() for each in adapted)
    trainable = [*own, *_trainable_sizes(model, stage)]
    return Parameters(
        total=whole + graph + adapters,
        trainable=sum(trainable),
        quantized=quantized,
        castable=whole - tower - quantized,
        tower=tower,
        layers=layers + adapters,
        trainable_in_layers=in_layers,
        float32=graph + adapters,
        eight_bit=sum(filter(is_eight_bit, trainable)),
        small_float32=sum(size for size in own if not is_eight_bit(size)),
    )


def _trainable_sizes(model: Any, stage: StageSettings) -> Iterator[int]:
    """Numbers of weights of every other trainable tensor."""
    for name in ("vision", "connector", "language"):
        if name in stage.trainable and (name != "language" or stage.lora is None):
            yield from (each.numel() for each in part_of(model, name))
    markers = "image_tokens" in stage.trainable and isinstance(model.config, ExgraConfig)
    if markers and "language" not in stage.trainable:
        # Two rows move, but gradient and moments are those of the whole matrix.
        yield model.get_input_embeddings().weight.numel()


def graph_sizes(width: int, stage: StageSettings) -> list[int]:
    """Numbers of weights of every tensor of message passing, which is beside the model."""
    num_layers = stage.alignment.num_layers if stage.alignment is not None else 0
    return [width * width, width, width * width] * num_layers


def stage_memory(
    shape: Shape,
    stage: StageSettings,
    parameters: Parameters,
    tokens: float,
    images: float,
    num_gpus: int = 1,
) -> Memory:
    """The formula at the head of this file, for one forward pass of `tokens` and `images`."""
    activations = activation_bytes(shape, stage, tokens, images)
    half = stage.precision != "float32"
    if stage.sharding == "full" and num_gpus > 1:
        number = 2 if half else 4
        layer = parameters.layers / shape.num_layers
        layer_trainable = parameters.trainable_in_layers / shape.num_layers
        rest = parameters.total - parameters.tower - parameters.layers
        rest_trainable = parameters.trainable - parameters.trainable_in_layers
        # Adapters are in the layers, and only what is outside of these is cast by autocast.
        rest_castable = rest - sum(graph_sizes(shape.width, stage))
        kept = 4 * (parameters.total - parameters.tower) / num_gpus + 4 * parameters.tower
        return Memory(
            weights=kept + 4 * rest + 3 * number * layer,
            copies=2.0 * rest_castable * (number == 2),
            gradients=4 * parameters.trainable / num_gpus
            + 8 * rest_trainable
            + (number + 4) * layer_trainable,
            optimizer=8 * parameters.trainable / num_gpus,
            activations=activations,
        )
    frozen = "language" not in stage.trainable or stage.lora is not None
    copied = half and not (frozen and stage.activation_checkpointing)
    weight = weight_bytes(stage)
    trainable_float32 = min(parameters.float32, parameters.trainable)
    trainable_bytes = weight * (parameters.trainable - trainable_float32) + 4 * trainable_float32
    kept = parameters.total - parameters.quantized - parameters.float32
    return Memory(
        weights=weight * kept + 4 * parameters.float32 + BYTES_NF4 * parameters.quantized,
        copies=2.0 * parameters.castable * (copied and stage.weights == "float32"),
        gradients=float(trainable_bytes) * (2 if num_gpus > 1 else 1),
        optimizer=moment_bytes(stage, parameters),
        activations=activations,
    )


def weight_bytes(stage: StageSettings) -> int:
    """Bytes of a weight, but for adapters and graph layers."""
    return 2 if stage.weights == "bfloat16" else 4


def moment_bytes(stage: StageSettings, parameters: Parameters) -> float:
    """Bytes of both moments of all trainable parameters."""
    if stage.optimizer == "adamw":
        return 8.0 * parameters.trainable
    small = parameters.trainable - parameters.eight_bit - parameters.small_float32
    return (
        BYTES * parameters.eight_bit
        + 8.0 * parameters.small_float32
        + 2.0 * weight_bytes(stage) * small
    )


def activation_bytes(shape: Shape, stage: StageSettings, tokens: float, images: float) -> float:
    """What one forward pass keeps for its backward pass."""
    number = 2 if stage.precision != "float32" else 4
    layer = layer_bytes(shape, stage, number)
    layers = shape.num_layers * layer
    if stage.activation_checkpointing:
        together = min(tokens, stage.max_tokens_per_call or tokens)
        layers = shape.num_layers * weight_bytes(stage) * shape.width
        layers += layer * together / max(1.0, tokens)
    # Input embeddings, what is inserted into them, the last norm, and the pooled copy.
    outside = 5 * weight_bytes(stage) * shape.width
    states = (shape.vision_layers + 1) * shape.vision_width * 4
    if "vision" in stage.trainable:
        states += shape.vision_layers * tower_layer_bytes(shape, stage, number)
    projector = number * (shape.channels + 3 * shape.width)
    logits = min(tokens, TOKENS_PER_CHUNK) * shape.vocabulary * (number + 8)
    return (
        tokens * (layers + outside)
        + images * (shape.image.patches * states + shape.image.tokens * projector)
        + logits
    )


def layer_bytes(shape: Shape, stage: StageSettings, number: int) -> float:
    """Bytes that one layer of the language model keeps for each token."""
    width, keys, inner = shape.width, shape.keys, shape.inner
    mask = shape.row_length or stage.tokens_per_row
    stream = 2 * weight_bytes(stage) * width
    if "language" not in stage.trainable:
        return number * (2 * width + 2 * keys + 3 * inner + mask) + stream
    dropped = stage.lora is not None and stage.lora.dropout > 0
    adapters = (number + 1) * (6 * width + inner) * dropped
    return number * (5 * width + 2 * keys + 4 * inner + mask) + 2 * stream + adapters


def tower_layer_bytes(shape: Shape, stage: StageSettings, number: int) -> float:
    """Bytes that one layer of a trained vision tower keeps for each patch; it has no gate."""
    width, inner = shape.vision_width, shape.vision_inner
    return number * (7 * width + 2 * inner) + 4 * weight_bytes(stage) * width
