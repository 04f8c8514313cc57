"""Answers: batched, with a key-value cache, ending exactly at `###`; greedy unless told else.

A batch gives the answers its prompts get one by one; rows that have finished leave the batch.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from exgra_med.data.chat_template import STOP
from exgra_med.errors import DataError
from exgra_med.llm.request import Sampling
from exgra_med.model.bundle import Bundle, pixel_values

# Which token comes next: the likeliest, or one drawn from the likely ones.
#
# Shapes: B rows, V words of the vocabulary.


Choose = Callable[[Tensor], Tensor]
"""Logits [B, V] -> token ids [B]."""


def greedy(logits_BV: Tensor) -> Tensor:
    """The likeliest token of each row."""
    return logits_BV.argmax(-1)


def chooser(sampling: Sampling, device: torch.device) -> Choose:
    """How the next token is chosen under some settings.

    Args:
        sampling: temperature 0 or None takes the likeliest token; `top_p` keeps the smallest set of
            tokens with at least that probability (nucleus sampling, Holtzman et al. 2020); equal
            seeds give equal draws on the same device.
        device: where the logits are.
    """
    if not sampling.temperature:
        return greedy
    temperature = sampling.temperature
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    generator = torch.Generator(device).manual_seed(sampling.seed or 0)

    def choose(logits_BV: Tensor) -> Tensor:
        probabilities = nucleus((logits_BV.float() / temperature).softmax(-1), top_p)
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)

    return choose


def nucleus(probabilities_BV: Tensor, top_p: float) -> Tensor:
    """Probabilities without what lies outside the most probable `top_p`; not normalised again."""
    if top_p >= 1:
        return probabilities_BV
    ordered, places = probabilities_BV.sort(-1, descending=True)
    # The first token is always kept, also where it alone is more probable than `top_p`.
    before = ordered.cumsum(-1) - ordered
    return probabilities_BV.scatter(-1, places, torch.where(before < top_p, ordered, 0.0))


FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer: the text before the end marker, stripped, and what it took to write it."""

    text: str
    num_tokens: int
    finish_reason: FinishReason
    token_ids: list[int]


def generate(
    bundle: Bundle,
    prompts: Sequence[list[int]],
    images: Sequence[Sequence[Image.Image]],
    max_new_tokens: int,
) -> list[Generated]:
    """Answer prompts greedily, all at once.

    Args:
        bundle: model and processor.
        prompts: token ids, from `encode_prompt`.
        images: the images of each prompt, in reading order; none for a text-only prompt.
        max_new_tokens: longest answer in tokens.

    Raises:
        DataError: a prompt has no room for its images, or room for more.
    """
    if not prompts:
        return []
    written: list[list[int]] = [[] for _ in prompts]
    reasons: list[FinishReason] = ["length"] * len(prompts)
    for row, token, reason in step_tokens(bundle, prompts, images, max_new_tokens):
        written[row].append(token)
        if reason:
            reasons[row] = reason
    return [
        Generated(answer_text(bundle, ids), len(ids), reason, ids)
        for ids, reason in zip(written, reasons, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Written:
    """A further piece of an answer that is being written."""

    text: str
    num_tokens: int
    """Tokens written so far."""
    finish_reason: FinishReason | None
    """Set with the last piece."""


def stream(
    bundle: Bundle, prompt: list[int], images: Sequence[Image.Image], max_new_tokens: int
) -> Iterator[str]:
    """The answer to one prompt, in pieces as they are written; joined they are `Generated.text`."""
    for piece in write(bundle, prompt, images, max_new_tokens):
        if piece.text:
            yield piece.text


def write(
    bundle: Bundle,
    prompt: list[int],
    images: Sequence[Image.Image],
    max_new_tokens: int,
    choose: Choose = greedy,
) -> Iterator[Written]:
    """The answer to one prompt in pieces, with what it took so far; the last piece may be empty."""
    ids: list[int] = []
    shown = ""
    for _, token, reason in step_tokens(bundle, [prompt], [images], max_new_tokens, choose):
        ids.append(token)
        # A run of byte pieces is decoded as a whole, so it waits until it is complete.
        piece = str(bundle.tokenizer.convert_ids_to_tokens(token))
        if not reason and piece.startswith("<0x"):
            continue
        text = answer_text(bundle, ids)
        # The last blanks are stripped if nothing follows; `#` may be the beginning of `###`.
        safe = text if reason else text.rstrip("#\N{REPLACEMENT CHARACTER}").rstrip()
        if len(safe) > len(shown) or reason:
            yield Written(safe[len(shown) :], len(ids), reason)
            shown = safe


def answer_text(bundle: Bundle, ids: list[int]) -> str:
    """The text of new tokens before the end marker, stripped."""
    text = bundle.tokenizer.decode(ids, skip_special_tokens=True)
    return text.split(STOP)[0].strip()  # type: ignore


@torch.inference_mode()
def step_tokens(
    bundle: Bundle,
    prompts: Sequence[list[int]],
    images: Sequence[Sequence[Image.Image]],
    max_new_tokens: int,
    choose: Choose = greedy,
) -> Iterator[tuple[int, int, FinishReason | None]]:
    """Yield `(row, token, reason)` for each new token; `reason` is set with the last of a row."""
    model, device = bundle.model, bundle.model.device
    check_placeholders(bundle, prompts, images)
    longest = max(map(len, prompts))
    pad = bundle.pad_token_id
    ids_BT = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=device)
    mask_BT = torch.tensor(
        [[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device
    )
    flat = [image for row in images for image in row]
    features_NPD = None
    if flat:
        # Questions share images: each is looked at once.
        distinct = {id(image): image for image in flat}
        pixels = pixel_values(bundle, list(distinct.values())).to(device, model.dtype)
        order = {name: place for place, name in enumerate(distinct)}
        chosen = torch.tensor([order[id(image)] for image in flat], device=device)
        features_NPD = model.image_features(pixels)[chosen]
    inputs = model.insert_images(ids_BT, features_NPD)
    rows = list(range(len(prompts)))
    written: list[list[int]] = [[] for _ in prompts]
    hashes = hash_ids(bundle)
    decoder = model.model.language_model
    cache = DynamicCache(config=model.config.text_config)
    # transformers 5.24 renamed the argument.
    is_new = "cache" in inspect.signature(decoder.forward).parameters
    cache_argument = {"cache" if is_new else "past_key_values": cache}
    positions = (mask_BT.cumsum(1) - 1).clamp(min=0)
    for step in range(max_new_tokens):
        output = decoder(
            inputs_embeds=inputs,
            attention_mask=mask_BT,
            position_ids=positions,
            use_cache=True,
            **cache_argument,
        )
        tokens_B = choose(model.lm_head(output.last_hidden_state[:, -1]))
        keep = []
        for place, (row, token) in enumerate(zip(rows, tokens_B.tolist(), strict=True)):
            written[row].append(token)
            reason = finish_reason(bundle, written[row], hashes, step + 1 == max_new_tokens)
            yield row, token, reason
            if reason is None:
                keep.append(place)
        if not keep:
            return
        if len(keep) < len(rows):
            places = torch.tensor(keep, device=device)
            rows = [rows[place] for place in keep]
            cache.batch_select_indices(places)
            tokens_B, mask_BT, positions = tokens_B[places], mask_BT[places], positions[places]
        inputs = model.get_input_embeddings()(tokens_B.unsqueeze(1))
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], 1)
        positions = positions[:, -1:] + 1


def finish_reason(
    bundle: Bundle, ids: list[int], hashes: frozenset[int], is_last: bool
) -> FinishReason | None:
    """Why a row ends with its newest token, if it does."""
    if ids[-1] == bundle.tokenizer.eos_token_id:
        return "stop"
    if ids[-1] in hashes and STOP in bundle.tokenizer.decode(ids, skip_special_tokens=True):
        return "stop"
    return "length" if is_last else None


def hash_ids(bundle: Bundle) -> frozenset[int]:
    """Ids of the pieces with a `#` in them: only these can complete the end marker."""
    vocabulary = bundle.tokenizer.get_vocab()
    return frozenset(i for piece, i in vocabulary.items() if "#" in piece or piece == "<0x23>")


def check_placeholders(
    bundle: Bundle, prompts: Sequence[list[int]], images: Sequence[Sequence[Image.Image]]
) -> None:
    """Refuse a prompt whose placeholders do not fit its images."""
    for row, (prompt, own) in enumerate(zip(prompts, images, strict=True)):
        expected = len(own) * bundle.num_image_tokens
        if prompt.count(bundle.image_token_id) != expected:
            raise DataError(
                f"Prompt {row} has {prompt.count(bundle.image_token_id)} image placeholders, but "
                f"its {len(own)} images have {expected} visual tokens."
            )
