"""Any image-text-to-text model of transformers: what it is told, batched, run and asked.

Nothing here names a family, and nothing knows the names of a model's inputs:

* text is what the processor's own chat template writes; what is learnt is prompt + answer + end, so
  what is asked later is always the beginning of what was learnt;
* a batch is what the processor returns, of which the model gets what its `forward` knows;
* images are the vectors that enter the language model at the image placeholders;
* what cannot be read off a model is measured on it when it is loaded, see `model.probe`.

Shapes: B rows of the processor, R rows of L tokens, K image vectors, D width of the language model.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GenerationConfig

from exgra_med.alignment.image_nodes import decoder_inputs, image_token_id
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import IMAGE_PLACEHOLDER, Record, Turn
from exgra_med.errors import CheckpointError, DataError, MatchingError, TrainingError
from exgra_med.model.batch import (
    FEATURES,
    IGNORED,
    NOT_POOLED,
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
    to_device,
    views_of,
)
from exgra_med.model.bundle import Bundle, quiet
from exgra_med.model.chat_text import PROCESSOR_ERRORS, ChatText, Told, not_taken
from exgra_med.model.packed_rows import (
    Block,
    attention_mask,
    image_blocks,
    joined_rows,
    sequence_places,
    single_blocks,
)
from exgra_med.model.short_attention import use_short_attention
from exgra_med.model.sizes import part_of
from exgra_med.model.tower_output import Pass, TowerOutput
from exgra_med.reading import short
from exgra_med.recipe.schema import TextSettings

Inputs = dict[str, Any]
# Line breaks around an image may join those of the text, so that a sum is a few tokens off.
FEW_TOKENS = 8


def only_full_attention(config: Any) -> bool:
    """Whether every layer of a language model attends to all that stands before, and none keeps a
    state or looks through a window."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None


@dataclass(frozen=True)
class Facts:
    """What was measured on a model; see `model.probe`."""

    leak: float
    """How much what comes later changes what stands before it; 0 in a causal model."""
    batch_difference: float
    """How much a sample's image vector in a batch differs from that alone."""
    head_difference: float
    """How much the head on the last hidden states differs from the model's own logits."""
    text_packing: str | None
    """The position ids with which texts in one row do not see each other, see `POSITIONS`."""
    image_packing: str | None
    """The same for texts with images."""
    text_difference: float
    """Of texts, packed in the best way that was tried against apart."""
    image_difference: float
    """The same for texts with images."""
    shares_images: bool = False
    """Whether texts about one image may share its tokens in a row, see `model.packed_rows`."""
    sharing_difference: float = float("inf")
    """Of texts that do, against apart."""


POSITIONS = ("plain", "rope")
"""`plain`: [R, L], counting from 0 in every sequence. `rope`: [4, R, L], these and the three axes
that `get_rope_index` gives to every sequence."""
# The most that rounding explains; what is not meant for packing differs by 3e-2 or more.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_TOLERANCE = 5e-2


def _token_ids(settings: GenerationConfig, name: str) -> list[int]:
    """The tokens that a folder's generation settings name: none, one, or several.

    Raises:
        CheckpointError: they are no numbers of tokens.
    """
    value = getattr(settings, name, None)
    found = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(each) is int and 0 <= each < 2**31 for each in found):
        raise CheckpointError(
            f"The model's generation_config.json: {name} is {short(value)}, and no token's number.",
            "Get the file again from where the model is from.",
        )
    return found


class AnyBundle(Bundle):
    """A model of any family with its processor; see `Bundle`.

    Raises:
        CheckpointError: the processor has no chat template, or images do not stand among the text
            of this kind of model.
    """

    facts: Facts

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        try:
            self._image_token_id = image_token_id(model.config)
        except MatchingError as error:
            raise CheckpointError(error.message) from error
        self.accepted = set(inspect.signature(model.forward).parameters) - {"labels"}
        # How answers are generated is said by whoever asks, not by the folder.
        self._own_generation = model.generation_config
        stops = _token_ids(self._own_generation, "eos_token_id")
        _token_ids(self._own_generation, "bos_token_id")
        self.chat = ChatText(processor, stops)
        use_short_attention(model)
        model.generation_config = GenerationConfig(
            bos_token_id=self._own_generation.bos_token_id,
            eos_token_id=self.stop_ids,
            pad_token_id=self.pad_token_id,
        )

    @property
    def image_token_id(self) -> int:
        """See `Bundle`: by the model's configuration."""
        return self._image_token_id

    # Asking -------------------------------------------------------------------------------------

    def prompt(
        self,
        turns: Sequence[Turn],
        num_images: int = 0,
        options: Sequence[str] | None = None,
        template: str = "exgra",
    ) -> str:
        """See `Bundle`: the text that the model's own chat template writes."""
        if template != "exgra":
            raise DataError(
                f"The chat template {template!r} is for this project's own model; a "
                f"{self.model.config.model_type} is asked by its own.",
                "Leave the template out.",
            )
        return self.chat.prompt(turns, num_images, options)

    def num_tokens(self, prompt: str, images: Sequence[Image.Image]) -> int:
        """See `Bundle`; counted by the processor only where it might be near the longest."""
        about = self._text_tokens(prompt) + self._growth([image.size for image in images])
        if about + FEW_TOKENS * len(images) < self.context_length // 2:
            return about
        return self.process([prompt], [images], "left")["input_ids"].shape[1]

    def _text_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=self._adds_begin(text)).input_ids)

    def generation_inputs(
        self, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]
    ) -> tuple[Inputs, int]:
        """See `Bundle`."""
        batch = self.process(prompts, images, "left")
        longest = int(batch["attention_mask"].sum(1).max())
        if longest >= self.context_length:
            row = int(batch["attention_mask"].sum(1).argmax())
            raise DataError(
                f"A question with its {len(images[row])} images has {longest} tokens, and the "
                f"model reads {self.context_length} in all.",
                "Give fewer or smaller images, or a shorter question.",
            )
        rows = _unpadded(batch["input_ids"], batch["attention_mask"])
        blocks = self._prompt_blocks(rows, images)
        if len(blocks) == len(prompts):
            return self._to_model(self.inputs_of(batch)), batch["input_ids"].shape[1]
        return self._behind_packed(prompts, images, batch, rows, blocks)

    # Questions about one image begin alike: that beginning, with all image tokens, goes through
    # tower and language model once, in packed rows as in training. Each question then goes on from
    # its own keys and values, with its last token.

    def _prompt_blocks(
        self, rows: Sequence[Tensor], images: Sequence[Sequence[Image.Image]]
    ) -> list[Block]:
        """What stays together of prompts without their last token; a block each where the kind of
        model does not allow it."""
        sizes = [len(row) - 1 for row in rows]
        shows = [tuple(id(picture) for picture in own) for own in images]
        if len(set(shows)) == len(shows) or not all(sizes):
            return single_blocks(sizes)
        # As for training, but for the rounding of half precision, which may hide other positions.
        other_positions = hasattr(self.model.base_model, "get_rope_index")
        if other_positions or self.facts.sharing_difference > self.tolerance:
            return single_blocks(sizes)
        ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        silent = torch.full_like(ids, IGNORED)
        return image_blocks(ids, silent, sizes, shows, self.image_token_id)

    def _behind_packed(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        batch: Mapping[str, Any],
        rows: Sequence[Tensor],
        blocks: Sequence[Block],
    ) -> tuple[Inputs, int]:
        """Inputs for `generate` behind the keys and values of all tokens but the last of each
        prompt, and the length of the prompts."""
        firsts = [block[0][0] for block in blocks]
        own = self.process([prompts[n] for n in firsts], [images[n] for n in firsts], "left")
        inputs = self.inputs_of(own)
        rowwise = [name for name in self._row_inputs if name in inputs]
        columns = {
            name: torch.nn.utils.rnn.pad_sequence(
                _unpadded(batch[name], batch["attention_mask"]), batch_first=True
            )
            for name in ("input_ids", *rowwise)
        }
        columns["positions"] = torch.arange(columns["input_ids"].shape[1]).expand_as(
            columns["input_ids"]
        )
        columns = joined_rows(columns, blocks, self._tokens_per_row, self.pad_token_id)
        inputs |= {name: columns[name] for name in ("input_ids", *rowwise)}
        inputs |= {"attention_mask": attention_mask(columns), "position_ids": columns["positions"]}
        output = self.model(**self._to_model(inputs), use_cache=True, logits_to_keep=1)
        name = "cache" if "cache" in output else "past_key_values"  # before transformers 5.24
        places = _padded_left(sequence_places(columns, len(prompts)), 0).to(self.model.device)
        for layer in output[name].layers:
            layer.keys, layer.values = (
                each.transpose(1, 2).flatten(0, 1)[places].transpose(1, 2)
                for each in (layer.keys, layer.values)
            )
        whole = {
            "input_ids": _padded_left(rows, self.pad_token_id),
            "attention_mask": _padded_left([torch.ones_like(row) for row in rows], 0),
        }
        return self._to_model(whole) | {name: output[name]}, whole["input_ids"].shape[1]

    @property
    def _tokens_per_row(self) -> int:
        """Of packed prompts. On a CPU their attention goes block by block."""
        return 8192 if self.model.device.type == "cpu" else 2048

    @property
    def stop_ids(self) -> list[int]:
        """See `Bundle`: of the generation config, the tokenizer and the end of the template."""
        return self.chat.stop_ids

    def answer_text(self, ids: list[int]) -> str:
        """See `Bundle`."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def safe_text(self, ids: list[int]) -> str | None:
        """See `Bundle`: without the first bytes of a character that is not complete."""
        return self.answer_text(ids).rstrip("\N{REPLACEMENT CHARACTER}").rstrip()

    # The processor ------------------------------------------------------------------------------

    def process(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]], side: str
    ) -> Mapping[str, Any]:
        """The processor's own batch of texts with their images, padded on a side; on the right
        with offsets. Some processors give offsets only where the first text has an image.

        Raises:
            DataError: the processor does not take these images with their texts.
        """
        try:
            return self._processed(texts, images, side)
        except PROCESSOR_ERRORS as error:
            raise not_taken(
                self.processor, [i.size for own in images for i in own], error
            ) from error

    def _processed(
        self, texts: Sequence[str], images: Sequence[Sequence[Image.Image]], side: str
    ) -> Mapping[str, Any]:
        pictures = [[picture.convert("RGB") for picture in own] for own in images]
        wanted = {
            "text": list(texts),
            "padding": True,
            "padding_side": side,
            "return_tensors": "pt",
            "return_mm_token_type_ids": True,
            "add_special_tokens": self._adds_begin(texts[0]),
        }
        if side == "right":  # What is learnt is on the right, what is asked on the left.
            wanted |= {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
        if not any(pictures):
            return self.processor(**wanted)
        try:
            return self.processor(images=pictures, **wanted)
        except (ValueError, IndexError, TypeError):
            if all(pictures):
                raise
        # Some processors refuse a sample without images in a nested list; others need the list.
        return self.processor(images=[each for own in pictures for each in own], **wanted)

    def _adds_begin(self, text: str) -> bool:
        """Whether the tokenizer has to add its first token, which most templates write."""
        begin = self.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def inputs_of(self, batch: Mapping[str, Any]) -> Inputs:
        """What of a processor's batch the model takes."""
        return {name: value for name, value in batch.items() if name in self.accepted}

    @cached_property
    def _row_inputs(self) -> list[str]:
        """Names of inputs that hold one number a token, and 0 for a token of text."""
        batch = self.process([self.chat.prompt([Turn(role="user", text="?")])], [[]], "right")
        shape = batch["input_ids"].shape
        known = {"input_ids", "attention_mask", "position_ids"}
        found: Any = self.inputs_of(batch).items()
        return [n for n, each in found if n not in known and getattr(each, "shape", 0) == shape]

    def _to_model(self, inputs: Inputs) -> Inputs:
        moved = to_device(inputs, self.model.device)
        return {name: self._as_weights(value) for name, value in moved.items()}

    def image_tokens(self, record: Record, images: ImageFolder) -> int:
        """See `Bundle`."""
        sizes = [images.size(name, record.id) for name in record.images]
        try:
            return len(sizes) + self._growth(sizes)
        except DataError as error:
            raise DataError(f"Record {record.id!r}: {error.message}", error.hint) from error

    def _growth(self, sizes: Sequence[tuple[int, int]]) -> int:
        """How many more tokens the placeholders of images of these sizes, together, become."""
        known = tuple(sizes)
        if known and known not in self._known_sizes:
            asked = self.chat.prompt([Turn(role="user", text="?")], len(known))
            blank = [Image.new("RGB", size) for size in known]
            whole = self.process([asked], [blank], "right")["input_ids"]
            self._known_sizes[known] = whole.shape[1] - self._text_tokens(asked)
        return self._known_sizes.get(known, 0)

    @cached_property
    def _known_sizes(self) -> dict[tuple[tuple[int, int], ...], int]:
        return {}

    # Training -----------------------------------------------------------------------------------

    def conversation(
        self,
        record: Record,
        images: Sequence[Image.Image],
        text: TextSettings,
        train_on_prompts: bool = False,
    ) -> list[Told]:
        """See `Bundle`: one sequence, or one for each answer where the template writes earlier
        answers in another way than the last. Tokens are made in `collate`, where the processor
        sees texts and images together."""
        told = self.chat.tell(record.turns, images, record.meta.get("options"), train_on_prompts)
        return [
            replace(
                each,
                name=record.id,
                max_length=text.max_length,
                shows=tuple(record.images[: len(each.images)]),
            )
            for each in told
        ]

    def check_images_fit(self, record: Record, images: ImageFolder, text: TextSettings) -> None:
        """See `Bundle`."""
        if not record.images:
            return
        placed = [n for n, turn in enumerate(record.turns) if IMAGE_PLACEHOLDER in turn.text]
        turns, options = record.turns[: max(placed, default=0) + 1], record.meta.get("options")
        asked = self.chat.prompt(turns, len(record.images), options)
        # A text has at most as many tokens as bytes, so few have to be tokenised twice.
        visual = self.image_tokens(record, images)
        if len(asked.encode()) + visual <= text.max_length:
            return
        needed = visual - len(record.images) + self._text_tokens(asked)
        if needed > text.max_length:
            raise DataError(
                f"Record {record.id!r}: question and images need {needed} tokens, and "
                f"`text.max_length` is {text.max_length}.",
                "Raise `text.max_length`, or make images smaller with `model.images`.",
            )

    def learnt(
        self, conversation: list[Told], record: Record, text: TextSettings
    ) -> tuple[str, str]:
        """See `Bundle`."""
        batch = self.process(
            [e.text for e in conversation], [e.images for e in conversation], "right"
        )
        labels = self.labels(batch, conversation)
        written = [each.text[first:last] for each in conversation for first, last in each.spans]
        return self.tokenizer.decode(labels[labels != IGNORED]), "".join(written)

    def text_ids(self, text: str, max_length: int) -> list[int]:
        """See `Bundle`."""
        return self.tokenizer(self.chat.neutral(text)).input_ids[:max_length]

    def collate(self, examples: Sequence[TrainingExample], layout: Layout) -> Batch:
        """See `Bundle`; a call has its `inputs` beside the rows."""
        views = views_of(examples)
        told = [
            (views.node_of(number), each)
            for number, example in enumerate(examples)
            for conversation in example.conversations
            for each in conversation
        ]
        told.sort(key=lambda pair: not pair[1].images)  # images first, see `process`
        # A node has image vectors of its own.
        share = layout.packed and self.facts.shares_images and not views.nodes
        calls = list(
            self._calls([each for _, each in told], [node for node, _ in told], layout, share)
        )
        nodes = [call.pop("image_nodes") for call in calls]
        return {
            "ids": [example.id for example in examples],
            "calls": [*calls, *self._text_calls(views.texts, layout)],
            "num_images": sum(len(each.images) for _, each in told),
            "num_nodes": len(views.nodes),
            "has_extended": views.has_extended,
            "node_of_image": torch.cat(nodes),
        }

    def _calls(
        self, told: list[Told], nodes: list[int], layout: Layout, share: bool
    ) -> Iterator[Any]:
        """Calls of conversations; one that is too long for a call is cut into halves."""
        whole = self.process([each.text for each in told], [each.images for each in told], "right")
        labels = self.labels(whole, told)
        ids, mask = _cut(whole, labels, told, self.image_token_id)
        most, length = layout.max_tokens_per_call, ids.shape[1]
        if most is not None and len(told) > 1 and ids.numel() > max(most, length):
            half = len(told) // 2
            yield from self._calls(told[:half], nodes[:half], layout, share)
            yield from self._calls(told[half:], nodes[half:], layout, share)
            return
        owner = torch.tensor(nodes).unsqueeze(1).expand_as(ids)
        targets = torch.full_like(ids, IGNORED)
        targets[:, :-1] = labels[:, 1:length]
        way = self.facts.image_packing if layout.packed else None
        sizes = mask.sum(1).tolist()
        blocks = single_blocks(sizes)
        if share and way is not None:
            shows = [each.shows for each in told]
            blocks = image_blocks(ids, targets, sizes, shows, self.image_token_id)
        inputs = self.inputs_of(whole)
        if len(blocks) < len(told):
            told = [told[block[0][0]] for block in blocks]
            texts, images = [each.text for each in told], [each.images for each in told]
            first = self.inputs_of(self.process(texts, images, "right"))
            inputs = {
                name: inputs[name] if name in self._row_inputs else first[name] for name in first
            }
        inputs |= {"input_ids": ids, "attention_mask": mask}
        features = carried_features([image for each in told for image in each.images])
        if features is not None:
            inputs[FEATURES] = features
        rowwise = [name for name in self._row_inputs if name in inputs]
        inputs |= {name: inputs[name][:, :length] for name in rowwise}
        if way is not None:
            columns: dict[str, Tensor] = {"input_ids": ids, "targets": targets, "owner": owner}
            columns |= {name: inputs[name] for name in rowwise}
            for number, axis in enumerate(self._positions(way, inputs)):
                columns[f"positions {number}"] = axis
            columns = joined_rows(columns, blocks, layout.tokens_per_row, self.pad_token_id)
            axes = [value for name, value in columns.items() if name.startswith("positions")]
            del inputs["attention_mask"]
            if any(len(block) > 1 for block in blocks):
                inputs["attention_mask"] = attention_mask(columns)
            inputs |= {name: columns[name] for name in ("input_ids", *rowwise)}
            inputs["position_ids"] = axes[0] if way == "plain" else torch.stack(axes)
            ids, targets, owner = (columns[name] for name in ("input_ids", "targets", "owner"))
        call = _call(inputs, targets, torch.full_like(ids, NOT_POOLED))
        yield call | {"image_nodes": owner[ids == self.image_token_id]}

    def _text_calls(self, texts: Sequence[TokenSequence], layout: Layout) -> list[Any]:
        """Calls of texts alone, packed where that was measured to change nothing."""
        if not texts:
            return []
        way = self.facts.text_packing if layout.packed else None
        if way is None:
            rows = pad(texts, self.pad_token_id, pool_padding=not layout.packed)
        else:
            rows, _ = pack(texts, layout.tokens_per_row, self.pad_token_id)
        made = []
        for part in split_rows(rows, layout.max_tokens_per_call):
            inputs: Inputs = {"input_ids": part["input_ids"]}
            if way is None:
                inputs["attention_mask"] = part["attention_mask"]
            else:
                own = part["position_ids"]
                inputs["position_ids"] = own if way == "plain" else own.expand(4, -1, -1)
            made.append(_call(self._with_zeros(inputs), part["targets"], part["segment"]))
        return made

    def _with_zeros(self, inputs: Inputs) -> Inputs:
        return inputs | {n: torch.zeros_like(inputs["input_ids"]) for n in self._row_inputs}

    def _positions(self, way: str, inputs: Inputs) -> list[Tensor]:
        """Position ids [B, L] of right-padded rows, one tensor for each axis."""
        mask = inputs["attention_mask"]
        plain = torch.arange(mask.shape[1]).expand_as(mask)
        if way == "plain":
            return [plain]
        index = self.model.base_model.get_rope_index
        known = inspect.signature(index).parameters
        given = {name: value for name, value in inputs.items() if name in known}
        axes, _ = index(**given)
        return [plain, *axes]

    def labels(self, batch: Mapping[str, Any], told: Sequence[Told]) -> Tensor:
        """[B, L] ids of the tokens that are learnt, else -100.

        Characters become tokens by the offsets that tokenizer and processor return; the processor
        has written an image's tokens in the place of its placeholder.
        """
        ids, labels = batch["input_ids"], torch.full_like(batch["input_ids"], IGNORED)
        grown: Any = batch.get("text_replacement_offsets")
        if not isinstance(grown, list):
            grown = [[] for _ in told]  # absent, or an empty tensor, where no text has an image
        for row, each in enumerate(told):
            begin, end = batch["offset_mapping"][row].unbind(-1)
            learnt = torch.zeros_like(begin, dtype=torch.bool)
            for first, last in each.spans:
                moved = [_moved(place, grown[row]) for place in (first, last)]
                learnt |= (begin < moved[1]) & (end > moved[0]) & (end > begin)
            for replaced in grown[row]:
                inside = slice(*replaced["new_span"])
                learnt &= ~((begin < inside.stop) & (end > inside.start))
            learnt &= batch["attention_mask"][row].bool() & (ids[row] != self.image_token_id)
            labels[row][learnt] = ids[row][learnt]
        return labels

    # The model ----------------------------------------------------------------------------------

    def encode(
        self, batch: Batch, every_call_learns: bool = False
    ) -> tuple[Tensor | None, list[Tensor]]:
        """See `Bundle`; a vector is one image placeholder's, as it enters the language model."""
        vectors, states = [], []
        for call in batch["calls"]:
            hidden, seen = self.states(call["inputs"], every_call_learns)
            states.append(hidden)
            vectors.append(seen[call["input_ids"] == self.image_token_id].float())
        return (torch.cat(vectors) if batch["num_images"] else None), states

    def states(self, inputs: Inputs, learns: bool = False) -> tuple[Tensor, Tensor]:
        """Last hidden states and what entered the language model, [R, L, D] each.

        Raises:
            CheckpointError: images do not enter the language model among its text.
        """
        model: Any = self.model
        features = inputs.get(FEATURES)
        kept = features and self._tower_output.given(self.tower, features)
        inputs = {name: self._as_weights(v) for name, v in inputs.items() if name != FEATURES}
        with (
            decoder_inputs(model) as seen,
            _embeddings_learn(model, learns),
            kept or nullcontext(),
        ):
            hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
        if len(seen) != 1 or seen[0].shape[:2] != inputs["input_ids"].shape:
            raise CheckpointError(
                f"A {model.config.model_type} does not hand its images to the language model "
                "among the text (it may read them through cross-attention); such models are not "
                "supported.",
                "Start from a model that puts image tokens among the text.",
            )
        return hidden, seen[0]

    def _as_weights(self, value: Any) -> Any:
        """Pixels in the type of the weights; autocast does not reach the first layer's input."""
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(self.model.dtype)
        return value

    def empty_call(self, batch: Batch) -> Tensor:
        """See `Bundle`."""
        rows = dummy_call(batch["calls"])
        inputs = {"input_ids": rows["input_ids"]}
        inputs["attention_mask"] = torch.ones_like(rows["input_ids"])
        return self.states(self._with_zeros(inputs), True)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Bundle`: the head, or where that is not all, the model's own way from its last
        hidden states to logits."""
        if self.facts.head_difference <= self.tolerance:
            return super().logits(hidden)
        return self.own_logits(hidden)

    def own_logits(self, hidden: Tensor) -> Tensor:
        """The logits that the model's own forward makes of given last hidden states [N, D]."""
        base = self.model.base_model
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        base.forward = lambda *args, **kwargs: _Given(hidden.unsqueeze(0))
        try:
            return self.model(input_ids=ids).logits[0]
        finally:
            del base.forward

    @property
    def tolerance(self) -> float:
        """The largest relative difference that rounding explains."""
        return TOLERANCE.get(self.model.dtype, HALF_TOLERANCE)

    @property
    def tower(self) -> nn.Module:
        """See `Bundle`."""
        return self.model.get_encoder(modality="image")

    @cached_property
    def _tower_output(self) -> TowerOutput:
        blank, device = Image.new("RGB", (64, 64)), self.model.device
        # Nothing that is drawn by chance later may depend on when this is measured.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return TowerOutput(self.tower, self._pass(blank, 1), self._pass(blank, 2))

    def image_features(self, image: Image.Image) -> list[Tensor]:
        """See `Bundle`: the tensors of the tower's output that the model uses."""
        return self._tower_output.of(self.tower, self._pass(image, 1))

    def _pass(self, image: Image.Image, num_rows: int) -> Pass:
        """A pass of the model with equal rows of an image and hardly any text."""
        turns = [Turn(role="user", text="?"), Turn(role="assistant", text=".")]
        told = self.chat.tell(turns, [image]) * num_rows
        batch = self.process([each.text for each in told], [each.images for each in told], "right")
        inputs = self._to_model(self.inputs_of(batch))
        return lambda: self.states(inputs)

    @property
    def marker_ids(self) -> list[int]:
        """See `Bundle`: the markers of a family are its own, and were trained with it."""
        return []

    def part(self, name: str) -> list[nn.Parameter]:
        """See `Bundle`."""
        return part_of(self.model, name)

    # Beside -------------------------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """See `Bundle`: the family's own class and processor, as plain transformers loads them."""
        with quiet():
            self.model.save_pretrained(folder)
            self._own_generation.save_pretrained(folder)
            self.processor.save_pretrained(folder)


class _Given:
    """The output of a base model whose last hidden states are given; it has nothing else."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, place: Any) -> Any:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        return None


@contextmanager
def _embeddings_learn(model: Any, learns: bool) -> Iterator[None]:
    """Let what enters the language model require a gradient, where every call needs one."""
    if not (learns and torch.is_grad_enabled()):
        yield
        return
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _, __, output: output.requires_grad_()
    )
    try:
        yield
    finally:
        handle.remove()


def _moved(place: int, replaced: Sequence[Mapping[str, Any]]) -> int:
    """Where a character is after placeholders before it have grown."""
    spans = [each for each in replaced if each["span"][1] <= place]
    return place + sum(
        (each["new_span"][1] - each["new_span"][0]) - (each["span"][1] - each["span"][0])
        for each in spans
    )


def _cut(
    batch: Mapping[str, Any], labels: Tensor, told: Sequence[Told], placeholder: int
) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, L], cut at the longest length that is allowed; never inside an image.

    Raises:
        DataError: an image would be cut.
        TrainingError: nothing of a record would be learnt.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    length = min(ids.shape[1], max(each.max_length for each in told))
    for row, each in enumerate(told):
        if (ids[row, each.max_length :] == placeholder).any():
            raise DataError(
                f"Record {each.name!r}: question and images need more than {each.max_length} "
                "tokens.",
                "Raise `text.max_length`, or make images smaller with `model.images`.",
            )
        if (labels[row, 1:length] == IGNORED).all():
            raise TrainingError(
                f"Record {each.name!r} has nothing supervised in {each.max_length} tokens.",
                "Raise text.max_length, or leave the record out.",
            )
    return ids[:, :length], mask[:, :length]


def _call(inputs: Inputs, targets: Tensor, segment: Tensor) -> Rows:
    """Rows of one call with the inputs of the model beside them."""
    rows: Any = {
        "input_ids": inputs["input_ids"],
        "position_ids": inputs.get("position_ids"),
        "targets": targets,
        "segment": segment,
        "attention_mask": inputs.get("attention_mask"),
        "inputs": inputs,
    }
    return rows


def _unpadded(values: Tensor, mask: Tensor) -> list[Tensor]:
    """The rows of [B, T] without padding."""
    return [row[own.bool()] for row, own in zip(values, mask, strict=True)]


def _padded_left(rows: Sequence[Tensor], padding: int) -> Tensor:
    """Rows of unequal length as [B, T]."""
    longest = max(len(row) for row in rows)
    return torch.stack(
        [torch.cat([row.new_full((longest - len(row),), padding), row]) for row in rows]
    )
