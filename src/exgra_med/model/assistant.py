"""A loaded model that answers questions, with or without an image, over several turns.

from exgra_med import load
assistant = load("runs/demo/checkpoints/vqa/final")
print(assistant.ask("Is there a fracture?", "image.png"))
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from exgra_med.data.chat_template import answer_of, has_thoughts
from exgra_med.data.images import ImageFolder, to_rgb
from exgra_med.data.records import Turn
from exgra_med.files import expand_home
from exgra_med.llm.request import Sampling
from exgra_med.model.bundle import Bundle, load_bundle
from exgra_med.model.generate import Generated, generate, stream
from exgra_med.recipe.schema import DataSettings

MAX_NEW_TOKENS = 256
"""Longest answer of a conversation, in tokens."""
ImageLike = Image.Image | str | Path


@dataclass(frozen=True)
class Assistant:
    """A model with its processor that answers questions in one call."""

    bundle: Bundle

    def ask(
        self,
        question: str,
        image: ImageLike | Sequence[ImageLike] | None = None,
        options: Sequence[str] | None = None,
        template: str = "exgra",
    ) -> str:
        """Answer one question.

        Args:
            question: in plain words.
            image: a picture or its path, several, or none.
            options: the answers a closed question allows.
            template: name of the chat template; `original-simple` is the one of the published
                checkpoints.
        """
        said = Conversation(self.bundle, open_images(image), template).ask(question, options).text
        return spoken(said)


@dataclass
class Conversation:
    """Questions and answers about the images of the first question."""

    bundle: Bundle
    images: list[Image.Image] = field(default_factory=list)
    template: str = "exgra"
    turns: list[Turn] = field(default_factory=list)

    def ask(self, question: str, options: Sequence[str] | None = None) -> Generated:
        """Answer a question; question and answer are kept for the next one.

        The text is what the model wrote; `spoken` is what of it is an answer.
        """
        prompt = self._prompt(question, options)
        answer = generate(self.bundle, [prompt], [self.images], MAX_NEW_TOKENS)[0]
        self._remember(spoken(answer.text))
        return answer

    def stream(self, question: str) -> Iterator[str]:
        """The answer in pieces as they are written, without thoughts; a complete one is kept."""
        written = said = ""
        prompt = self._prompt(question, None)
        sampling = Sampling(max_tokens=MAX_NEW_TOKENS)
        for chunk in stream(self.bundle, prompt, self.images, sampling):
            written += chunk.text
            before, said = said, spoken(written)
            # What was shown turns out to be a thought where one is closed that was never opened.
            piece = said[len(before) :] if said.startswith(before) else f"\n{said}"
            if piece:
                yield piece
        self._remember(said)

    def _prompt(self, question: str, options: Sequence[str] | None) -> Any:
        if self.turns and self.turns[-1].role == "user":
            self.turns.pop()  # an interrupted question has no answer
        self.turns.append(Turn(role="user", text=question))
        return self.bundle.prompt(self.turns, len(self.images), options, self.template)

    def _remember(self, answer: str) -> None:
        # A turn cannot be empty; an empty answer must not end the conversation.
        self.turns.append(Turn(role="assistant", text=answer or "-"))


def spoken(text: str) -> str:
    """The answer in what a model wrote: without thoughts, where it had some."""
    return answer_of(text) if has_thoughts(text) else text


def load(
    folder_or_name: str | Path,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    device: str = "cpu",
) -> Assistant:
    """Load a model by folder or hub name; see `load_bundle`."""
    return Assistant(load_bundle(folder_or_name, dtype, device))


def open_images(image: ImageLike | Sequence[ImageLike] | None) -> list[Image.Image]:
    """Pictures as RGB; paths are opened with the checks of `data/images.py`.

    Raises:
        DataError: a file is missing, broken or too large.
    """
    if isinstance(image, Image.Image):
        return [to_rgb(image)]
    if isinstance(image, str | Path):
        path = expand_home(image)
        max_pixels = DataSettings.model_fields["max_pixels"].default
        return [ImageFolder(path.parent, max_pixels).open(path.name)]
    return [opened for each in image or () for opened in open_images(each)]
