"""Answers of a model: a batch of them or one in pieces, greedy or sampled, each to its end.

`transformers.generate` writes the tokens. Added to it are two things:

* `EndMarker` ends an answer of the native model at `###`. `stop_strings` would do the same, but
  prepares itself anew for every call: 0.18 s with 32,000 tokens, 0.8 s with 128,000, before the
  first word of an answer;
* `Draw` samples with a random generator of its own, because `generate` would draw from the global
  one of torch, which threads share.

Compared with a loop of our own that took finished rows out of the batch (processor time on a CPU,
equal tokens): 1.00 times as long for 16 answers of 32 tokens, with 1 and with 100 million
parameters; 1.1 times for a single answer of the small model. Finished rows stay in the batch, so a
very uneven one takes longer: 1.4 to 1.6 times, where 15 answers have one token and one has 48.
"""

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from exgra_med.llm.request import Sampling
from exgra_med.model.bundle import Bundle
from exgra_med.model.chat_text import not_taken

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer: the text before the end marker, stripped, and the tokens it took."""

    text: str
    num_tokens: int
    finish_reason: FinishReason
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class AnswerChunk:
    """A further piece of an answer that is being written."""

    text: str
    num_tokens: int
    """Tokens so far."""
    finish_reason: FinishReason | None
    """Set with the last chunk."""


def generate(
    bundle: Bundle,
    prompts: Sequence[Any],
    images: Sequence[Sequence[Image.Image]],
    max_new_tokens: int,
) -> list[Generated]:
    """Answer prompts greedily, all at once; a batch gives the answers its prompts get one by one.

    Prompts are from `Bundle.prompt`, each with its images in reading order; none for a text-only
    prompt.

    Raises:
        DataError: a prompt has more or fewer image placeholders than its images need, or is too
            long for the model, or the model does not take images of their size.
    """
    if not prompts:
        return []
    sampling = Sampling(max_tokens=max_new_tokens)
    return [
        _answer(bundle, row, max_new_tokens)
        for row in _new_tokens(bundle, prompts, images, sampling)
    ]


def stream(
    bundle: Bundle, prompt: Any, images: Sequence[Image.Image], sampling: Sampling
) -> Generator[AnswerChunk, None, None]:
    """The answer to one prompt, as for `generate`, in pieces; joined, they are `Generated.text`.

    The tokens are written in a thread, which ends when the iterator is closed. Temperature 0 or
    None is greedy; equal seeds give equal answers on the same device.

    Raises:
        DataError: as for `generate`.
    """
    streamer, closed = _TokenQueue(), threading.Event()

    def write() -> None:
        try:
            _new_tokens(bundle, [prompt], [images], sampling, streamer, closed)
        except BaseException as error:  # raised again by whoever reads the tokens
            streamer.items.put(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield from _chunks(bundle, streamer, sampling.max_tokens)
    finally:
        closed.set()
        thread.join()


class _TokenQueue(BaseStreamer):
    """Hands the tokens over to another thread, one by one."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
        self._begun = False

    def put(self, value: Tensor) -> None:
        # The first value is the prompt's ids.
        begun, self._begun = self._begun, True
        if not begun:
            return
        for token in value.flatten().tolist():
            self.items.put(token)

    def end(self) -> None:
        """The last token is known by its finish reason."""


def _chunks(bundle: Bundle, streamer: _TokenQueue, max_new_tokens: int) -> Iterator[AnswerChunk]:
    ids: list[int] = []
    shown = ""
    reason = None
    while reason is None:
        item = streamer.items.get()
        if isinstance(item, BaseException):
            raise item
        ids.append(item)
        reason = finish_reason(bundle, ids, max_new_tokens)
        safe = bundle.answer_text(ids) if reason else bundle.safe_text(ids)
        if safe is None:
            continue
        if len(safe) > len(shown) or reason:
            yield AnswerChunk(safe[len(shown) :], len(ids), reason)
            shown = safe


@torch.inference_mode()
def _new_tokens(
    bundle: Bundle,
    prompts: Sequence[Any],
    images: Sequence[Sequence[Image.Image]],
    sampling: Sampling,
    streamer: BaseStreamer | None = None,
    closed: threading.Event | None = None,
) -> list[list[int]]:
    """Token ids of the answers; rows that ended earlier than others are padded."""
    model, device, pad = bundle.model, bundle.model.device, bundle.pad_token_id
    inputs, prompt_length = bundle.generation_inputs(prompts, images)
    draw = [Draw(sampling, device)] if sampling.temperature else []
    try:
        output: Tensor = model.generate(  # type: ignore
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=sampling.max_tokens,
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=bundle.stop_ids,
            ),
            logits_processor=LogitsProcessorList(draw),
            stopping_criteria=StoppingCriteriaList([EndMarker(bundle, prompt_length, closed)]),
            streamer=streamer,
        )
    except ValueError as error:
        # A processor may write more image tokens than its model makes of an image of some size.
        raise not_taken(bundle.processor, [i.size for own in images for i in own], error) from error
    return output[:, prompt_length:].tolist()


class EndMarker(StoppingCriteria):
    """Ends a row where the model has ended its answer, behind a prompt of some tokens.

    Once `closed` is set, every row ends.
    """

    def __init__(
        self, bundle: Bundle, prompt_length: int = 0, closed: threading.Event | None = None
    ) -> None:
        self.bundle, self.prompt_length, self.closed = bundle, prompt_length, closed

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:  # type: ignore
        """Whether each row [B, T] has ended, [B]."""
        closed = self.closed is not None and self.closed.is_set()
        new = input_ids[:, self.prompt_length :].tolist()
        ended = [closed or self.bundle.has_ended(row) for row in new]
        return torch.tensor(ended, device=input_ids.device)


class Draw(LogitsProcessor):
    """Draws the next token of each row and leaves it alone possible.

    The temperature is above 0; `top_p` keeps the likeliest tokens with at least that probability
    together (nucleus sampling, Holtzman et al. 2020).
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.warpers = LogitsProcessorList([TemperatureLogitsWarper(float(sampling.temperature))])  # type: ignore
        if sampling.top_p is not None and sampling.top_p < 1:
            self.warpers.append(TopPLogitsWarper(sampling.top_p))
        self.generator = torch.Generator(device).manual_seed(sampling.seed or 0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore
        """Logits [B, V] -> 0 for the drawn token, minus infinity for all others."""
        probabilities = self.warpers(input_ids, scores).softmax(-1)  # type: ignore
        drawn = torch.multinomial(probabilities, 1, generator=self.generator)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


def _answer(bundle: Bundle, row: list[int], max_new_tokens: int) -> Generated:
    """The answer in a row of new tokens, without the padding behind its end."""
    for length in range(1, len(row) + 1):
        ids = row[:length]
        reason = finish_reason(bundle, ids, max_new_tokens)
        if reason:
            return Generated(bundle.answer_text(ids), length, reason, ids)
    raise AssertionError("a row ended without a reason")


def finish_reason(bundle: Bundle, ids: list[int], max_new_tokens: int) -> FinishReason | None:
    """Why an answer ends with its newest token, if it does."""
    if bundle.has_ended(ids):
        return "stop"
    return "length" if len(ids) == max_new_tokens else None
