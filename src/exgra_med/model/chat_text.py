"""The text of a conversation as a model's own chat template writes it.

What is learnt of a conversation is, for every answer, the prompt that asks for it, then lead,
answer and end. Lead and end are read off the template once, with an answer that stands for all.
"""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any

from PIL import Image

from exgra_med.data.chat_template import images_by_turn, options_suffix
from exgra_med.data.records import IMAGE_PLACEHOLDER, Turn
from exgra_med.errors import CheckpointError, DataError

_ANSWER = "the-answer"
PROCESSOR_ERRORS = (ValueError, IndexError, TypeError, KeyError, RuntimeError)
"""What processors raise at images that they do not take."""
MOST_SECONDS = 10.0
"""Of writing one conversation; templates take some milliseconds."""
MOST_CHARACTERS = 10_000_000
"""Of one written conversation: more than any model reads."""


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Stop a chat template that goes on for longer. It can loop without a word, and a thread cannot
    be ended, so each line of the template looks at the clock.

    Raises:
        TimeoutError: in the block.
    """
    end = time.monotonic() + seconds

    def watch(frame: FrameType, _: str, __: Any) -> Any:
        if time.monotonic() > end:
            raise TimeoutError(f"it takes longer than {seconds:g} s")
        return watch if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


@dataclass(frozen=True)
class Told:
    """A text with its images; `spans` are the characters that are learnt."""

    text: str
    spans: list[tuple[int, int]]
    images: list[Image.Image]
    name: str = ""
    max_length: int = 2**31
    shows: tuple[str, ...] = ()
    """Names of the images; equal ones are the same images. None where that is not known."""


class ChatText:
    """A processor's chat template, ready to ask and to be learnt.

    Args:
        processor: of any family.
        stop_ids: the tokens that end an answer by the model's generation config.

    Raises:
        CheckpointError: there is no chat template.
    """

    def __init__(self, processor: Any, stop_ids: Sequence[int] = ()) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        if not getattr(processor, "chat_template", None):
            raise CheckpointError(
                f"The {type(processor).__name__} has no chat template, so nothing says how the "
                "model is asked.",
                "Give the folder of an instruction-tuned model, or add a chat_template.jinja.",
            )
        question = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}
        asked, whole = self._write(question, True), self._write([*question, answer], False)
        before, found, behind = whole.partition(_ANSWER)
        if not found:
            raise CheckpointError(
                "The chat template does not write answers, so nothing can be learnt from them.",
                "Mend the chat_template.jinja of the model's folder.",
            )
        self.lead = before.removeprefix(asked) if before.startswith(asked) else ""
        """What stands between prompt and answer: a blank, or an empty thought."""
        self.end = self._end(behind)
        """What ends an answer, up to the first added token of the tokenizer."""
        ends = self.tokenizer(self.end, add_special_tokens=False).input_ids[-1:]
        self.stop_ids = sorted({*stop_ids, *ends, self.tokenizer.eos_token_id} - {None})

    def _end(self, behind: str) -> str:
        added = [each.content for each in self.tokenizer.added_tokens_decoder.values()]
        marks = [each for each in added if not each.isspace()]
        found = [(place, each) for each in marks if (place := behind.find(each)) >= 0]
        if found:
            place, mark = min(found, key=lambda each: (each[0], -len(each[1])))
            return behind[:place] + mark
        return str(self.tokenizer.eos_token)

    def _write(self, messages: list[Any], ask: bool) -> str:
        # A template is a program of whoever made the folder. It runs in a sandbox, which keeps it
        # from the system, and from no error, endless loop or flood of text.
        try:
            with _in_time(MOST_SECONDS):
                text = self.processor.apply_chat_template(
                    messages, add_generation_prompt=ask, tokenize=False
                )
            if len(text) > MOST_CHARACTERS:
                raise ValueError(f"it writes {len(text)} characters")
        except Exception as error:
            said = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise CheckpointError(
                f"The chat template of the model cannot be used: {said[:200].rstrip('.')}.",
                "Mend the chat_template.jinja of the model's folder.",
            ) from error
        return text

    def prompt(
        self, turns: Sequence[Turn], num_images: int = 0, options: Sequence[str] | None = None
    ) -> str:
        """The text after which the model answers the last turn; see `Bundle.prompt`.

        Images stand where the questions place them, or else before the first question.
        """
        if not turns or turns[-1].role != "user":
            raise DataError(
                "A prompt must end with a turn by the user.", "Leave out the last answer."
            )
        messages = []
        for number, (turn, count) in enumerate(
            zip(turns, images_by_turn(turns, num_images), strict=True)
        ):
            suffix = options_suffix(options) if options and number == 0 else ""
            messages.append({"role": turn.role, "content": self._content(turn, count, suffix)})
        return self._write(messages, True)

    def _content(self, turn: Turn, num_images: int, suffix: str) -> list[dict[str, str]]:
        image = {"type": "image"}
        if turn.role == "assistant":
            return [{"type": "text", "text": self.neutral(turn.text).strip()}]
        pieces = turn.text.strip().split(IMAGE_PLACEHOLDER)
        content: list[dict[str, str]] = [image] * (num_images - (len(pieces) - 1))
        for number, piece in enumerate(pieces):
            content += [image] * (number > 0)
            text = self.neutral(piece) + suffix * (number == len(pieces) - 1)
            text = text.strip() if len(pieces) == 1 else text
            content += [{"type": "text", "text": text}] * bool(text)
        return content

    def tell(
        self,
        turns: Sequence[Turn],
        images: Sequence[Image.Image],
        options: Sequence[str] | None = None,
        train_on_prompts: bool = False,
    ) -> list[Told]:
        """What is learnt of a conversation.

        A template may write earlier answers in another way than it asks for them (without their
        thoughts); each answer is then learnt in a sequence of its own.
        """
        told: list[Told] = []
        text, spans = "", []
        counts = images_by_turn(turns, len(images))
        for place, turn in enumerate(turns):
            if turn.role == "user":
                continue
            shown = sum(counts[:place])
            prompt = self.prompt(turns[:place], shown, options)
            if not prompt.startswith(text):
                spans = []
            elif told:
                told.pop()
            answer = self.lead + self.neutral(turn.text).strip() + self.end
            text = prompt + answer
            spans = [*spans, (len(prompt), len(text))]
            told.append(Told(text, spans, list(images[:shown])))
        if train_on_prompts:
            return [Told(each.text, [(0, len(each.text))], each.images) for each in told]
        return told

    def neutral(self, text: str) -> str:
        """A text in which nothing passes for a control token: each is cut by a blank.

        Control tokens are the special ones, and other added tokens that the template writes.
        (`sanitize_control_tokens` of transformers 5.23 does the same, without offsets.)

        Raises:
            DataError: the text holds a control token that cannot be cut.
        """
        if self._control is None:
            return text
        for _ in range(3):
            cut = self._control.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)
            if cut == text:
                return text
            text = cut
        raise DataError(
            "A text holds control tokens of the model that cannot be cut.", "Leave them out."
        )

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        template = str(self.processor.chat_template)
        tokens = [
            token.content
            for token in self.tokenizer.added_tokens_decoder.values()
            if len(token.content) > 1
            and not token.content.isspace()
            and (token.special or token.content in template)
        ]
        image = getattr(self.processor, "image_token", None)
        tokens += [image] if image else []
        longest_first = sorted(set(map(str, tokens)), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def not_taken(processor: Any, sizes: Sequence[tuple[int, int]], error: Exception) -> DataError:
    """The sentence for what a processor raised at texts with images of these widths and heights."""
    shown = ", ".join(dict.fromkeys(f"{width} x {height}" for width, height in sizes))
    said = (str(error).splitlines() or [type(error).__name__])[0]
    what = f"images of {shown}" if shown else "texts alone"
    return DataError(
        f"The {type(processor).__name__} does not take {what}: {said}",
        "Leave such images out, or cut them to another shape.",
    )
