"""Published rows -> VQA records: fields read strictly, the published text kept where changed."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from exgra_med.data.options import closed_options
from exgra_med.data.record import Record, parse_record
from exgra_med.data.source import Dropped
from exgra_med.errors import DataError


def text_field(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text of a field without outer blanks; whole numbers become text.

    Raises:
        DataError: the field is missing or holds something else.
    """
    if key not in row:
        raise DataError(f"{where}: the field {key!r} is missing.")
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"{where}: {key!r} is neither text nor a whole number.")
    return str(value).strip()


def answer_type_field(row: Mapping[str, Any], where: str) -> str:
    """OPEN or CLOSED; the published files hold `"CLOSED "` too.

    Raises:
        DataError: another value.
    """
    value = text_field(row, "answer_type", where)
    if value not in ("OPEN", "CLOSED"):
        raise DataError(
            f"{where}: unknown answer_type {row['answer_type']!r}.", "Known are OPEN and CLOSED."
        )
    return value


def vqa_record(
    name: str,
    row: Mapping[str, Any],
    where: str,
    *,
    image: str,
    answer_type: str | None,
    meta: dict[str, Any],
    options: list[str] | None = None,
    question_key: str = "question",
    answer_key: str = "answer",
    dropped: list[Dropped],
) -> Record | None:
    """A record of one question and one answer; None, and a listed drop, where one is empty.

    Args:
        name: id of the record.
        row: published row with the question and the answer.
        where: file and row, for error messages.
        image: name of the image in the folder.
        answer_type: OPEN, CLOSED or None.
        meta: fields of the source; `options` and raw texts are added here.
        options: known options of a closed question; by rule where absent.
        question_key: name of the question's field.
        answer_key: name of the answer's field.
        dropped: receives the row if it has no question or no answer.

    Raises:
        DataError: a field is missing or of the wrong type.
    """
    question = text_field(row, question_key, where)
    answer = text_field(row, answer_key, where)
    if not question or not answer:
        dropped.append(Dropped(name, "empty answer" if question else "empty question"))
        return None
    if row[question_key] != question:
        meta["raw_question"] = row[question_key]
    if row[answer_key] != answer:
        meta["raw_answer"] = row[answer_key]
    if answer_type == "CLOSED":
        options = options or closed_options(question, answer)
        if options:
            meta["options"] = options
    turns = [{"role": "user", "text": question}, {"role": "assistant", "text": answer}]
    value = {"id": name, "image": image, "turns": turns, "answer_type": answer_type, "meta": meta}
    return parse_record(value, where)


def check_counts(name: str, found: Counter[Any], expected: Mapping[Any, int]) -> str:
    """Hold a release that is as long as the published one against its published counts.

    Args:
        name: of the dataset, for the error message.
        found: rows by kind.
        expected: the same of the published release.

    Returns:
        "complete", or how many rows of how many a part has.

    Raises:
        DataError: as many rows as published, but of other kinds; names expected and found.
    """
    rows = sum(expected.values())
    if sum(found.values()) != rows:
        return f"partial: {sum(found.values())} of {rows} rows"
    for key, count in expected.items():
        if found[key] != count:
            kind = " ".join(key) if isinstance(key, tuple) else str(key)
            raise DataError(
                f"{name}: {kind}: expected {count} rows, found {found[key]}.",
                "This is not the published file; random re-splits go by the same name.",
            )
    return "complete"


def facts(splits: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """What the manifest says of VQA records: closed questions without options, repeated rows."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    without = []
    for records in splits.values():
        for record in records:
            groups[(*record.images, record.question, record.answer)].append(record.id)
            if record.answer_type == "CLOSED" and "options" not in record.meta:
                without.append(record.id)
    return {
        "closed_without_options": without,
        "duplicate_triples": [ids for ids in groups.values() if len(ids) > 1],
    }


def image_splits(splits: Mapping[str, Sequence[Record]]) -> dict[str, set[str]]:
    """Image -> names of the splits that show it."""
    found: dict[str, set[str]] = defaultdict(set)
    for split, records in splits.items():
        for record in records:
            for image in record.images:
                found[image].add(split)
    return dict(found)
