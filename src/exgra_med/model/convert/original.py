"""The original's checkpoints -> the native model: name tables, and what has to be inferred.

The original saves the language model and the projector, but neither the vision tower nor the kind
of connector; its `model_type` is also "llava", which stock transformers silently misreads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig

from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import (
    CONFIG,
    is_original_layout,
    quiet,
    read_json_object,
    refuse,
)
from exgra_med.model.convert.tokenizer import read_tokenizer
from exgra_med.model.convert.vision import VisionSource, read_vision
from exgra_med.model.convert.weights import read_weights, weight_files
from exgra_med.model.native import ExgraConfig, ExgraForConditionalGeneration, NativeBundle
from exgra_med.model.processor import make_processor

EMBEDDING = "model.embed_tokens.weight"
PREFIXES = {
    "model.embed_tokens.": "model.language_model.embed_tokens.",
    "model.layers.": "model.language_model.layers.",
    "model.norm.": "model.language_model.norm.",
    "lm_head.": "lm_head.",
}
PROJECTORS = {
    "mlp2x_gelu": {
        "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
        "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    },
    "linear": {"model.mm_projector.": "model.multi_modal_projector.linear_1."},
}
IGNORED_SUFFIX = "rotary_emb.inv_freq"
"""A buffer that libraries of 2023 saved; it follows from the configuration."""
ALIGNMENT_PREFIX = "model.message_pass_node_features."
ALIGNMENT_NAME = "message_passing."
"""The graph layers of stage 2, kept beside the model under the names of our own module."""


@dataclass
class Inference:
    """A value that the checkpoint does not say outright, and why it was taken."""

    what: str
    value: Any
    evidence: str


@dataclass
class Imported:
    """A converted checkpoint: the model, the graph layers of stage 2, and what was inferred."""

    bundle: NativeBundle
    alignment: dict[str, Tensor]
    inferred: list[Inference] = field(default_factory=list)


def import_original(
    source: Path, vision: Path, connector: str | None = None, num_l: int | None = None
) -> Imported:
    """Convert a checkpoint folder of the original.

    Args:
        vision: a CLIP repository with the weights of the vision tower.
        connector: `none`, `dci` or `sci`; inferred from the projector's width where absent.
        num_l: blocks in each mean of `dci` with BiomedCLIP; half of the blocks where absent.

    Raises:
        CheckpointError: the folder has another layout, or its weights have missing, unexpected or
            misshapen tensors, each of which is named.
    """
    config = read_json_object(source / CONFIG)
    if not is_original_layout(config):
        raise CheckpointError(
            f"{source} is not in the original's layout (model_type {config.get('model_type')!r}).",
            "A checkpoint of this project, or a stock export, needs no import.",
        )
    weights = read_weights(weight_files(source))
    tower = read_vision(vision)
    inferred = [Inference("vision tower", vision.name, "named by --vision; not in the checkpoint")]
    kind = projector_kind(weights, inferred)
    chosen = infer_connector(weights, kind, tower, connector, inferred)
    split = infer_split(tower, num_l, inferred)
    # Rows of the input embedding, which are trusted over the configuration.
    if EMBEDDING not in weights:
        raise CheckpointError(f"The checkpoint has no tensor {EMBEDDING}.")
    rows = weights[EMBEDDING].shape[0]
    tokenizer: Any = read_tokenizer(source, rows)
    inferred.append(Inference("vocabulary", rows, "rows of model.embed_tokens.weight"))
    for token in (tokenizer.pad_token, "<im_patch>", "<im_start>", "<im_end>"):
        number = tokenizer.convert_tokens_to_ids(token)
        inferred.append(Inference(f"id of {token}", number, "the tokenizer's added tokens"))
    if tokenizer.bos_token != "<s>":
        inferred.append(
            Inference("first token", tokenizer.bos_token, "the tokenizer's own bos_token")
        )
    native = ExgraConfig(
        vision_config=tower.config,
        text_config=text_config(config, rows, tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<im_patch>"),
        image_seq_length=tower.num_patches,
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        projector_hidden_act="gelu" if kind == "mlp2x_gelu" else "linear",
        connector=chosen,
        connector_split=split,
        connector_first_layer=tower.first_layer,
    )
    own, alignment = rename(weights, kind, native)
    own |= {f"model.vision_tower.{name}": tensor for name, tensor in tower.weights.items()}
    model = model_with_weights(native, own, source)
    processor = make_processor(tokenizer, tower.image_processor, tower.config.patch_size)
    return Imported(NativeBundle(model, processor), alignment, inferred)


def projector_kind(weights: Iterable[str], inferred: list[Inference]) -> str:
    """`mlp2x_gelu` or `linear`, from the names of the projector's tensors."""
    names = sorted(name for name in weights if name.startswith("model.mm_projector."))
    short = [name.removeprefix("model.mm_projector.") for name in names]
    kinds = {"0.bias 0.weight 2.bias 2.weight": "mlp2x_gelu", "bias weight": "linear"}
    kind = kinds.get(" ".join(short))
    if kind is None:
        raise CheckpointError(
            f"The projector has the tensors {names or 'none at all'}, which is neither `linear` "
            "nor `mlp2x_gelu`.",
            "Only these two projectors exist in stock LLaVA.",
        )
    inferred.append(Inference("projector", kind, f"tensors {', '.join(names)}"))
    return kind


def infer_connector(
    weights: dict[str, Tensor],
    kind: str,
    tower: VisionSource,
    connector: str | None,
    inferred: list[Inference],
) -> Any:
    """The connector whose width the projector has; the given one where that is ambiguous."""
    name = "model.mm_projector.0.weight" if kind == "mlp2x_gelu" else "model.mm_projector.weight"
    width, single = weights[name].shape[1], tower.config.hidden_size
    fitting = {1: ["none"], 3: ["dci", "sci"]}.get(width // single if width % single == 0 else 0)
    evidence = f"the projector reads {width} channels, the vision tower has {single}"
    if fitting is None:
        raise CheckpointError(
            f"No connector fits: {evidence}.", "Check that --vision names the right tower."
        )
    if connector is not None and connector not in fitting:
        raise CheckpointError(
            f"The connector {connector!r} does not fit: {evidence}.",
            f"It must be {' or '.join(fitting)}.",
        )
    if connector is not None:
        evidence += "; named by --connector"
    elif len(fitting) > 1:
        evidence += "; dci and sci both fit, dci is the published one (--connector sci otherwise)"
    inferred.append(Inference("connector", connector or fitting[0], evidence))
    return connector or fitting[0]


def infer_split(tower: VisionSource, num_l: int | None, inferred: list[Inference]) -> int:
    """Layers in each mean of `dci`."""
    depth = tower.config.num_hidden_layers
    if tower.first_layer == 0:
        if num_l is not None:
            raise CheckpointError(
                "`num_l` has no effect with CLIP, in the original either.", "Leave it out."
            )
        return depth // 2
    if num_l is not None and not 0 < 2 * num_l <= depth:
        raise CheckpointError(f"`num_l` {num_l} does not fit a tower of {depth} blocks.")
    evidence = "named by --num-l" if num_l else f"half of {depth} blocks; not in the checkpoint"
    inferred.append(Inference("num_l", num_l or depth // 2, evidence))
    return num_l or depth // 2


def text_config(config: dict[str, Any], rows: int, tokenizer: Any) -> LlamaConfig:
    """The language model's configuration, from the flat one of the original."""
    known = (
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
        "hidden_act max_position_embeddings rms_norm_eps initializer_range tie_word_embeddings"
    ).split()
    return LlamaConfig(
        **{name: config[name] for name in known if name in config},
        vocab_size=rows,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def rename(
    weights: dict[str, Tensor], kind: str, config: ExgraConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Native names; a name in no table is kept, so that it is refused as unexpected.

    Returns:
        Weights of the model, and those of the graph layers.
    """
    table = PREFIXES | PROJECTORS[kind]
    native: dict[str, Tensor] = {}
    alignment: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.endswith(IGNORED_SUFFIX):
            continue
        if name.startswith(ALIGNMENT_PREFIX):
            alignment[ALIGNMENT_NAME + name.removeprefix(ALIGNMENT_PREFIX)] = tensor
            continue
        native[renamed(name, table)] = tensor
    if kind == "linear":
        # With a linear activation, an identity in the second place changes nothing.
        width, second = config.text_config.hidden_size, "model.multi_modal_projector.linear_2"
        dtype = native["model.multi_modal_projector.linear_1.weight"].dtype
        native[f"{second}.weight"] = torch.eye(width, dtype=dtype)
        native[f"{second}.bias"] = torch.zeros(width, dtype=dtype)
    return native, alignment


def renamed(name: str, table: dict[str, str]) -> str:
    """The name with the first prefix of a table that it has replaced."""
    prefix = next((prefix for prefix in table if name.startswith(prefix)), "")
    return table.get(prefix, "") + name.removeprefix(prefix)


def model_with_weights(
    config: ExgraConfig, weights: dict[str, Tensor], source: Path
) -> ExgraForConditionalGeneration:
    """The model with exactly these weights, in the type of the language model's.

    Raises:
        CheckpointError: names every tensor that is missing, unexpected, misshapen or not finite.
    """
    with torch.device("meta"):
        skeleton = ExgraForConditionalGeneration(config).state_dict()
    problems = [f"missing: {name}" for name in sorted(skeleton.keys() - weights.keys())]
    problems += [f"unexpected: {name}" for name in sorted(weights.keys() - skeleton.keys())]
    for name in sorted(skeleton.keys() & weights.keys()):
        expected, found = list(skeleton[name].shape), list(weights[name].shape)
        if expected != found:
            problems.append(f"wrong shape: {name} is {found}, not {expected}")
        elif not bool(torch.isfinite(weights[name]).all()):
            problems.append(f"not finite: {name}")
    refuse(source, problems)
    dtype = weights["lm_head.weight"].dtype
    with quiet():
        model = ExgraForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype
        )
    return model.eval()
