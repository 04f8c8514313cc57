"""Published rows -> VQA records: fields read strictly, the published text kept where changed."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, parse_record
from exgra_med.data.sources.source import Dropped, PrepareOptions
from exgra_med.errors import DataError

YES_NO = ["Yes", "No"]

_CHINESE = [["是", "不是"], ["是的", "不是"], ["有", "没有"], ["存在", "不存在"]]
_CHINESE += [["包含", "不包含"], ["会", "不会"], ["正常", "不正常"], ["是", "否"]]

_ARTICLES = {"a", "an", "the"}
_STOPS = {"is", "are", "was", "were", "be", "seen", "in", "on", "of", "located", "appear", "taken"}
_STOPS |= {"does", "do", "has", "have", "with", "or", "to", "at", "this", "image", "use"}
_STOPS |= {"not", "no", "non"}
_ADJECTIVES = {"left", "right", "gray", "grey", "white", "more", "less", "upper", "lower"}
_LONGEST = 3


def closed_options(question: str, answer: str) -> list[str] | None:
    """The answers a closed question lets choose from, in the question's order; never a guess.

    They are yes and no, or words of the question itself. The words around "or" are only taken
    where the answer is one of the two, word for word.

    Args:
        question: the question, without any prompt suffix.
        answer: the reference answer; decides where an option in the question begins and ends.

    Returns:
        Two or more options, one of which is the answer but for case; None where the question does
        not say them.
    """
    if _plain(answer) in ("yes", "no"):
        return list(YES_NO)
    for pair in _CHINESE:
        if answer in pair:
            return list(pair)
    text = re.sub(r"[?.\"]", " ", question).strip()
    # `..., A, B, or C ...` with one or two words each; the first may carry words before it.
    listed = re.search(r"([\w-]+(?: weighted)?), ([\w-]+(?: weighted)?), or ([\w-]+)", text)
    if listed and _plain(answer) in map(_plain, listed.groups()):
        return list(listed.groups())
    parts = re.split(r"\s(?:or|vs)\s", text, flags=re.IGNORECASE)
    if len(parts) != 2:
        return None
    for pair in _pairs(parts[0].split(), parts[1].split()):
        matches = [_plain(option) == _plain(answer) for option in pair]
        if matches.count(True) == 1:
            return list(pair)
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().replace(",", " ").split())


def _pairs(left: list[str], right: list[str]) -> list[tuple[str, str]]:
    """Candidate options, the most plainly parallel readings first."""
    if not left or not right:
        return []
    if right[0].lower() in _ARTICLES:
        # "a physical injury or a medical process": two whole noun phrases.
        right = right[1:]
        starts = [i for i, word in enumerate(left) if word.lower() in _ARTICLES]
        phrase = left[starts[-1] + 1 :] if starts else []
        lengths = range(len(phrase), 0, -1)
        return _clean([(" ".join(phrase), " ".join(right[:length])) for length in lengths])
    pairs = [(left[-1], right[0])]
    for length in range(2, min(_LONGEST, len(right)) + 1):
        if left[-1].lower() in _ADJECTIVES:
            # "left or right kidney": the noun belongs to both.
            tail = " ".join(right[1:length])
            pairs.append((f"{left[-1]} {tail}", " ".join(right[:length])))
        elif len(left) > 1 and left[-2].lower() in _ARTICLES:
            pairs.append((left[-1], " ".join(right[:length])))
    for length in range(2, min(_LONGEST, len(left)) + 1):
        pairs.append((" ".join(left[-length:]), " ".join(right[:length])))
    return _clean(pairs)


def _clean(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Readings whose options are whole phrases: no verb, preposition or possessive at an edge."""
    return [
        pair
        for pair in pairs
        if all(
            words and words[0] not in _STOPS | _ARTICLES and words[-1] not in _STOPS
            for words in (option.lower().split() for option in pair)
        )
        and not any("'s" in option for option in pair)
    ]


def check_mapping(mapping: Mapping[str, str], fields: Sequence[str]) -> None:
    """Refuse a `--map` of a field that a data set does not have.

    Raises:
        DataError: an unknown field; names it and the known ones.
    """
    for name in mapping:
        if name not in fields:
            raise DataError(
                f"--map names the unknown field {name!r}.", f"Known: {', '.join(fields)}."
            )


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


def text_fields(row: Mapping[str, Any], where: str, **keys: str) -> dict[str, Any]:
    """Our name -> `text_field` of the published name."""
    return {name: text_field(row, key, where) for name, key in keys.items()}


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
        meta: fields of the source; `options` and raw texts are added here.
        options: known options of a closed question; by rule where absent.
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

    Returns:
        "complete", or how many rows of how many a part has.

    Raises:
        DataError: as many rows as published, but of other kinds; names expected and found.
    """
    rows = sum(expected.values())
    for key, count in expected.items():
        if found.total() == rows and found[key] != count:
            kind = " ".join(key) if isinstance(key, tuple) else str(key)
            raise DataError(
                f"{name}: {kind}: expected {count} rows, found {found[key]}.",
                "This is not the published file; random re-splits go by the same name.",
            )
    return completeness(found.total(), rows)


def completeness(found: int, expected: int) -> str:
    """What the manifest says of so many rows of a release that has `expected`."""
    return "complete" if found == expected else f"partial: {found} of {expected} rows"


def find_path(source: Path, names: Sequence[str], hint: str = "", is_folder: bool = False) -> Path:
    """The first of some files, or folders, of a folder that is there.

    Raises:
        DataError: none is; names the first.
    """
    for path in (source / name for name in names):
        if path.is_dir() if is_folder else path.is_file():
            return path
    what = "the folder " if is_folder else ""
    raise DataError(f"{source}: {what}{names[0]!r} is missing.", hint)


def image_folder(source: Path, options: PrepareOptions) -> ImageFolder:
    """The images of a folder: in its `images/` where there is one, else in itself."""
    inside = source / "images"
    return ImageFolder(inside if inside.is_dir() else source, options.max_pixels)


def has_empty_message(messages: Iterable[Any]) -> bool:
    """Whether a message of a published conversation is blank."""
    values = [message.get("value") for message in messages if isinstance(message, dict)]
    return any(isinstance(value, str) and not value.strip() for value in values)


def without_images(
    records: Iterable[Record], taken: set[str], reason: str, dropped: list[Dropped]
) -> list[Record]:
    """The records that show none of the taken images; the others are listed as dropped."""
    kept = []
    for record in records:
        if taken.isdisjoint(record.images):
            kept.append(record)
        else:
            dropped.append(Dropped(record.id, reason))
    return kept


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
