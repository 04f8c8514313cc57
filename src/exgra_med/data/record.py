"""The one record of the project: image(s) or none, turns of a conversation, extended answers.

Every dataset and every stage reads and writes this. On disk a record is one JSON object a line:

    {"id": "vqa-rad/test/31", "image": "synpic54610.jpg",
     "turns": [{"role": "user", "text": "..."}, {"role": "assistant", "text": "..."}],
     "extended": ["..."], "answer_type": "CLOSED", "meta": {"organ": "HEAD", "split": "test"}}
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exgra_med.errors import DataError

IMAGE_PLACEHOLDER = "<image>"

AnswerType = Literal["OPEN", "CLOSED"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Turn(_Frozen):
    """One message. `text` never holds the image placeholder of the original's files."""

    role: Literal["user", "assistant"]
    text: str = Field(min_length=1)


class Record(_Frozen):
    """One training or test item.

    Turns alternate and begin with the user; the last one is the assistant's answer. `extended`,
    where present, has one longer answer for each assistant turn.
    """

    id: str = Field(min_length=1)
    image: str | list[str] | None = None
    turns: list[Turn] = Field(min_length=2)
    extended: list[str] | None = None
    answer_type: AnswerType | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _turns_alternate(self) -> "Record":
        for position, turn in enumerate(self.turns):
            expected = ("user", "assistant")[position % 2]
            if turn.role != expected:
                raise ValueError(f"turn {position} must be by the {expected}, not the {turn.role}")
        if len(self.turns) % 2:
            raise ValueError("the last turn must be by the assistant")
        if self.extended is not None and len(self.extended) != len(self.answers):
            raise ValueError(
                f"{len(self.extended)} extended answers for {len(self.answers)} assistant turns"
            )
        return self

    @property
    def images(self) -> list[str]:
        """The image paths, relative to the image folder: none, one or several."""
        if self.image is None:
            return []
        return [self.image] if isinstance(self.image, str) else list(self.image)

    @property
    def question(self) -> str:
        """The text of the first user turn."""
        return self.turns[0].text

    @property
    def answers(self) -> list[str]:
        """The text of every assistant turn, in order."""
        return [turn.text for turn in self.turns if turn.role == "assistant"]

    @property
    def answer(self) -> str:
        """The text of the first assistant turn: the reference answer of a VQA record."""
        return self.turns[1].text

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this record; absent fields are left out."""
        return self.model_dump(exclude_none=True)


def parse_record(value: Any, where: str) -> Record:
    """Check one JSON value and return it as a record.

    Args:
        value: the decoded JSON value.
        where: file and line, for the error message.

    Raises:
        DataError: a field is missing, unknown or of the wrong type.
    """
    try:
        return Record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"]) or "record"
        name = value.get("id") if isinstance(value, dict) else None
        raise DataError(
            f"{where}: record {name!r}: {path}: {first['msg']}.",
            "See docs/reference/record-format.md for the fields of a record.",
        ) from error
