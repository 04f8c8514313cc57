"""The engine `parrot`: answers every question with its own last word."""

from collections.abc import Sequence
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.evaluation.engines import Answer, EngineOptions


class Parrot:
    """Looks at no image; a real engine opens `record.images` with `images.open(name)`.

    Args:
        options: who answers and how; `options.model` is what the user named.
    """

    batch_size = 8

    def __init__(self, options: EngineOptions) -> None:
        self.options = options

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the answers; kept beside them."""
        return {"name": "parrot", "model": self.options.model}

    def begin(self, records: Sequence[Record]) -> None:
        """Called once with all that will be asked; may refuse it."""

    def answer(self, records: Sequence[Record], images: ImageFolder) -> list[Answer]:
        """One answer a record."""
        return [Answer(record.question.rstrip(" ?.").split()[-1]) for record in records]

    def end(self) -> str:
        """Called once at the end; says what is wrong, or nothing."""
        return ""
