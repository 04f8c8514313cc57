"""A model of this project's own class, joined from a trained language model and a trained CLIP.

Only the vocabulary of the language model changes: `[PAD]`, `<im_patch>`, `<im_start>` and
`<im_end>` are added, and their rows are the mean of the existing rows. (In the original the row of
`<im_patch>` is random, and counts in the mean that the two markers get.)
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from exgra_med.digests import write_digests
from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import (
    CONFIG,
    local_folder,
    quiet,
    read_json_object,
    replace_folder,
    save_processor,
    write_json,
)
from exgra_med.model.convert.original import IGNORED_SUFFIX, PREFIXES, model_with_weights, renamed
from exgra_med.model.convert.tokenizer import read_base_tokenizer
from exgra_med.model.convert.vision import VisionSource, read_vision
from exgra_med.model.convert.weights import read_weights, weight_files
from exgra_med.model.native import ExgraConfig, NativeBundle, connector_layers
from exgra_med.model.processor import make_processor
from exgra_med.recipe.run_folder import check_checkpoint
from exgra_med.recipe.schema import Parts

NATIVE_CONNECTORS = ("none", "dci", "sci")
"""Those of this project's own class; `join.py` joins with the others."""
LANGUAGE_TYPES = ("llama", "mistral", "qwen2")
"""Language models whose tensors have LLaMA's names."""
NUM_ADDED = 4
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def assemble_parts(parts: Parts, seed: int) -> NativeBundle:
    """Join the parts of a recipe with `connector: none`, `dci` or `sci`; equal arguments give equal
    bits.

    Language model and tower keep the types they are stored in; saving and loading the bundle gives
    them one type. The seed is that of the projector's weights; torch's global generator is left as
    it was.

    Raises:
        CheckpointError: a part is missing, of another kind, or its weights do not fit its
            configuration; every wrong tensor is named. Or the connector is another.
    """
    if parts.connector not in NATIVE_CONNECTORS:
        raise CheckpointError(
            f"`connector: {parts.connector}` makes a model of transformers, not one of this "
            "project's class.",
            "Join it with `exgra_med.model.join.join_parts`.",
        )
    folder = local_folder(parts.language)
    language, own, tokenizer = read_language(folder)
    tower = read_vision(local_folder(parts.vision))
    config = native_config(language, tower, parts.connector)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config.text_config, name, getattr(tokenizer, name))
    processor = make_processor(tokenizer, tower.image_processor, tower.config.patch_size)
    config.image_token_index = processor.image_token_id  # type: ignore
    weights = {renamed(name, PREFIXES): each for name, each in own.items()}
    weights |= {f"model.vision_tower.{name}": tensor for name, tensor in tower.weights.items()}
    model: Any = model_with_weights(config, weights | new_projector(config, seed), folder)
    # The language model may be stored in half precision, which the tower must not be rounded to.
    model.model.vision_tower.to(next(iter(tower.weights.values())).dtype)
    model.model.vision_tower.load_state_dict(tower.weights)
    model.generation_config = GenerationConfig.from_model_config(config)
    return NativeBundle(model, processor)


def native_config(text: Any, tower: VisionSource | Any, connector: str) -> ExgraConfig:
    """The configuration of the joined model; the ids of its special tokens are not set yet.

    The vocabulary of `text` counts the added tokens; `tower` is anything with `config`,
    `num_patches` and `first_layer`.
    """
    return ExgraConfig(
        vision_config=tower.config,
        text_config=text,
        image_seq_length=tower.num_patches,
        vision_feature_layer=-2,
        connector=connector,  # type: ignore
        connector_split=tower.config.num_hidden_layers // 2,
        connector_first_layer=tower.first_layer,
    )


def read_language(folder: Path) -> tuple[Any, dict[str, Tensor], PreTrainedTokenizerFast]:
    """Configuration, weights as its own library names them, and tokenizer of a language model, with
    the four tokens and their rows added.

    A head that is tied to the embeddings becomes a separate matrix.

    Raises:
        CheckpointError: the folder holds another kind of model, or no embedding.
        DamagedFileError: it has the SHA-256 of its files, and one is not what was written.
    """
    check_checkpoint(folder)
    values = read_json_object(folder / CONFIG)
    config = language_config(values, str(folder))
    tokenizer = read_base_tokenizer(folder)
    weights = {
        name: tensor
        for name, tensor in read_weights(weight_files(folder)).items()
        if not name.endswith(IGNORED_SUFFIX)
    }
    if EMBEDDING not in weights:
        raise CheckpointError(f"{folder} has no tensor {EMBEDDING}.")
    if values.get("tie_word_embeddings"):
        weights[HEAD] = weights[EMBEDDING]
    num_known = min(len(tokenizer) - NUM_ADDED, len(weights[EMBEDDING]))
    for name in {EMBEDDING, HEAD} & weights.keys():
        weights[name] = add_rows(weights[name], num_known, len(tokenizer))
    config.vocab_size = len(weights[EMBEDDING])
    return config, weights, tokenizer


def language_config(values: dict[str, Any], where: str) -> Any:
    """A language model's configuration from its decoded `config.json`, with an untied head.

    Raises:
        CheckpointError: it is of another type.
    """
    kind = values.get("model_type")
    if kind not in LANGUAGE_TYPES:
        raise CheckpointError(
            f"{where} holds a model of type {kind!r}, not one of {', '.join(LANGUAGE_TYPES)}.",
            "`connector: mlp` joins more kinds; a whole vision-language model goes into "
            "`model.start`, not into `model.parts`.",
        )
    rest = {key: value for key, value in values.items() if key != "model_type"}
    return AutoConfig.for_model(kind, **(rest | {"tie_word_embeddings": False}))


def add_rows(matrix: Tensor, num_known: int, num_rows: int) -> Tensor:
    """Rows `num_known..num_rows` of an embedding or a head [rows, D] become the mean of those
    before them, which are of the tokenizer's own tokens. Further rows, where the matrix already has
    more than its tokenizer has tokens, stay as they are.
    """
    grown = matrix.new_empty(max(len(matrix), num_rows), matrix.shape[1])
    grown[: len(matrix)] = matrix
    grown[num_known:num_rows] = matrix[:num_known].double().mean(0).to(matrix.dtype)
    return grown


def new_projector(config: ExgraConfig, seed: int) -> dict[str, Tensor]:
    """Weights of a fresh projector, as torch initialises linear layers (the original's way)."""
    width = config.text_config.hidden_size
    channels = config.vision_config.hidden_size * len(connector_layers(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = {"linear_1": nn.Linear(channels, width), "linear_2": nn.Linear(width, width)}
    return {
        f"model.multi_modal_projector.{layer}.{name}": tensor.detach()
        for layer, module in layers.items()
        for name, tensor in module.named_parameters()
    }


def save_language_model(bundle: NativeBundle, folder: Path) -> None:
    """Write language model and tokenizer as a plain LLaMA folder, for `model.parts`.

    The rows of the four added tokens stay in the matrices, and the tokens in the tokenizer;
    `assemble_parts` computes these rows again.

    Raises:
        CheckpointError: the folder holds something else.
        DiskFullError: nothing more fits.
    """
    source: Any = bundle.model
    model = AutoModelForCausalLM.from_config(source.config.text_config)
    model.model.load_state_dict(source.get_decoder().state_dict())
    model.lm_head.load_state_dict(source.get_output_embeddings().state_dict())
    with replace_folder(folder) as fresh, quiet():
        model.save_pretrained(fresh)
        save_processor(bundle.tokenizer, fresh)
        # The head is not tied to the embeddings, whatever the library's default says.
        config = read_json_object(fresh / CONFIG)
        write_json(fresh / CONFIG, config | {"tie_word_embeddings": False})
        write_digests(fresh)
