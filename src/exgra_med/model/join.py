"""A model joined from a trained vision tower and a trained language model, in stock classes of
transformers, which load the saved folder as they load any other.

    connector: mlp            LLaVA        two linear layers, one token a patch
    connector: pixel-shuffle  Aya Vision   2 x 2 patches become one token, then a gated layer

Aya Vision shuffles pixels as InternVL does. An InternVL folder cannot hold these towers:
transformers reads the tower of such a folder as InternViT, whatever the configuration says.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    AyaVisionConfig,
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    SiglipImageProcessorPil,
)

from exgra_med.errors import CheckpointError
from exgra_med.model.assemble import NATIVE_CONNECTORS
from exgra_med.model.bundle import (
    CONFIG,
    bounded,
    check_pictures,
    check_settings,
    described,
    folder_shapes,
    key_problems,
    local_folder,
    quiet,
    read_json_object,
    refuse,
)
from exgra_med.model.convert.original import IGNORED_SUFFIX
from exgra_med.model.convert.weights import weight_files
from exgra_med.recipe.run_folder import check_checkpoint
from exgra_med.recipe.schema import Parts

IMAGE = "<image>"
"""The token that stands for an image; added where the tokenizer has none of its own."""
PREPROCESSING = "preprocessor_config.json"


@dataclass(frozen=True)
class Tower:
    """What a kind of vision tower gives, and how its images are prepared."""

    image_processor: type
    """The class that prepares images with Pillow, without torchvision."""
    has_class_token: bool
    """Whether the first token is no patch."""
    feature_layer: int = -1
    """The hidden state that the projector reads; the last one is taken before the final norm."""
    any_image_size: bool = False
    """Whether the positions fit themselves to the size of the image."""


CLIP = Tower(CLIPImageProcessorPil, has_class_token=True, feature_layer=-2)
SIGLIP = Tower(SiglipImageProcessorPil, has_class_token=False)
DINOV2 = Tower(BitImageProcessorPil, has_class_token=True, any_image_size=True)
# transformers prepares the images of DINOv3 with torchvision alone; SigLIP's steps are the same.
DINOV3 = Tower(SiglipImageProcessorPil, has_class_token=True, any_image_size=True)
TOWERS = {
    "clip_vision_model": CLIP,
    "siglip_vision_model": SIGLIP,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2,
    "dinov3_vit": DINOV3,
}
WHOLE = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Models of image and text, whose tower is taken. SigLIP 2 of fixed size is a `siglip`."""
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "smollm3")
"""Language models whose logits are a plain product with the head; Gemma 2's are squashed as well,
which keeps their order, and which the joined classes leave out."""

# The decoder's template reads strings, so the parts of a message become one; an image is written
# where it stands. The prelude ends with a line break, which Jinja drops behind a block: the
# decoder's template begins a line, as it does alone.
PRELUDE = (
    "{%- set joined = namespace(messages=[], text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message.content is defined and message.content is not none"
    " and message.content is not string -%}"
    "{%- set joined.text = '' -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'text' -%}{%- set joined.text = joined.text + part.text -%}"
    "{%- elif part.type in ('image', 'image_url') -%}"
    "{%- set joined.text = joined.text + 'IMAGE_TOKEN' -%}"
    "{%- else -%}{{- raise_exception('This model reads text and images, not ' ~ part.type) -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- set message = dict(message, content=joined.text) -%}"
    "{%- endif -%}"
    "{%- set joined.messages = joined.messages + [message] -%}"
    "{%- endfor -%}"
    "{%- set messages = joined.messages %}\n"
)
PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '\\n' if not loop.first -}}"
    "{{- message.role | capitalize + ': ' + message.content | trim -}}"
    "{{- eos_token if message.role == 'assistant' -}}"
    "{%- endfor -%}"
    "{{- '\\nAssistant:' if add_generation_prompt -}}"
)
"""`User: ...`, `Assistant: ...`: for a language model that has no template."""


def join_parts(parts: Parts, seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Join the parts of a recipe with `connector: mlp` or `pixel-shuffle`.

    Equal arguments give equal bits. The weights of the parts stay as they are; the projector is
    new, under the seed, and torch's global generator is left as it was. The language model keeps
    the type it is stored in. Tower and projector take the wider of the two types, so that a later
    load in one type, which is then that of the tower, rounds nothing.

    Raises:
        CheckpointError: a part is missing, of another kind, or damaged; the tower does not go with
            the connector; or the connector is another.
    """
    if parts.connector in NATIVE_CONNECTORS:
        raise CheckpointError(
            f"`connector: {parts.connector}` makes a model of this project's class.",
            "Join it with `exgra_med.model.assemble.assemble_parts`.",
        )
    with torch.random.fork_rng(devices=[]):
        tower, image_processor = read_tower(local_folder(parts.vision))
        side = image_side(image_processor, tower.config, parts.vision)
        decoder, tokenizer = read_decoder(local_folder(parts.language))
        config: Any = join_config(decoder.config, tower.config, parts.connector, side)
        if parts.chat_template == "plain":
            tokenizer.chat_template = None
        processor = join_processor(tokenizer, image_processor, config)
        config.image_token_id = processor.image_token_id  # type: ignore
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(config)
        torch.manual_seed(seed)
        projector = type(model.model.multi_modal_projector)(config)
    dtype = torch.promote_types(tower.dtype, decoder.dtype)
    model.model.vision_tower = tower.to(dtype)
    model.model.multi_modal_projector = projector.to(dtype)
    model.model.language_model = decoder.model
    model.lm_head = decoder.lm_head
    model.generation_config = decoder.generation_config
    return model.eval(), processor


def join_config(
    text: PreTrainedConfig, vision: PreTrainedConfig, connector: str, image_side: int
) -> PreTrainedConfig:
    """The configuration of a joined model; the id of its image token is not set yet.

    Args:
        text: of the language model.
        vision: of the tower, a kind of `TOWERS`.
        connector: `mlp` or `pixel-shuffle`.
        image_side: pixels along each side of a prepared image.

    Raises:
        CheckpointError: the tower's tokens do not go with `pixel-shuffle`.
    """
    tower, num_registers = TOWERS[vision.model_type], num_register_tokens(vision)
    grid = image_side // vision.patch_size  # type: ignore
    values: dict[str, Any] = {
        "vision_config": vision,
        "text_config": text,
        "vision_feature_layer": tower.feature_layer,
        "vision_feature_select_strategy": "default" if tower.has_class_token else "full",
        "tie_word_embeddings": text.tie_word_embeddings,  # type: ignore
    }
    if connector == "mlp":
        # LLaVA drops the first token alone, so register tokens stay among the image's tokens.
        return LlavaConfig(**values, image_seq_length=grid**2 + num_registers)
    if num_registers:
        raise CheckpointError(
            f"The vision tower has {num_registers} register tokens, which `connector: "
            "pixel-shuffle` cannot take out of the grid of patches.",
            "Use `connector: mlp`, or a tower without register tokens.",
        )
    if grid % 2:
        raise CheckpointError(
            f"The vision tower has {grid} x {grid} patches, and `connector: pixel-shuffle` joins "
            "2 x 2 of them.",
            "Use `connector: mlp`, or a tower with an even number of patches a side.",
        )
    values["downsample_factor"] = 2
    # The gate halves this width, so that the second layer is as wide as that of `mlp`.
    values["alignment_intermediate_size"] = 2 * text.hidden_size  # type: ignore
    # Not read by Aya Vision: the tokens of one image, under LLaVA's name.
    values["image_seq_length"] = (grid // 2) ** 2
    return AyaVisionConfig(**values)


def num_register_tokens(vision: PreTrainedConfig) -> int:
    """Register tokens of a tower, which are no patches and stand behind the class token."""
    return getattr(vision, "num_register_tokens", 0)


def join_processor(tokenizer: Any, image_processor: Any, config: Any) -> LlavaProcessor:
    """The processor of a joined model; it writes as many image tokens as the model makes."""
    vision = config.vision_config
    template = joined_template(tokenizer)
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=vision.patch_size * getattr(config, "downsample_factor", 1),
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=TOWERS[vision.model_type].has_class_token
        + num_register_tokens(vision),
        image_token=image_token(tokenizer),
        chat_template=template,
    )


def image_token(tokenizer: Any) -> str:
    """The token that stands for an image: the tokenizer's own, where it names one."""
    return getattr(tokenizer, "image_token", IMAGE)


def joined_template(tokenizer: Any) -> str:
    """The chat template of the language model, which also takes messages in parts with images.

    A language model without a template gets `PLAIN_TEMPLATE`.
    """
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if own is None:
        # A text that begins with the token gets no second one from the tokenizer.
        begins = tokenizer("a").input_ids[0] == tokenizer.bos_token_id
        own = "{{- bos_token -}}" * begins + PLAIN_TEMPLATE
    return PRELUDE.replace("IMAGE_TOKEN", image_token(tokenizer)) + own


def read_decoder(folder: Path) -> tuple[Any, Any]:
    """Language model and tokenizer, both with a token for images.

    The row of a new token is the mean of the rows of all others. A matrix with more rows than the
    tokenizer has tokens keeps its size while there is room.

    Raises:
        CheckpointError: the folder holds another kind of model, or a damaged one.
        DamagedFileError: it has the SHA-256 of its files, and one is not what was written.
    """
    check_checkpoint(folder)
    values = read_json_object(folder / CONFIG)
    model = _load(AutoModelForCausalLM, folder, decoder_config(values, str(folder)))
    # Without a vocabulary transformers makes an empty tokenizer, and says nothing.
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise CheckpointError(
            f"{folder} has no tokenizer: none of {', '.join(VOCABULARIES)}.",
            "Copy the tokenizer's files from where the model was published.",
        )
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # of a damaged file, errors of every kind
        raise CheckpointError(
            f"{folder} has no tokenizer that can be loaded: {_first_sentence(error)}.",
            "Copy or download it again.",
        ) from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"The tokenizer of {folder} has no end-of-sequence token.")
    known = set(tokenizer.get_vocab().values())
    tokenizer.add_tokens([AddedToken(image_token(tokenizer), special=True, normalized=False)])
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = embedding.weight is head.weight
    for layer in (embedding,) if is_tied else (embedding, head):
        layer.weight.data = with_rows(layer.weight.data, known, set(tokenizer.get_vocab().values()))
    embedding.num_embeddings = head.out_features = len(embedding.weight)
    model.config.vocab_size = len(embedding.weight)
    # Of a file with two matrices transformers takes both, and leaves the configuration as it was.
    model.config.tie_word_embeddings = is_tied
    choose_pad_token(tokenizer)
    # The pad id of the configuration stays: torch never trains that row of an embedding.
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def with_rows(matrix: Tensor, known: set[int], ids: set[int]) -> Tensor:
    """An embedding or a head [rows, D] with a row for each id of a vocabulary.

    The rows of ids that are not `known` become the mean of the known ones. All other rows stay,
    those of no token as well; the ids may have gaps.
    """
    known = {each for each in known if each < len(matrix)}
    grown = matrix.new_zeros(max(len(matrix), max(ids) + 1), matrix.shape[1])
    grown[: len(matrix)] = matrix
    mean = matrix[sorted(known)].mean(0, dtype=torch.float64)
    grown[sorted(ids - known)] = mean.to(matrix.dtype)
    return grown


def choose_pad_token(tokenizer: Any) -> None:
    """The tokenizer's own; else a special token made for it (Llama 3 has one that its settings do
    not name); else the unknown token, which tokenizers with bytes never write; else the end.

    No choice changes what is learnt: the attention mask hides padding, and labels come from
    characters, so that an end that was said is told from one that pads.
    """
    if tokenizer.pad_token is None:
        special = [each.content for each in tokenizer.added_tokens_decoder.values() if each.special]
        made_for_it = [token for token in special if "pad" in token.lower()]
        tokenizer.pad_token = (
            made_for_it[0] if made_for_it else tokenizer.unk_token or tokenizer.eos_token
        )


def decoder_config(values: dict[str, Any], where: str) -> PreTrainedConfig:
    """A language model's configuration from its decoded `config.json`.

    Raises:
        CheckpointError: it is of a kind that cannot be joined.
    """
    kind = values.get("model_type")
    if kind not in DECODERS:
        raise CheckpointError(
            f"{where} holds a model of type {kind!r}, not one of {', '.join(DECODERS)}.",
            "A whole vision-language model goes into `model.start`, not into `model.parts`.",
        )
    return _config(kind, values, where)


def tower_config(values: dict[str, Any], where: str) -> PreTrainedConfig:
    """A vision tower's configuration from its decoded `config.json`, or that of a whole model.

    Raises:
        CheckpointError: it is of a kind that cannot be joined.
    """
    kind = values.get("model_type")
    if kind in WHOLE:
        kind, values = WHOLE[kind], values.get("vision_config") or {}
        values = values if isinstance(values, dict) else {}
    if kind in ("siglip2", "siglip2_vision_model"):
        raise CheckpointError(
            f"{where} is a SigLIP 2 of any image size (NaFlex), whose sizes the joined model does "
            "not hand on.",
            "Use a SigLIP 2 of fixed size, such as google/siglip2-base-patch16-224.",
        )
    if kind not in TOWERS:
        raise CheckpointError(
            f"{where} holds a model of type {kind!r}, not one of {', '.join([*WHOLE, *TOWERS])}.",
            "A whole vision-language model goes into `model.start`, not into `model.parts`.",
        )
    return _config(kind, values, where)


def _config(kind: str, values: dict[str, Any], where: str) -> PreTrainedConfig:
    if values.get("quantization_config") is not None:
        raise CheckpointError(
            f"{where} holds quantised weights, which cannot be joined.",
            "Give the model before quantisation; `lora.quantize: nf4` quantises in training.",
        )
    rest = {name: value for name, value in values.items() if name != "model_type"}
    try:
        return AutoConfig.for_model(kind, **rest)
    except Exception as error:  # of wrong values, errors of every kind
        raise CheckpointError(
            f"{CONFIG} of {where} describes no {kind}: {_first_sentence(error)}."
        ) from error


def read_tower(folder: Path) -> tuple[Any, Any]:
    """Vision tower and its image processor.

    Raises:
        CheckpointError: the folder holds another kind of model, or a damaged one.
        DamagedFileError: it has the SHA-256 of its files, and one is not what was written.
    """
    check_checkpoint(folder)
    config = tower_config(read_json_object(folder / CONFIG), str(folder))
    settings = preprocessing(folder)
    tower = _load(AutoModel, folder, config)
    with described(folder, f"has a {PREPROCESSING} that cannot be used"):
        image_processor = make_image_processor(settings, config, str(folder))
        check_pictures(image_processor, folder)
    return tower, image_processor


def preprocessing(folder: Path) -> dict[str, Any]:
    """How a folder says that its images are prepared.

    Raises:
        CheckpointError: it does not say.
    """
    together = folder / "processor_config.json"
    if not (folder / PREPROCESSING).is_file() and together.is_file():
        found = read_json_object(together).get("image_processor")
        return found if isinstance(found, dict) else {}
    return read_json_object(folder / PREPROCESSING)


VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
SAID = ("size", "resample", "image_mean", "image_std")
"""What no tower may leave to a default, which would be that of another one."""
SETTINGS = (*SAID, "crop_size", "rescale_factor")
SETTINGS += ("do_resize", "do_center_crop", "do_rescale", "do_normalize")


def make_image_processor(settings: dict[str, Any], vision: PreTrainedConfig, where: str) -> Any:
    """The tower's image processor, of the class that resizes with Pillow.

    Where the tower's own cuts the middle out of an image, this one makes the whole image as small:
    a finding may stand at the border.

    Raises:
        CheckpointError: the settings are not complete.
    """
    given = {name: settings[name] for name in SETTINGS if settings.get(name) is not None}
    if missing := [name for name in SAID if name not in given]:
        raise CheckpointError(
            f"{PREPROCESSING} of {where} does not say {', '.join(missing)}.",
            "Copy the file from where the tower was published.",
        )
    make = TOWERS[vision.model_type].image_processor
    own = make(**given)
    if not own.do_center_crop:  # which a class may do by default
        return own
    side = {"height": own.crop_size["height"], "width": own.crop_size["width"]}
    return make(**(given | {"do_center_crop": False, "size": side}))


def image_side(image_processor: Any, vision: Any, where: str) -> int:
    """Pixels along each side of a prepared image.

    Raises:
        CheckpointError: images are not made square, or not of the size that the tower sees.
    """
    height, width = image_processor.size.get("height"), image_processor.size.get("width")
    if height is None or height != width:
        raise CheckpointError(
            f"{PREPROCESSING} of {where} does not make square images of one size.",
            "Give `size` a `height` and a `width` that are equal.",
        )
    if not TOWERS[vision.model_type].any_image_size and height != vision.image_size:
        raise CheckpointError(
            f"{PREPROCESSING} of {where} makes images of {height} pixels, but the tower sees "
            f"{vision.image_size}.",
            "Take both files from the same tower.",
        )
    return height


def _load(auto_class: Any, folder: Path, config: PreTrainedConfig) -> Any:
    weight_files(folder)
    shapes = folder_shapes(folder)
    check_settings(folder, shapes)
    with described(folder, f"cannot be loaded by its {CONFIG}"), bounded(shapes, folder / CONFIG):
        model, report = auto_class.from_pretrained(
            folder,
            config=config,
            dtype="auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # collected and refused below, all at once
            trust_remote_code=False,
            local_files_only=True,
        )
    # A whole CLIP has a text model, which a tower leaves.
    unexpected = report["unexpected_keys"] if auto_class is AutoModelForCausalLM else ()
    strange = [name for name in unexpected if not name.endswith(IGNORED_SUFFIX)]
    refuse(folder, key_problems(report | {"unexpected_keys": strange}))
    return model


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()).partition(". ")[0].rstrip(".:")
    return f"{type(error).__name__}: {text}"
