"""Predictions on disk: one JSON object a line, appended as answers arrive.

    {"id": "vqa-rad/test/31", "text": "yes", "finish_reason": "stop", "sha256": "0c4f..."}

The original's answer files (`question_id`, `text`) are read too. A process killed while it writes
leaves at most one torn last line, which the reader reports and the writer drops. `sha256` is over
everything before it in the file, so whatever else is not as it was written is an error.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.chat_template import has_thoughts
from exgra_med.data.llava_format import CONVERSATION_KEYS
from exgra_med.data.on_demand import OnDemand, SetAside
from exgra_med.data.records import (
    AnswerType,
    Met,
    Record,
    iterate_lines,
    parse_record,
    read_json_list,
    type_by_answer,
)
from exgra_med.data.talks import strip_placeholder
from exgra_med.digests import iterate_checked, with_digests
from exgra_med.errors import AnswerError, DataError, ScoreError
from exgra_med.evaluation.reading import answer_text
from exgra_med.files import append, disk_errors
from exgra_med.reading import decode_json, read_json, read_text

# The reference side of a score: questions with their answers, and what was odd about the file.
#
# Scoring is more lenient than training: an empty or numeric reference, or a type such as "CLOSED ",
# is counted and reported here instead of refused, because a published file cannot be mended by the
# person who scores it.

# The three types of PathVQA beside the two of VQA-RAD and SLAKE.
_TYPES: dict[str, AnswerType] = {
    "OPEN": "OPEN",
    "CLOSED": "CLOSED",
    "YES/NO": "CLOSED",
    "OTHER": "OPEN",
    "NUMBER": "OPEN",
}
_META = ("modality", "image_organ", "question_type")


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its reference answer, free of everything a model needs."""

    id: str
    text: str
    answer: str
    answer_type: AnswerType
    images: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    type_had_blanks: bool = False
    """Whether the file said "CLOSED " for CLOSED; the published scripts skip such a question."""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """What resampling draws: the images; a question without an image stands alone."""
        return "\n".join(self.images) or f"question {self.id}"


class QuestionsAside(SetAside[Question]):
    """Questions of which a few bytes each stay in memory."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """The first question of each record."""
        return cls(map(question_of, records))

    @staticmethod
    def _value(item: Question) -> Any:
        return [getattr(item, name) for name in Question.__slots__]

    @staticmethod
    def _item(value: Any) -> Question:
        name, text, answer, answer_type, images, options, had_blanks, meta = value
        pictures, given = tuple(images), tuple(options)
        return Question(name, text, answer, answer_type, pictures, given, had_blanks, meta)


@dataclass(frozen=True, slots=True)
class Reference:
    """The questions of a file and how often something in it was out of order."""

    questions: Sequence[Question]
    oddities: Counter[str]


def read_reference(path: Path) -> Reference:
    """Read records of this project (JSON Lines) or a JSON file of the original.

    Raises:
        DataError: the file is neither, or an item has no question and answer; names the item.
    """
    oddities: Counter[str] = Counter()
    if _begins_a_list(path):
        questions = (
            _original_question(item, f"{path}: item {number}", oddities)
            for number, item in enumerate(read_json_list(path))
        )
    else:
        questions = (
            question_of(parse_record(decode_json(text, where), where), oddities)
            for where, text in iterate_lines(path)
        )
    return Reference(QuestionsAside(questions), oddities)


def _begins_a_list(path: Path) -> bool:
    """Whether the first character of a file, blanks aside, opens a JSON list."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(2**16)
    except (OSError, ValueError):
        raw = b""
    if not raw or raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        read_text(path)  # says what is wrong with it
    return raw.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def question_of(record: Record, oddities: Counter[str] | None = None) -> Question:
    """The first question of a record; a record without a type gets one by its answer.

    What was out of order is added to `oddities`.
    """
    oddities = Counter() if oddities is None else oddities
    if len(record.answers) > 1:
        oddities["only_first_turn_scored"] += 1
    oddities["answer_type_guessed"] += record.answer_type is None
    return Question(
        id=record.id,
        text=record.question,
        answer=record.answer,
        answer_type=record.known_type,
        images=tuple(record.question_images),
        options=tuple(str(option) for option in record.meta.get("options") or ()),
        meta=record.meta,
    )


def read_candidates(path: Path) -> list[str | int]:
    """Known open answers: the original's `{"0": [...]}`, a JSON list, or records to train on.

    Raises:
        DataError: the file is none of these.
    """
    try:
        value = read_json(path)
    except DataError:
        value = None
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return value
    questions = read_reference(path).questions
    return sorted({each.answer for each in questions if each.answer_type == "OPEN"})


def _original_question(item: Any, where: str, oddities: Counter[str]) -> Question:
    if not isinstance(item, dict) or "id" not in item:
        raise DataError(
            f"{where}: not an object with an id.", "Give records or the original's JSON."
        )
    talk = next((item[key] for key in CONVERSATION_KEYS if key in item), None)
    if not isinstance(talk, list) or len(talk) < 2:
        raise DataError(f"{where} (id {item['id']!r}): no question with an answer.")
    if len(talk) > 2:
        oddities["only_first_turn_scored"] += 1
    question, answer = (_text(turn, where, oddities) for turn in talk[:2])
    if not answer.strip():
        oddities["empty_reference"] += 1
    image = item.get("image")
    raw_type = item.get("answer_type")
    type_had_blanks = raw_type is not None and str(raw_type) != str(raw_type).strip()
    oddities["answer_type_with_blanks"] += type_had_blanks
    return Question(
        id=str(item["id"]),
        text=strip_placeholder(question),
        answer=answer,
        answer_type=_original_type(raw_type, answer, where, oddities),
        images=tuple(image) if isinstance(image, list) else (image,) if image else (),
        type_had_blanks=type_had_blanks,
        meta={key: item[key] for key in _META if key in item},
    )


def _text(turn: Any, where: str, oddities: Counter[str]) -> str:
    value = turn.get("value") if isinstance(turn, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: a turn has no text.")
    if not isinstance(value, str):
        oddities["reference_not_text"] += 1
    return str(value)


def _original_type(value: Any, answer: str, where: str, oddities: Counter[str]) -> AnswerType:
    if value is None:
        oddities["answer_type_guessed"] += 1
        return type_by_answer(answer)
    cleaned = str(value).strip().upper()
    if cleaned not in _TYPES:
        raise DataError(
            f"{where}: unknown answer_type {value!r}.",
            "Known are OPEN, CLOSED and PathVQA's types.",
        )
    if cleaned not in ("OPEN", "CLOSED"):
        oddities["pathvqa_answer_type"] += 1
    return _TYPES[cleaned]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a file of another tool says of the question that an answer belongs to."""

    question: str | None = None
    """Its text, without what a prompt adds."""
    answer: str | None = None
    """The reference answer that the file holds."""
    images: tuple[str, ...] = ()
    """Names or paths of its pictures."""
    names: tuple[str, ...] = ()
    """Every id and row number that stands in its row."""


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
    asked: Asked | None = None
    """Of a file of another tool alone: by this, and not by `id`, its question is found."""


class PredictionsAside(SetAside[Prediction]):
    """Predictions of no other tool (without `asked`); a few bytes of each stay in memory."""

    @staticmethod
    def _value(item: Prediction) -> Any:
        return [getattr(item, name) for name in Prediction.__slots__]

    @staticmethod
    def _item(value: Any) -> Prediction:
        return Prediction(*value)


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """What a file of predictions holds, and what was out of order in it."""

    predictions: Sequence[Prediction]
    oddities: Counter[str]
    """`prediction_not_text` (numbers became strings), `torn_last_line` (it was dropped), and of
    other tools `tool_got_no_answer`, `answer_is_null`."""
    tool: str = ""
    """The tool that writes such files; nothing where they are ours or the original's."""


ANSWER_AGAIN = (
    "Remove the file and evaluate again; if it was changed on purpose, delete `sha256` from its "
    "lines."
)
_TEXT_KEYS = ("text", "answer", "response", "prediction", "predict", "output", "generated_text")
"""Where other tools put what the model said; a line that has two of them is refused."""


def read_predictions(path: Path) -> PredictionFile:
    """Read predictions of this project, of the original or of another tool, in their order.

    One JSON object a line, or a JSON list of them; the answer files of VLMEvalKit, lmms-eval and
    MedEvalKit as they are (`other_tools.py`), Excel files and other tables among them.

    Raises:
        DataError: the file is absent, or a line (other than a torn last one) is no prediction.
        DamagedFileError: its lines have digests, and one is not what was written.
        MissingExtraError: it is an Excel file, and what reads it is not installed.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(2**16)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: not UTF-8 text but UTF-16.", "Save the file as UTF-8.")
    if raw.startswith(b"\x80"):
        raise DataError(
            f"{path}: a pickle, which can run any program when it is read.",
            "Write it as .tsv, .xlsx or .json; for VLMEvalKit set PRED_FORMAT=tsv.",
        )
    start = raw.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] not in (b"", b"[", b"{"):
        from exgra_med.evaluation.other_tools import is_table, read_other_table

        if is_table(start):
            return read_other_table(path)
    if start.startswith(b"["):
        return _read_list(path)
    torn: Counter[str] = Counter()
    lines = _lines(path, torn)
    try:
        begin = list(islice(lines, 2))
    except _NotALineError as fault:
        return _read_whole(path, fault.where, fault.error)
    if len(begin) == 1 and _is_around(begin[0][1]):
        return _read_whole(path, begin[0][0], None)
    found = _parse_all(begin[0][1] if begin else None, chain(begin, lines))
    found.oddities.update(torn_last_line=torn["torn_last_line"])
    return found


class _NotALineError(Exception):
    """The first line of a file is no JSON by itself."""

    def __init__(self, where: str, error: Exception) -> None:
        self.where, self.error = where, error


def _lines(path: Path, torn: Counter[str]) -> Iterator[tuple[str, Any]]:
    """Where each line stands, and its value, one by one; a torn last line is counted in `torn`."""
    is_first = True
    with path.open("rb") as stream:
        for number, raw in enumerate(iterate_checked(stream, path, ANSWER_AGAIN), start=1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                value = decode_json(line.decode("utf-8"), where, nan_is_null=True)
            except (DataError, UnicodeDecodeError) as error:
                if not line.endswith(b"\n"):
                    torn["torn_last_line"] += 1
                    return
                if is_first:
                    raise _NotALineError(where, error) from error
                raise DataError(f"{where}: not JSON.", "Each line is one answer.") from error
            is_first = False
            yield where, value


def _read_list(path: Path) -> PredictionFile:
    items = decode_json(read_text(path), str(path), nan_is_null=True)
    first = items[0] if items else None
    return _parse_all(first, ((f"{path}: item {n}", value) for n, value in enumerate(items)))


def _read_whole(path: Path, where: str, error: Exception | None) -> PredictionFile:
    """One JSON object over the whole file; else what was wrong with its first line."""
    from exgra_med.evaluation.other_tools import read_other

    try:
        value = decode_json(read_text(path), str(path), nan_is_null=True)
    except DataError:
        raise DataError(f"{where}: not JSON.", "Each line is one answer.") from error
    return read_other(path, value)


def _parse_all(first: Any, values: Iterable[tuple[str, Any]]) -> PredictionFile:
    """Read rows, of which `first` is the value of the first one."""
    oddities: Counter[str] = Counter()
    if _is_of_another_tool(first):
        from exgra_med.evaluation.other_tools import read_other_lines

        return read_other_lines([*values])
    predictions = (_parse(value, where, oddities) for where, value in values)
    return PredictionFile(PredictionsAside(predictions), oddities)


def _is_around(value: Any) -> bool:
    """Whether a JSON object holds a whole file rather than one answer."""
    known = {"id", "question_id", "turns", *CONVERSATION_KEYS}
    if not isinstance(value, dict) or not known.isdisjoint(value):
        return False
    nested = [isinstance(inner, list | dict) for inner in value.values()]
    # A column of a table may be called as a field of a row is.
    return bool(nested) and (all(nested) or (any(nested) and not _is_of_another_tool(value)))


def _is_of_another_tool(value: Any) -> bool:
    """Whether a row tells more than an answer and the id of its question.

    A row with `turns` is a record, and is refused as such.
    """
    if not isinstance(value, dict) or not {"turns", *CONVERSATION_KEYS}.isdisjoint(value):
        return False
    return not {"doc_id", "index", "question"}.isdisjoint(value) or (
        "answer" in value and not {"prediction", "response"}.isdisjoint(value)
    )


def _parse(value: Any, where: str, oddities: Counter[str]) -> Prediction:
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a JSON object.")
    name = value.get("id", value.get("question_id"))
    if not {"turns", *CONVERSATION_KEYS}.isdisjoint(value):
        raise DataError(
            f"{where}: a record, not a prediction.", "Predictions come first, then the reference."
        )
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise DataError(
            f"{where}: neither `id` nor `question_id` is there.",
            "Each prediction names its question by the id of the record.",
        )
    said = [key for key in _TEXT_KEYS if key in value]
    if len(said) > 1:
        raise DataError(
            f"{where}: both `{said[0]}` and `{said[1]}` of {name!r} are there.",
            "Keep the one that the model said, as `text`.",
        )
    key = said[0] if said else "text"
    text = value.get(key)
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise DataError(f"{where}: `{key}` of {name!r} is no text.", 'An empty answer is "".')
    oddities["prediction_not_text"] += not isinstance(text, str)
    optional = {
        field: value.get(field) for field in ("finish_reason", "num_tokens", "option_scores")
    }
    prompt = value.get("prompt") if isinstance(value.get("prompt"), str) else None
    return Prediction(str(name), str(text), prompt=prompt, **optional)


def answered_ids(path: Path) -> Met:
    """The ids that a file of answers has; none where there is no file.

    Raises:
        DataError, DamagedFileError: see `read_predictions`.
    """
    done = Met()
    if os.path.lexists(path):
        for each in read_predictions(path).predictions:
            done.add(each.id)
    return done


@dataclass
class PredictionWriter:
    """Appends answers to a file; every answer is on disk before the next one is asked for.

    Opening a file that exists keeps its whole lines, drops a torn last one, and tells in `done`
    which ids need no second answer.
    """

    path: Path
    done: Met = field(default_factory=Met)

    def __enter__(self) -> Self:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._before = hashlib.sha256()
        if os.path.lexists(self.path):
            self._drop_torn_line()
            self.done = answered_ids(self.path)
            with self.path.open("rb") as stream:
                for part in iter(partial(stream.read, 2**20), b""):
                    self._before.update(part)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is open: every batch is written and closed."""

    def append(self, predictions: list[Prediction]) -> None:
        """Write a batch of answers, one line each, and hand it to the disk.

        Raises:
            WriteError: the disk is full or the file cannot be written; nothing was added.
        """
        rows = [{k: v for k, v in asdict(each).items() if v is not None} for each in predictions]
        append(self.path, with_digests(rows, self._before))
        for each in predictions:
            self.done.add(each.id)

    def _drop_torn_line(self) -> None:
        with disk_errors(self.path):
            whole, last = self._last_line()
            if not last:
                return
            try:
                decode_json(last.decode("utf-8"), str(self.path))
            except (DataError, UnicodeDecodeError):
                os.truncate(self.path, whole)
            else:
                append(self.path, b"\n")

    def _last_line(self) -> tuple[int, bytes]:
        """What stands behind the last line end, and where; nothing in a whole file."""
        last = b""
        with self.path.open("rb") as stream:
            begin = stream.seek(0, os.SEEK_END)
            while begin and b"\n" not in last:
                size = min(begin, 2**16)
                begin = stream.seek(begin - size)
                last = stream.read(size) + last
        before, line_end, behind = last.rpartition(b"\n")
        return begin + len(before) + len(line_end), behind


# A missing answer is wrong and counted apart. An answer given twice with different texts cannot be
# told right from wrong, so it is wrong and counted apart. Extra answers are counted and left out.
# An answer of another tool is joined by what its file says of the question (`question_matching`).


class Joined(OnDemand[Prediction | None]):
    """Each question's prediction, by the row that it has among all of them; -1 is for none."""

    def __init__(self, predictions: Sequence[Prediction], rows: NDArray[np.int64]) -> None:
        self._predictions, self._rows = predictions, rows

    def __len__(self) -> int:
        return len(self._rows)

    def _at(self, row: int) -> Prediction | None:
        place = int(self._rows[row])
        return None if place < 0 else self._predictions[place]

    def __iter__(self) -> Iterator[Prediction | None]:
        # Most files are in the order of the questions, and are read from begin to end.
        read, following = 0, iter(self._predictions)
        for place in map(int, self._rows):
            if place < 0:
                yield None
            elif place < read:
                yield self._predictions[place]
            else:
                yield next(islice(following, place - read, None))
                read = place + 1


class _Texts(OnDemand[str | None]):
    """What each of some predictions says."""

    def __init__(self, predictions: Sequence[Prediction | None]) -> None:
        self._predictions = predictions

    def __len__(self) -> int:
        return len(self._predictions)

    def _at(self, row: int) -> str | None:
        each = self._predictions[row]
        return None if each is None else each.text

    def __iter__(self) -> Iterator[str | None]:
        return (None if each is None else each.text for each in self._predictions)


@dataclass(frozen=True)
class Pairing:
    """Every question with its answer, or with None, and what did not fit."""

    questions: Sequence[Question]
    predictions: Sequence[Prediction | None]
    """Each question's prediction; None where it is missing or contradictory."""
    counts: dict[str, int]
    """`questions, predictions, missing, extra, duplicate, contradictory, empty`."""
    same_order: bool
    """Whether the predictions that belong to a question come in the order of the questions."""
    joined_by: str = "id"
    """How each answer found its question."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Of answers of another tool that found none: why -> the first ones."""

    @property
    def answers(self) -> Sequence[str | None]:
        """Text of each question's prediction, as stored."""
        return _Texts(self.predictions)

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """(questions,) codes of their images, see `cluster_codes`."""
        # Who writes answers does without scipy, which this would load.
        from exgra_med.evaluation.statistics import cluster_codes

        return cluster_codes(question.cluster for question in self.questions)


def pair(predictions: Sequence[Prediction], questions: Sequence[Question]) -> Pairing:
    """Join by id.

    Answers that carry the published id of a record (`meta["published_id"]`) are joined by that.
    Files of the original can repeat an id (PathVQA names a question by its image); then both files
    must have the same ids in the same order, and are joined by position. Answers of other tools,
    and those whose ids fit no question, are joined by `question_matching`.

    Ids and texts are compared by hashes of 64 bits, so that few bytes of each stay in memory.

    Raises:
        ScoreError: no question, no common id, or repeated question ids in another order.
    """
    if not questions:
        raise ScoreError("The reference has no questions.")
    asked = _hashes(each.id for each in questions)
    said = _Said.of(predictions)
    if said.is_of_another_tool or (said.has_prompts and not np.isin(said.ids, asked).any()):
        return _paired_by_what_is_told(predictions, questions, said.blank)
    num_repeated = len(asked) - len(np.unique(asked))
    if num_repeated:
        if not np.array_equal(asked, said.ids):
            raise ScoreError(
                "Ids repeat in the reference, and the predictions do not have the same ids in the "
                "same order, so nothing says which answer belongs to which question.",
                "Prepare the data with unique ids, or answer this reference again.",
            )
        rows = np.arange(len(questions))
        return _paired(questions, predictions, rows, said.blank, 0, 0, num_repeated, 0, True)
    if not np.isin(asked, said.ids).any():
        asked = _published_ids(questions, predictions, said.ids)
    # Of each id the first answer, how many there are, and whether another says something else.
    ids, first, which, times = np.unique(
        said.ids, return_index=True, return_inverse=True, return_counts=True
    )
    contradicts = np.bincount(which, said.texts != said.texts[first][which]) > 0
    place = np.minimum(np.searchsorted(ids, asked), len(ids) - 1)
    is_answered = ids[place] == asked
    is_known = np.isin(ids, asked)
    order = first[place[is_answered]]
    return _paired(
        questions,
        predictions,
        np.where(is_answered & ~contradicts[place], first[place], -1),
        said.blank,
        int((~is_answered).sum()),
        int((~is_known).sum()),
        int((is_known & (times > 1)).sum()),
        int((is_known & contradicts).sum()),
        same_order=bool((order[1:] > order[:-1]).all()),
    )


def _hashes(values: Iterable[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, values), np.int64)


@dataclass(frozen=True, slots=True)
class _Said:
    """What is compared of predictions, one value each."""

    ids: NDArray[np.int64]
    """Hashes."""
    texts: NDArray[np.int64]
    """Hashes."""
    blank: NDArray[np.bool_]
    """Whether nothing is said."""
    has_prompts: bool
    is_of_another_tool: bool

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> "_Said":
        number = len(predictions)
        ids, texts = (np.empty(number, np.int64) for _ in range(2))
        blank = np.empty(number, bool)
        has_prompts = is_of_another_tool = False
        for row, each in enumerate(predictions):
            ids[row], texts[row], blank[row] = hash(each.id), hash(each.text), not each.text.strip()
            has_prompts = has_prompts or bool(each.prompt)
            is_of_another_tool = is_of_another_tool or each.asked is not None
        return cls(ids, texts, blank, has_prompts, is_of_another_tool)


def _paired_by_what_is_told(
    predictions: Sequence[Prediction], questions: Sequence[Question], blank: NDArray[np.bool_]
) -> Pairing:
    """Answers of another tool: joined, then counted as any others."""
    from exgra_med.evaluation.question_matching import examples, match

    found = match(predictions, questions)
    rows: dict[int, dict[str, int]] = {}
    told: Counter[int] = Counter()
    first_seen: dict[int, None] = {}
    for row, (prediction, place) in enumerate(zip(predictions, found.places, strict=True)):
        if place is not None:
            rows.setdefault(place, {}).setdefault(prediction.text, row)
            told[place] += 1
            first_seen.setdefault(place)
    joined = [
        next(iter(rows[place].values())) if len(rows.get(place, ())) == 1 else -1
        for place in range(len(questions))
    ]
    unplaced = {
        "ambiguous": len(found.ambiguous),
        "other_text": len(found.other_text),
        "other_answer": len(found.other_answer),
    }
    pairing = _paired(
        questions,
        predictions,
        np.array(joined),
        blank,
        len(questions) - len(rows),
        found.places.count(None) - sum(unplaced.values()),
        sum(count > 1 for count in told.values()),
        sum(len(each) > 1 for each in rows.values()),
        same_order=[*first_seen] == sorted(first_seen),
    )
    return replace(
        pairing,
        counts=pairing.counts | {name: count for name, count in unplaced.items() if count},
        joined_by=found.joined_by,
        examples=examples(found, predictions),
    )


def _paired(
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    rows: NDArray[np.int64],
    blank: NDArray[np.bool_],
    missing: int,
    extra: int,
    duplicate: int,
    contradictory: int,
    same_order: bool,
) -> Pairing:
    """With the row of each question's prediction, or -1, and which predictions say nothing."""
    counts = {
        "questions": len(questions),
        "predictions": len(predictions),
        "missing": missing,
        "extra": extra,
        "duplicate": duplicate,
        "contradictory": contradictory,
        "empty": int(blank[rows[rows >= 0]].sum()),
    }
    return Pairing(questions, Joined(predictions, rows), counts, same_order)


def _published_ids(
    questions: Sequence[Question], predictions: Sequence[Prediction], said: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Hashes of the ids under which the data set was published, where those fit the answers.

    Raises:
        ScoreError: they do not, or answers are numbered as rows are.
    """
    first = [str(each.meta.get("published_id", "")) for each in questions[:3]]
    published = _hashes(str(each.meta.get("published_id", "")) for each in questions)
    is_unique = len(np.unique(published)) == len(published) and hash("") not in published
    if not is_unique or not np.isin(published, said).any():
        raise ScoreError(
            f"No prediction has the id of a question: {[each.id for each in predictions[:3]]} "
            f"against {[each.id for each in questions[:3]]}.",
            "Score against the reference that was answered.",
        )
    rows = np.unique(_hashes(map(str, range(len(questions)))))
    if np.array_equal(np.unique(said), rows) and not np.array_equal(np.unique(published), rows):
        raise ScoreError(
            "The predictions are numbered from 0 as rows are, and the questions were published "
            f"under other numbers ({first}), so that they would be mixed up.",
            "Give each prediction the id of its record.",
        )
    return published


# How many answers can be used at all. A low score may be a model that knows little, or one whose
# answers were cut in the middle of a thought; only these counts tell them apart.


def answer_counts(
    predictions: Iterable[Prediction | None], were_read: Iterable[bool | None] | None = None
) -> dict[str, int]:
    """Count what became of the answers to so many questions.

    Args:
        predictions: one a question; None where there is none.
        were_read: for each of them whether an option was read in it; None for a free answer,
            which has nothing to be read. All are free answers where it is absent.

    Returns:
        `questions`; `missing`; `empty` (thoughts alone are empty too); `cut` at the token limit;
        `unparsed` (no option, or several); `usable`: not one of these, or cut behind an option that
        could be read; `with_thoughts`.
    """
    counts = dict.fromkeys(
        ("questions", "missing", "empty", "cut", "unparsed", "usable", "with_thoughts"), 0
    )
    free = ((each, None) for each in predictions)
    for prediction, read in free if were_read is None else zip(predictions, were_read, strict=True):
        counts["questions"] += 1
        if prediction is None:
            counts["missing"] += 1
            continue
        is_cut = prediction.finish_reason == "length"
        counts["cut"] += is_cut
        counts["with_thoughts"] += has_thoughts(prediction.text)
        if not answer_text(prediction.text):
            counts["empty"] += 1
            continue
        counts["unparsed"] += read is False
        counts["usable"] += read is True or (read is None and not is_cut)
    return counts


def counts_sentence(counts: Mapping[str, int]) -> str:
    """What a person is told of `answer_counts`, always, so that nothing lies hidden in a score."""
    answered = counts["questions"] - counts["missing"]
    sentence = (
        f"{counts['questions']} questions: {answered} answered, {counts['missing']} missing, "
        f"{counts['empty']} empty, {counts['cut']} cut at the token limit, {counts['unparsed']} "
        "unparsed."
    )
    if counts["with_thoughts"]:
        sentence += f" {counts['with_thoughts']} held thoughts, which are no part of an answer."
    return sentence


_PAIRED = {
    "missing": "Questions without an answer (each scores 0)",
    "contradictory": "Questions with several different answers (each scores 0)",
    "extra": "Answers that belong to no question (left out)",
    "duplicate": "Ids that come more than once",
    "ambiguous": "Answers that may belong to several questions (left out; give the file in the "
    "order of the reference, or with names of pictures)",
    "other_text": "Answers whose id is that of a question with another text (left out)",
    "other_answer": "Answers to a known question, but with a reference answer that it has nowhere "
    "(left out)",
}


def pairing_facts(pairing: Pairing) -> dict[str, Any]:
    """The counts of a pairing, and how answers found their questions; JSON-ready."""
    facts: dict[str, Any] = pairing.counts | {"same_order": pairing.same_order}
    if pairing.joined_by != "id" or pairing.examples:
        facts |= {"joined_by": pairing.joined_by, "examples": pairing.examples}
    return facts


def pairing_sentences(
    facts: Mapping[str, Any], tool: str = "", with_order: bool = True
) -> list[str]:
    """One sentence for everything that did not fit, and for how it was made to fit.

    Args:
        facts: of `pairing_facts`.
        tool: whose file of answers it is.
        with_order: whether it matters that the answers come in another order than the questions.
    """
    found, joined_by = [], facts.get("joined_by", "id")
    if tool or joined_by != "id":
        read = f"Read as a file of {tool}; answers" if tool else "Answers"
        found.append(f"{read} and questions were joined by {joined_by}.")
    for key, text in _PAIRED.items():
        if facts.get(key):
            shown = (facts.get("examples") or {}).get(key)
            found.append(f"{text}: {facts[key]}{', as ' if shown else ''}{'; '.join(shown or ())}.")
    if with_order and not facts.get("same_order", True):
        how = "; joined by id" if joined_by == "id" else ""
        found.append(f"The answers come in another order than the questions{how}.")
    return found


SHORT_DIGEST = 12
"""Characters of a digest that a person is shown."""


def file_sentence(file: str, sha256: str | None) -> str:
    """Which file of answers stands behind a score; its digest is shown short."""
    digest = f"sha256 {sha256[:SHORT_DIGEST]}" if sha256 else "sha256 not kept when it was scored"
    return f"Answers: {file}, {digest}."


def require_usable(counts: Mapping[str, int], about: str = "") -> None:
    """Refuse to call an evaluation done where not one answer can be used.

    `about`: the data set, where there are several.

    Raises:
        AnswerError: there were questions, and every answer is missing, empty, cut or unreadable.
    """
    if not counts["questions"] or counts["usable"]:
        return
    hint = "Look at the stored answers, and whether the model is asked in its own template."
    if counts["cut"]:
        hint = "Let the model write more with --max-new-tokens, or think less."
    which = f"Not one answer{f' to {about}' if about else ''} can be used."
    raise AnswerError(f"{which} {counts_sentence(counts)}", hint)
