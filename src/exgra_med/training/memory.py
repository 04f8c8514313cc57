"""The memory that a stage needs on one GPU, from sizes alone.

Bytes, with P parameters, of which P_l learn (without LoRA: those of the parts in `learn`):

    weights      4 P (vision tower, connector, language model, graph layers; kept in float32), with
                 nf4 0.55 for each weight that an adapter sits on
    copies       2 for each weight of language model and connector under bfloat16 (autocast's cast),
                 but none where they are frozen and activations are recomputed layer by layer
    gradients    4 P_l, twice that on several GPUs (buckets)
    optimizer    8 P_l (two moments)
    activations  T tokens x num_layers x layer_bytes, plus what is constant below

With `sharding: full` on N GPUs, tower T, layers B and b = B / num_layers each,
the rest R = P - T - B (learning: R_l, b_l), and n bytes a number in a layer (2 under bfloat16):

    weights      4 (P - T) / N + 4 T, and while they are whole 4 R + 3 n b (a layer that computes,
                 the next, and the buffer this one comes in)
    copies       2 for each weight of R in language model and connector under bfloat16
    gradients    4 P_l / N, and while they are whole 8 R_l + (n + 4) b_l (with what is sent)
    optimizer    8 P_l / N
    activations  the same

One layer of width h, k for keys and values, m inside, rows of L tokens (whose mask is dense), and
b bytes a number (2 under bfloat16):

    all learn    b (5 h + 2 k + 4 m + L) + 16 h   (adapters with dropout: + (b + 1) (6 h + m))
    frozen       b (2 h + 2 k + 3 m + L) + 8 h    (gradients pass through to the connector)
    recomputed   4 h, plus one layer of the above for the moment

docs/how-to/train-at-full-size.md explains it; tests/unit/training/test_training_estimate.py holds
it to what a step really saves.
"""

import re
from dataclasses import asdict, dataclass

from torch import nn

from exgra_med.model.config import ExgraConfig, connector_layers
from exgra_med.model.vlm import ExgraForConditionalGeneration
from exgra_med.recipe.schema import StageSettings
from exgra_med.training.objective import TOKENS_PER_CHUNK
from exgra_med.training.sizes import num_parameters

BYTES_NF4 = 0.55


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: float
    copies: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it together."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Parameters:
    """Numbers of a stage's parameters."""

    total: int
    learning: int
    quantized: int
    """Weights that are kept in 4 bits."""
    castable: int
    """Weights of language model and connector outside of the quantized ones."""
    tower: int
    """Weights of the vision tower, which every GPU keeps whole."""
    layers: int
    """Weights in the layers of the language model, adapters among them."""
    learning_in_layers: int
    """Those of them that learn."""


def count_parameters(model: ExgraForConditionalGeneration, stage: StageSettings) -> Parameters:
    """Count what a stage has and what of it learns, on a model without memory."""
    whole = num_parameters(model)
    tower = num_parameters(model.model.vision_tower)
    projector = num_parameters(model.model.multi_modal_projector)
    layers = num_parameters(model.get_decoder().layers)  # type: ignore
    graph = graph_parameters(model.config, stage)
    learning = graph + ("connector" in stage.learn) * projector + ("vision" in stage.learn) * tower
    adapters = in_layers = quantized = 0
    if stage.lora is not None:
        adapted = list(_adapted(model, stage.lora.target_modules))
        adapters = sum(stage.lora.rank * (a.in_features + a.out_features) for a in adapted)
        in_layers = adapters
        if stage.lora.quantize == "nf4":
            quantized = sum(each.weight.numel() for each in adapted)
        learning += adapters
    elif "language" in stage.learn:
        in_layers = layers
        learning += whole - tower - projector
    if "language" not in stage.learn and "image_tokens" in stage.learn:
        # Two rows move, but gradient and moments are those of the whole matrix.
        learning += model.config.text_config.vocab_size * model.config.text_config.hidden_size
    return Parameters(
        total=whole + graph + adapters,
        learning=learning,
        quantized=quantized,
        castable=whole - tower - quantized,
        tower=tower,
        layers=layers + adapters,
        learning_in_layers=in_layers,
    )


def graph_parameters(config: ExgraConfig, stage: StageSettings) -> int:
    """Parameters of message passing, which an aligned stage has beside the model."""
    if stage.alignment is None:
        return 0
    width = config.text_config.hidden_size
    return stage.alignment.num_layers * (2 * width * width + width)


def stage_memory(
    config: ExgraConfig,
    stage: StageSettings,
    parameters: Parameters,
    tokens: float,
    images: float,
    num_gpus: int = 1,
) -> Memory:
    """The formula at the head of this file, for one forward pass of `tokens` and `images`."""
    if stage.sharding == "full" and num_gpus > 1:
        return _sharded_memory(config, stage, parameters, tokens, images, num_gpus)
    half = stage.precision == "bfloat16"
    frozen = "language" not in stage.learn or stage.lora is not None
    copied = half and not (frozen and stage.activation_checkpointing)
    return Memory(
        weights=4 * (parameters.total - parameters.quantized) + BYTES_NF4 * parameters.quantized,
        copies=2.0 * parameters.castable * copied,
        gradients=4.0 * parameters.learning * (2 if num_gpus > 1 else 1),
        optimizer=8.0 * parameters.learning,
        activations=activation_bytes(config, stage, tokens, images),
    )


def _sharded_memory(
    config: ExgraConfig,
    stage: StageSettings,
    parameters: Parameters,
    tokens: float,
    images: float,
    num_gpus: int,
) -> Memory:
    number = 2 if stage.precision == "bfloat16" else 4
    num_layers = config.text_config.num_hidden_layers
    layer = parameters.layers / num_layers
    layer_learning = parameters.learning_in_layers / num_layers
    rest = parameters.total - parameters.tower - parameters.layers
    rest_learning = parameters.learning - parameters.learning_in_layers
    # Adapters are in the layers, and only what is outside of these is cast by autocast.
    rest_castable = rest - graph_parameters(config, stage)
    kept = 4 * (parameters.total - parameters.tower) / num_gpus + 4 * parameters.tower
    return Memory(
        weights=kept + 4 * rest + 3 * number * layer,
        copies=2.0 * rest_castable * (number == 2),
        gradients=4 * parameters.learning / num_gpus
        + 8 * rest_learning
        + (number + 4) * layer_learning,
        optimizer=8 * parameters.learning / num_gpus,
        activations=activation_bytes(config, stage, tokens, images),
    )


def activation_bytes(
    config: ExgraConfig, stage: StageSettings, tokens: float, images: float
) -> float:
    """What one forward pass keeps for its backward pass."""
    text, vision = config.text_config, config.vision_config
    number = 2 if stage.precision == "bfloat16" else 4
    layer = layer_bytes(config, stage, number)
    layers = text.num_hidden_layers * layer
    if stage.activation_checkpointing:
        layers = text.num_hidden_layers * 4 * text.hidden_size + layer
    # Input embeddings, what is inserted into them, the last norm, and the pooled copy.
    outside = 5 * 4 * text.hidden_size
    states = (vision.num_hidden_layers + 1) * vision.hidden_size * 4
    channels = len(connector_layers(config)) * vision.hidden_size
    projector = number * (channels + 3 * text.hidden_size)
    patches = config.image_seq_length
    logits = min(tokens, TOKENS_PER_CHUNK) * text.vocab_size * (number + 8)
    return (
        tokens * (layers + outside)
        + images * ((patches + 1) * states + patches * projector)
        + logits
    )


def layer_bytes(config: ExgraConfig, stage: StageSettings, number: int) -> float:
    """Bytes that one layer of the language model keeps for each token."""
    text = config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    head = getattr(text, "head_dim", None) or width // text.num_attention_heads
    keys = head * text.num_key_value_heads
    mask = stage.tokens_per_row
    if "language" not in stage.learn:
        return number * (2 * width + 2 * keys + 3 * inner + mask) + 8 * width
    dropped = stage.lora is not None and stage.lora.dropout > 0
    adapters = (number + 1) * (6 * width + inner) * dropped
    return number * (5 * width + 2 * keys + 4 * inner + mask) + 16 * width + adapters


def _adapted(model: nn.Module, target_modules: str) -> list[nn.Linear]:
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.fullmatch(target_modules, name)
    ]
