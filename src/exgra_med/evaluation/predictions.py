"""Predictions on disk: one JSON object a line, appended as answers arrive.

    {"id": "vqa-rad/test/31", "text": "yes", "finish_reason": "stop", "prompt": "..."}

The original's answer files (`question_id`, `text`) are read too. A process killed while it writes
leaves at most one torn last line, which the reader reports and the writer drops.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from exgra_med.errors import DataError
from exgra_med.files import disk_errors


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer of a model."""

    id: str
    """The id of the record it answers."""
    text: str
    finish_reason: str | None = None
    """`stop` where the model ended the answer, `length` where the token limit did."""
    prompt: str | None = None
    """The question as the model saw it, without the image tokens."""
    num_tokens: int | None = None
    option_scores: dict[str, list[float]] | None = None
    """Mean log-likelihood a token of each option, by what the model was given."""


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """What a file of predictions holds, and what was out of order in it."""

    predictions: list[Prediction]
    num_not_text: int = 0
    """Texts that were numbers and became strings."""
    torn_last_line: bool = False
    """Whether a last line without an end was dropped."""


def read_predictions(path: Path) -> PredictionFile:
    """Read predictions of this project or of the original, in the order of the file.

    Raises:
        DataError: the file is absent, or a line (other than a torn last one) is no prediction.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    lines = raw.split(b"\n")
    predictions: list[Prediction] = []
    num_not_text = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return PredictionFile(predictions, num_not_text, torn_last_line=True)
            raise DataError(f"{path}:{number}: not JSON.", "Each line is one answer.") from error
        prediction, is_text = _parse(value, f"{path}:{number}")
        num_not_text += not is_text
        predictions.append(prediction)
    return PredictionFile(predictions, num_not_text)


def _parse(value: Any, where: str) -> tuple[Prediction, bool]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object.")
    name = value.get("id", value.get("question_id"))
    text = value.get("text")
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise DataError(f"{where}: neither `id` nor `question_id` is there.")
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise DataError(f"{where}: `text` of {name!r} is no text.", 'An empty answer is "".')
    return (
        Prediction(
            id=str(name),
            text=str(text),
            finish_reason=value.get("finish_reason"),
            prompt=value.get("prompt"),
            num_tokens=value.get("num_tokens"),
            option_scores=value.get("option_scores"),
        ),
        isinstance(text, str),
    )


@dataclass
class PredictionWriter:
    """Appends answers to a file; every answer is on disk before the next one is asked for.

    Opening a file that exists keeps its whole lines, drops a torn last one, and tells in `done`
    which ids need no second answer.
    """

    path: Path
    done: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._drop_torn_line()
            self.done = {each.id for each in read_predictions(self.path).predictions}
        self._stream = self.path.open("ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

    def append(self, predictions: list[Prediction]) -> None:
        """Write a batch of answers, one line each, and hand it to the disk.

        Raises:
            WriteError: the disk is full or the file cannot be written; whole answers are kept.
        """
        lines = "".join(
            json.dumps(
                {key: value for key, value in asdict(each).items() if value is not None},
                ensure_ascii=False,
            )
            + "\n"
            for each in predictions
        )
        with disk_errors(self.path):
            self._stream.write(lines.encode("utf-8", "surrogatepass"))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self.done.update(each.id for each in predictions)

    def _drop_torn_line(self) -> None:
        raw = self.path.read_bytes()
        whole = raw.rfind(b"\n") + 1
        if whole < len(raw):
            try:
                json.loads(raw[whole:])
            except ValueError:
                os.truncate(self.path, whole)
            else:
                with self.path.open("ab") as stream:
                    stream.write(b"\n")
