"""This project's own model: stock LLaVA whose projector may read several vision layers.

The classes of the model, and `NativeBundle`, through which everything else uses it.

Shapes: N images, C = 3 channels, H x W pixels, P visual tokens, B rows, T text positions, D width
of the language model; R rows of L tokens in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from exgra_med.data.chat_template import (
    IMAGE_END,
    IMAGE_PATCH,
    IMAGE_START,
    STOP,
    Encoded,
    conversation_segments,
    encode_conversation,
    encode_prompt,
    encode_text,
    prompt_text,
)
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import IMAGE_PLACEHOLDER, Record, Turn
from exgra_med.errors import CheckpointError, DataError, TrainingError
from exgra_med.model.batch import (
    IGNORED,
    Batch,
    Layout,
    Rows,
    TokenSequence,
    TrainingExample,
    carried_features,
    dummy_call,
    pack,
    pad,
    split_rows,
    views_of,
)
from exgra_med.model.bundle import (
    CONFIG,
    PROCESSOR_FILES,
    Bundle,
    described,
    folder_shapes,
    from_pretrained,
    is_native,
    load_processor,
    local_folder,
    quiet,
    read_config,
    read_json_object,
    save_processor,
    write_json,
)
from exgra_med.recipe.run_folder import check_checkpoint
from exgra_med.recipe.schema import TextSettings


@strict
class ExgraConfig(LlavaConfig):
    """Stock `LlavaConfig` with a connector.

    `connector` says which hidden states h_l of the vision tower reach the projector, joined along
    the channels (h_0 is the embedding output, `s` is `vision_feature_layer`):

    * `none`: h_s
    * `dci`: h_s, mean of h_0..h_{k-1}, mean of h_k..h_{2k-1}, with k = `connector_split`
    * `sci`: h_s, h_7, h_15

    `connector_first_layer` shifts the two means of `dci` (1 where the original numbers blocks
    instead of hidden states, as for BiomedCLIP).
    """

    model_type = "exgra_llava"

    vision_config: Any = None
    text_config: Any = None

    connector: Literal["none", "dci", "sci", "sti"] = "none"
    connector_split: int = 12
    connector_first_layer: int = 0

    def __post_init__(self, **kwargs):
        if self.connector == "sti":
            raise CheckpointError(
                "The connector `sti` is not supported: it makes 320 visual tokens for the 256 "
                "placeholders of the text, and its own check stops it in the original too.",
                "Use `none`, `dci` or `sci`.",
            )
        super().__post_init__(**kwargs)


SCI_LAYERS = (7, 15)


def connector_layers(config: ExgraConfig) -> list[list[int]]:
    """The groups of hidden states whose means are joined along the channels, in order, as
    non-negative indices. `vision_feature_layer` may be a list, as in a folded export.

    Raises:
        CheckpointError: the tower has too few layers.
    """
    num_states = config.vision_config.num_hidden_layers + 1
    chosen = config.vision_feature_layer
    groups = [[layer] for layer in (chosen if isinstance(chosen, list) else [chosen])]
    if config.connector == "sci":
        groups += [[layer] for layer in SCI_LAYERS]
    if config.connector == "dci":
        first, split = config.connector_first_layer, config.connector_split
        groups += [list(range(first + i * split, first + (i + 1) * split)) for i in (0, 1)]
    for layer in (layer for group in groups for layer in group):
        if not -num_states <= layer < num_states:
            raise CheckpointError(
                f"The connector reads hidden state {layer}, but the vision tower has {num_states}.",
                "Choose another connector, or lower `connector_split`.",
            )
    return [[layer % num_states for layer in group] for group in groups]


def connect(hidden_states: Sequence[Tensor], layers: list[list[int]], keep_first: bool) -> Tensor:
    """The dense connector: mean over each group of layers, groups joined along the channels.

    Args:
        hidden_states: per layer [N, T, D_vision]; T counts the class token, where there is one.
        layers: groups of indices into `hidden_states`.
        keep_first: keep the first token; otherwise it is the class token and dropped.

    Returns:
        [N, P, groups * D_vision]. Means are taken in float32.
    """
    begin = 0 if keep_first else 1
    parts = []
    for group in layers:
        if len(group) == 1:
            parts.append(hidden_states[group[0]][:, begin:])
        else:
            stack = torch.stack([hidden_states[layer][:, begin:] for layer in group])
            parts.append(stack.float().mean(0).to(stack.dtype))
    return torch.cat(parts, -1)


class ExgraModel(LlavaModel):
    """Vision tower, connector, projector and language model, without the language-model head."""

    config: ExgraConfig  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(self, config: ExgraConfig) -> None:
        super().__init__(config)
        self.layers = connector_layers(config)
        width = config.vision_config.hidden_size * len(self.layers)
        if width != self.multi_modal_projector.linear_1.in_features:
            self.multi_modal_projector.linear_1 = nn.Linear(
                width, config.text_config.hidden_size, bias=config.multimodal_projector_bias
            )
            self.post_init()

    def vision_features(self, pixel_values_NCHW: Tensor) -> Tensor:
        """What the connector hands to the projector, [N, P, D_connector]; a frozen tower is not
        differentiated. Features that were kept, [N, P, D_connector], are that already."""
        if pixel_values_NCHW.ndim == 3:
            return pixel_values_NCHW
        frozen = not any(weight.requires_grad for weight in self.vision_tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            states = self.vision_tower(
                pixel_values_NCHW, output_hidden_states=True, return_dict=True
            ).hidden_states
            keep_first = self.config.vision_feature_select_strategy == "full"
            return connect(states, self.layers, keep_first)

    def get_image_features(self, pixel_values: Tensor, **_) -> BaseModelOutputWithPooling:
        """Projected features in the form that stock LLaVA and its servers expect."""
        features_NPD = self.multi_modal_projector(self.vision_features(pixel_values))
        return BaseModelOutputWithPooling(pooler_output=list(features_NPD))  # type: ignore

    def train(self, mode: bool = True) -> "ExgraModel":
        """Training mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if not any(weight.requires_grad for weight in self.vision_tower.parameters()):
            self.vision_tower.eval()
        return self


class ExgraForConditionalGeneration(LlavaForConditionalGeneration):
    """The model of training and inference; `forward` and `generate` are those of stock LLaVA."""

    config: ExgraConfig  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(self, config: ExgraConfig) -> None:
        # Stock's own constructor would first build, and throw away, a second language model.
        super(LlavaForConditionalGeneration, self).__init__(config)
        self.model = ExgraModel(config)
        self.lm_head = nn.Linear(
            config.text_config.hidden_size, config.text_config.vocab_size, bias=False
        )
        self.post_init()

    def image_features(self, pixel_values_NCHW: Tensor) -> Tensor:
        """Projected visual tokens [N, P, D] of images [N, 3, H, W]."""
        return torch.stack(list(self.model.get_image_features(pixel_values_NCHW).pooler_output))

    def insert_images(self, input_ids_BT: Tensor, features_NPD: Tensor | None) -> Tensor:
        """Text embeddings [B, T, D] with visual tokens at the placeholders, in reading order.

        Args:
            input_ids_BT: token ids.
            features_NPD: from `image_features`; none where no row has an image.

        A row without placeholders uses no image, so text-only rows cannot shift the images.

        Raises:
            DataError: the number of placeholders is not N * P.
        """
        embeds_BTD = self.get_input_embeddings()(input_ids_BT)
        places_BT = input_ids_BT == self.config.image_token_id
        num_images, per_image = features_NPD.shape[:2] if features_NPD is not None else (0, 0)
        if int(places_BT.sum()) != num_images * per_image:
            raise DataError(
                f"The texts have {int(places_BT.sum())} image placeholders, but the "
                f"{num_images} images have {num_images * per_image} visual tokens."
            )
        if features_NPD is None:
            return embeds_BTD
        return embeds_BTD.masked_scatter(places_BT.unsqueeze(-1), features_NPD.to(embeds_BTD.dtype))


NATIVE_KEYS = ("connector", "connector_split", "connector_first_layer")
STOCK = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}


@dataclass(frozen=True)
class NativeConversation:
    """A conversation as token ids and pixels."""

    input_ids: list[int]
    labels: list[int]
    pixels: Tensor | None
    """[images of the record, 3, H, W], or none for a text-only record; or the features of the
    images, [images, P, D_connector]."""


@dataclass(eq=False)
class NativeBundle(Bundle):
    """This project's own model with its processor; see `Bundle`."""

    model: ExgraForConditionalGeneration
    processor: LlavaProcessor

    @property
    def image_processor(self) -> CLIPImageProcessorPil:
        """Images to pixel values."""
        return self.processor.image_processor  # type: ignore

    @property
    def num_image_tokens(self) -> int:
        """Visual tokens of one image."""
        return self.model.config.image_seq_length

    @property
    def image_token_id(self) -> int:
        """See `Bundle`: `<im_patch>`."""
        return self._id(IMAGE_PATCH)

    @property
    def marker_ids(self) -> list[int]:
        """Ids of `<im_start>` and `<im_end>`."""
        return [self._id(IMAGE_START), self._id(IMAGE_END)]

    def _id(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    # Asking -------------------------------------------------------------------------------------

    def prompt(
        self,
        turns: Sequence[Turn],
        num_images: int = 0,
        options: Sequence[str] | None = None,
        template: str = "exgra",
    ) -> list[int]:
        """See `Bundle`: token ids, with as many placeholders as its images have visual tokens."""
        per_image = self.num_image_tokens
        return encode_prompt(self.tokenizer, turns, template, per_image, num_images, options)

    def num_tokens(self, prompt: list[int], images: Sequence[Image.Image]) -> int:
        """See `Bundle`."""
        return len(prompt)

    def generation_inputs(
        self, prompts: Sequence[list[int]], images: Sequence[Sequence[Image.Image]]
    ) -> tuple[dict[str, Any], int]:
        """See `Bundle`: embeddings, so none of the output is of the prompts; an image that several
        prompts share goes through the vision tower once."""
        self._check_prompts(prompts, images)
        device, pad = self.model.device, self.pad_token_id
        longest = max(map(len, prompts))
        ids_BT = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=device)
        masks = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
        embeds_BTD = self.model.insert_images(ids_BT, self._image_features(images))
        return {
            "inputs_embeds": embeds_BTD,
            "attention_mask": torch.tensor(masks, device=device),
        }, 0

    def _image_features(self, images: Sequence[Sequence[Image.Image]]) -> Tensor | None:
        """Visual tokens [N, P, D] of all images in reading order; an image given twice is read
        once."""
        flat = [image for row in images for image in row]
        if not flat:
            return None
        distinct = {id(image): image for image in flat}
        model, known = self.model, list(distinct)
        pixels = pixel_values(self, list(distinct.values())).to(model.device, model.dtype)
        places = torch.tensor([known.index(id(image)) for image in flat], device=model.device)
        return model.image_features(pixels)[places]

    def _check_prompts(
        self, prompts: Sequence[list[int]], images: Sequence[Sequence[Image.Image]]
    ) -> None:
        for row, (prompt, own) in enumerate(zip(prompts, images, strict=True)):
            found, expected = prompt.count(self.image_token_id), len(own) * self.num_image_tokens
            if found != expected:
                raise DataError(
                    f"Prompt {row} has {found} image placeholders, but its {len(own)} images have "
                    f"{expected} visual tokens."
                )
            if len(prompt) >= self.context_length:
                raise DataError(
                    f"A question with its {len(own)} images has {len(prompt)} tokens, and the "
                    f"model reads {self.context_length} in all.",
                    f"Give fewer images, which have {self.num_image_tokens} tokens each, or a "
                    "shorter question.",
                )

    @property
    def stop_ids(self) -> list[int]:
        """See `Bundle`; the marker `###` ends an answer too, however it is cut into tokens."""
        return [self.tokenizer.eos_token_id]

    def has_ended(self, ids: list[int]) -> bool:
        """See `Bundle`: the end token, or `###`, of which the newest token has a part."""
        if ids[-1] == self.tokenizer.eos_token_id:
            return True
        newest = str(self.tokenizer.convert_ids_to_tokens(ids[-1]))
        has_hash = "#" in newest or newest == "<0x23>"
        return has_hash and STOP in self.tokenizer.decode(ids, skip_special_tokens=True)

    def answer_text(self, ids: list[int]) -> str:
        """See `Bundle`: the text before the end marker."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.split(STOP)[0].strip()

    def safe_text(self, ids: list[int]) -> str | None:
        """See `Bundle`."""
        # A run of byte tokens is decoded as a whole, so it waits until it is complete.
        if str(self.tokenizer.convert_ids_to_tokens(ids[-1])).startswith("<0x"):
            return None
        # The last blanks are stripped if nothing follows; `#` may be the beginning of `###`.
        return self.answer_text(ids).rstrip("#\N{REPLACEMENT CHARACTER}").rstrip()

    # Training -----------------------------------------------------------------------------------

    def image_tokens(self, record: Record, images: ImageFolder) -> int:
        """See `Bundle`: equal for images of every size."""
        return self.num_image_tokens * len(record.images)

    def text_ids(self, text: str, max_length: int) -> list[int]:
        """See `Bundle`."""
        return encode_text(self.tokenizer, text, max_length)

    def check_images_fit(self, record: Record, images: ImageFolder, text: TextSettings) -> None:
        """See `Bundle`.

        A text has at most as many tokens as bytes, so hardly any has to be tokenised twice.
        """
        if not record.images:
            return
        asked = [n for n, turn in enumerate(record.turns) if IMAGE_PLACEHOLDER in turn.text]
        turns, options = record.turns[: max(asked, default=0) + 1], record.meta.get("options")
        words = prompt_text(turns, text.template, len(record.images), options)
        visual = len(record.images) * self.num_image_tokens
        if len(words.encode()) + visual > text.max_length:
            self._encoded(record, text)

    def conversation(
        self,
        record: Record,
        images: Sequence[Image.Image],
        text: TextSettings,
        train_on_prompts: bool = False,
    ) -> NativeConversation:
        """See `Bundle`."""
        encoded = self._encoded(record, text)
        if all(label == IGNORED for label in encoded.labels):
            raise TrainingError(
                f"Record {record.id!r} has nothing supervised in {text.max_length} tokens.",
                "Raise text.max_length, or leave the record out.",
            )
        labels = encoded.labels
        if train_on_prompts:
            image = (self.image_token_id, *self.marker_ids)
            labels = [IGNORED if token in image else token for token in encoded.input_ids]
        features = carried_features(images)
        if features is not None:
            return NativeConversation(encoded.input_ids, labels, features[0])
        pixels = pixel_values(self, images) if images else None
        return NativeConversation(encoded.input_ids, labels, pixels)

    def learnt(
        self, conversation: NativeConversation, record: Record, text: TextSettings
    ) -> tuple[str, str]:
        """See `Bundle`."""
        labels = [label for label in conversation.labels if label != IGNORED]
        segments = conversation_segments(record, text.template)
        written = "".join(segment.text for segment in segments if segment.supervised)
        return self.tokenizer.decode(labels), written

    def _encoded(self, record: Record, text: TextSettings) -> Encoded:
        return encode_conversation(
            self.tokenizer, record, text.template, self.num_image_tokens, text.max_length
        )

    def collate(self, examples: Sequence[TrainingExample], layout: Layout) -> Batch:
        """See `Bundle`; beside the rows there is `pixel_values` [N, 3, H, W] or none, in the
        reading order of the placeholders; or features [N, P, D_connector] in their place."""
        views, padding = views_of(examples), self.pad_token_id
        # Second conversations stand behind all first ones.
        told = [(n, each.conversations[0]) for n, each in enumerate(examples)]
        told += [(n, c) for n, each in enumerate(examples) for c in each.conversations[1:]]
        conversations = [TokenSequence(each.input_ids, each.labels) for _, each in told]
        if layout.packed:
            rows, order = pack(conversations + views.texts, layout.tokens_per_row, padding)
            calls = [rows]
        else:
            half = len(views.nodes)
            groups = [conversations, views.texts[:half], views.texts[half:]]
            calls = [pad(group, padding, pool_padding=True) for group in groups if group]
            order = list(range(len(conversations)))
        images = [
            (views.node_of(told[number][0]), image)
            for number in order
            if number < len(conversations)
            if (pixels := told[number][1].pixels) is not None
            for image in pixels
        ]
        return {
            "ids": [example.id for example in examples],
            "calls": [part for c in calls for part in split_rows(c, layout.max_tokens_per_call)],
            "pixel_values": torch.stack([each for _, each in images]) if images else None,
            "num_images": len(images),
            "num_nodes": len(views.nodes),
            "has_extended": views.has_extended,
            "node_of_image": torch.tensor([node for node, _ in images], dtype=torch.long),
        }

    def encode(
        self, batch: Batch, every_call_learns: bool = False
    ) -> tuple[Tensor | None, list[Tensor]]:
        """See `Bundle`; a vector is the mean over the P visual tokens of one image."""
        if batch["pixel_values"] is None:
            return None, [self._decode(rows, None, every_call_learns) for rows in batch["calls"]]
        pixels = batch["pixel_values"]
        pixels = pixels.to(self.model.dtype) if pixels.ndim == 4 else pixels
        features_NPD = self.model.image_features(pixels)
        token, per_image = self.model.config.image_token_id, features_NPD.shape[1]
        places = torch.stack([(rows["input_ids"] == token).sum() for rows in batch["calls"]])
        images = features_NPD.split([each // per_image for each in places.tolist()])
        states = [
            self._decode(rows, own if len(own) else None, every_call_learns)
            for rows, own in zip(batch["calls"], images, strict=True)
        ]
        return features_NPD.float().mean(1), states

    def empty_call(self, batch: Batch) -> Tensor:
        """See `Bundle`."""
        return self._decode(dummy_call(batch["calls"]), None, True)

    def _decode(self, rows: Rows, features_NPD: Tensor | None, learns: bool) -> Tensor:
        """Last hidden states [R, L, D] of one call. Without the cache, or else the language model
        overlooks that a row is packed and lets sequences read each other."""
        model: Any = self.model
        embeddings_RLD = model.get_input_embeddings()(rows["input_ids"])
        if features_NPD is not None:
            embeddings_RLD = model.insert_images(rows["input_ids"], features_NPD)
        if learns and torch.is_grad_enabled():
            # Layers are gathered for the backward pass too, so every call needs one.
            embeddings_RLD.requires_grad_()
        return model.get_decoder()(
            inputs_embeds=embeddings_RLD,
            position_ids=rows["position_ids"],
            attention_mask=rows["attention_mask"],
            use_cache=False,
        ).last_hidden_state

    @property
    def tower(self) -> nn.Module:
        """See `Bundle`."""
        return self.model.model.vision_tower

    def image_features(self, image: Image.Image) -> list[Tensor]:
        """See `Bundle`: what the connector hands to the projector, [1, P, D_connector]."""
        pixels = pixel_values(self, [image]).to(self.model.device, self.model.dtype)
        return [self.model.model.vision_features(pixels)]

    def part(self, name: str) -> list[nn.Parameter]:
        """See `Bundle`."""
        model: Any = self.model
        modules = {
            "vision": [model.model.vision_tower],
            "connector": [model.model.multi_modal_projector],
            "language": [model.get_decoder(), model.get_output_embeddings()],
        }[name]
        return [each for module in modules for each in module.parameters()]

    # Beside -------------------------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """See `Bundle`; with `connector: none` the folder is a stock LLaVA checkpoint."""
        with quiet():
            self.model.save_pretrained(folder)
            save_processor(self.processor, folder)
        config = read_json_object(folder / CONFIG)
        if config["connector"] == "none":
            config = {key: config[key] for key in config if key not in NATIVE_KEYS} | STOCK
            write_json(folder / CONFIG, config)


def pixel_values(
    bundle: "NativeBundle",
    images: Sequence[Image.Image],
    aspect: Literal["square", "pad"] = "square",
) -> Tensor:
    """Preprocess images as the original does: RGB, resize, centre crop, normalise.

    There is at least one image, of any mode and size. The aspect `square` crops the longer side, as
    in the training of all published checkpoints; `pad` first pads the image to a square with the
    mean colour. Returns [N, 3, H, W] float32.
    """
    rgb = [image.convert("RGB") for image in images]
    if aspect == "pad":
        rgb = [pad_to_square(image, bundle.image_processor.image_mean) for image in rgb]
    return bundle.image_processor(rgb, return_tensors="pt")["pixel_values"]


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The image, padded to a square with the colour `mean` (one fraction of 255 a channel)."""
    side = max(image.size)
    colour = tuple(int(channel * 255) for channel in mean)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def load_native(
    folder_or_name: str | Path,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    device: str = "cpu",
) -> NativeBundle:
    """Load a checkpoint of this project, or a stock export of it; see `load_bundle`.

    Raises:
        CheckpointError: as for `load_bundle`, and where the folder holds another model.
    """
    folder = local_folder(folder_or_name)
    check_checkpoint(folder)
    if not is_native(folder):
        raise CheckpointError(
            f"{folder} holds a {read_json_object(folder / CONFIG).get('model_type')}, and this is "
            "only for this project's own model."
        )
    config = read_config(folder)
    if any(name.startswith("language_model.") for name in folder_shapes(folder)):
        # As transformers writes a stock LLaVA; its own class knows these names.
        stock = from_pretrained(LlavaForConditionalGeneration, folder, None, dtype)
        with quiet():
            model: Any = ExgraForConditionalGeneration.from_pretrained(
                None, config=config, state_dict=stock.state_dict(), dtype=stock.dtype
            )
    else:
        model = from_pretrained(ExgraForConditionalGeneration, folder, config, dtype)
    # How answers are generated is said by whoever asks, not by the folder.
    model.generation_config = GenerationConfig.from_model_config(config)
    bundle = NativeBundle(model.to(device).eval(), load_processor(folder))
    _try_processor(bundle, folder)
    return bundle


def _try_processor(bundle: NativeBundle, folder: Path) -> None:
    """Refuse a processor that does not make what its model reads, of one question and picture."""
    problem = f"has a processor that cannot be used ({PROCESSOR_FILES})"
    tokenizer, config = bundle.tokenizer, bundle.model.config
    with described(folder, problem):
        pixels = pixel_values(bundle, [Image.new("RGB", (8, 6))])
        ids = bundle.prompt([Turn(role="user", text="?")], 1)
        bundle.answer_text(ids)
        known = [*tokenizer.get_vocab().values(), *ids, *bundle.stop_ids, bundle.pad_token_id]
        largest = max(map(int, known))
    side, rows = config.vision_config.image_size, config.text_config.vocab_size
    if pixels.shape != (1, 3, side, side) or not bool(torch.isfinite(pixels).all()):
        raise CheckpointError(
            f"{folder} {problem}: it makes pictures of {list(pixels.shape[1:])}, and the vision "
            f"tower sees {[3, side, side]}.",
            "Copy processor_config.json from where the model was published.",
        )
    if largest >= rows or bundle.image_token_id != config.image_token_id:
        raise CheckpointError(
            f"{folder} {problem}: its tokens are others than the model's {rows}.",
            "Copy tokenizer.json from where the model was published.",
        )


AutoConfig.register(ExgraConfig.model_type, ExgraConfig)
AutoModelForImageTextToText.register(ExgraConfig, ExgraForConditionalGeneration)
AutoProcessor.register(ExgraConfig, LlavaProcessor)
