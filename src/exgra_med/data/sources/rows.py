"""Published rows -> VQA records: fields read strictly, the published text kept where changed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from exgra_med.data.images import PLAIN_ENDINGS, ImageFolder
from exgra_med.data.records import Met, Record, parse_record
from exgra_med.data.sources.options import closed_options, plain_option, read_options
from exgra_med.data.sources.source import Dropped, PrepareOptions
from exgra_med.data.sources.values import is_null, json_value, plain_text
from exgra_med.data.talks import place_images
from exgra_med.errors import DataError


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
    """The text of a field without outer blanks; numbers become text, 3.0 is "3".

    Raises:
        DataError: the field is missing or null, or holds something else.
    """
    if key not in row:
        raise DataError(f"{where}: the field {key!r} is missing.")
    value = row[key]
    if is_null(value) or isinstance(value, (bool, list, tuple, dict)):
        raise DataError(f"{where}: {key!r} is neither text nor a number.")
    return plain_text(value, f"{where}: {key!r}")


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
    image: str | list[str] | None,
    answer_type: str | None,
    meta: dict[str, Any],
    options: list[str] | None = None,
    question_key: str = "question",
    answer_key: str = "answer",
    dropped: list[Dropped],
) -> Record | None:
    """A record of one question and one answer; None, and a listed drop, where one is empty.

    Values are read by the rule of `data/sources/values.py`: null is empty, 3.0 is "3".

    Args:
        image: one name, several, or none.
        meta: fields of the source; `options` and raw texts are added here.
        options: known options of a closed question; by rule where absent.
        dropped: receives the row if it has no question or no answer.

    Raises:
        DataError: a field is missing or of the wrong type, or image placeholders in the question
            do not match the images.
    """
    texts = {}
    for what, key in (("question", question_key), ("answer", answer_key)):
        if key not in row:
            raise DataError(f"{where}: the field {key!r} is missing.")
        texts[what] = plain_text(row[key], f"{where}: {key!r}")
        if not texts[what]:
            dropped.append(Dropped(name, f"empty {what}"))
            return None
    names = [image] if isinstance(image, str) else image or []
    turns = [
        {"role": "user", "text": texts["question"]},
        {"role": "assistant", "text": texts["answer"]},
    ]
    turns = place_images(turns, len(names), where)
    question, answer = turns[0]["text"], turns[1]["text"]
    if row[question_key] != question:
        meta["raw_question"] = _raw(row[question_key])
    if row[answer_key] != answer:
        meta["raw_answer"] = _raw(row[answer_key])
    if answer_type == "CLOSED":
        options = options or closed_options(question, answer)
        if options:
            meta["options"] = options
    shown = names[0] if len(names) == 1 else names or None
    value = {"id": name, "image": shown, "turns": turns, "answer_type": answer_type, "meta": meta}
    return parse_record(value, where)


def choice_record(
    name: str,
    row: Mapping[str, Any],
    where: str,
    *,
    options: Any,
    right: Any,
    image: str | list[str],
    meta: dict[str, Any],
    question_key: str = "question",
    dropped: list[Dropped],
) -> Record | None:
    """A record of one question with options; None, and a listed drop, where they cannot be used.

    Args:
        options: in a shape that `options.read_options` knows.
        right: letter of the right option, else its text.

    Raises:
        DataError: the question is missing or of the wrong type.
    """
    try:
        found = read_options(options, where)
    except DataError:
        found = None
    if found is None:
        dropped.append(Dropped(name, "fewer than two options, or none that can be read"))
        return None
    said = plain_text(right, f"{where}: the right option")
    texts = [plain_option(text) for text in found.texts]
    for known, wanted in ((found.marks, said.upper()), (texts, plain_option(said))):
        if wanted in known:
            place = known.index(wanted)
            break
    else:
        dropped.append(Dropped(name, "the answer is none of the options"))
        return None
    return vqa_record(
        name,
        {"question": row.get(question_key), "answer": found.texts[place]},
        where,
        image=image,
        answer_type="CLOSED",
        meta=meta | {"answer_index": place},
        options=found.texts,
        dropped=dropped,
    )


def report_exchange(sections: Mapping[str, str], num_images: int) -> tuple[str, str]:
    """What is asked for a report, and the report: `report`, or else `findings` and `impression`.

    A section that is empty is not asked for; the report is empty where all are.

    >>> report_exchange({"findings": "No effusion.", "impression": ""}, 1)
    ('Write the findings of this image.', 'No effusion.')
    """
    shown = "this image" if num_images == 1 else "these images"
    if report := sections.get("report"):
        return f"Write the report of {shown}.", report
    parts = {name: text for name in ("findings", "impression") if (text := sections.get(name))}
    if len(parts) == 2:
        text = "\n".join(f"{name.capitalize()}: {text}" for name, text in parts.items())
        return f"Write the findings and the impression of {shown}.", text
    name, text = next(iter(parts.items()), ("report", ""))
    return f"Write the {name} of {shown}.", text


def _raw(value: Any) -> Any:
    try:
        return json_value(value)
    except TypeError:
        return str(value)


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
    """The images of a folder: in its `images/` where there is one, in any case, else in itself.

    An `images/` with nothing in it does not hide the pictures that lie beside it.
    """
    if options.own.images is not None:
        if not options.own.images.is_dir():
            raise DataError(f"{options.own.images}: not a folder.", "It is what --images names.")
        return ImageFolder(options.own.images, options.max_pixels)
    inside = sorted(
        path
        for path in source.glob("[Ii][Mm][Aa][Gg][Ee][Ss]")
        if path.is_dir() and (any(path.iterdir()) or not _holds_pictures(source))
    )
    # "images" stands behind "IMAGES" and "Images".
    return ImageFolder(inside[-1] if inside else source, options.max_pixels, within=source)


def _holds_pictures(folder: Path) -> bool:
    endings = (*PLAIN_ENDINGS, ".tif", ".tiff", ".dcm", ".nii", ".gz")
    return any(path.suffix.lower() in endings for path in folder.rglob("*"))


def has_empty_message(messages: Iterable[Any]) -> bool:
    """Whether a message of a published conversation is blank."""
    values = [
        message.get("value", message.get("content", ""))
        for message in messages
        if isinstance(message, dict)
    ]
    return any(is_null(value) or value == "" or str(value).isspace() for value in values)


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
    """What the manifest says of records: closed questions without options, repeated rows, groups.

    A group is what `meta.group` says, such as the patient of a picture.
    """
    met, again = Met(), Met()
    without = []
    of_split: dict[str, set[Any]] = {split: set() for split in splits}
    for split, records in splits.items():
        for record in records:
            triple = (*record.images, record.question, record.answer)
            if not met.add(triple):
                again.add(triple)
            if record.answer_type == "CLOSED" and "options" not in record.meta:
                without.append(record.id)
            if "group" in record.meta:
                of_split[split].add(record.meta["group"])
    # Names are kept of those alone that come again.
    groups: dict[tuple[str, ...], list[str]] = {}
    for record in chain.from_iterable(splits.values()) if again else ():
        triple = (*record.images, record.question, record.answer)
        if triple in again:
            groups.setdefault(triple, []).append(record.id)
    found: dict[str, Any] = {
        "closed_without_options": without,
        "duplicate_triples": [ids for ids in groups.values() if len(ids) > 1],
    }
    if any(of_split.values()):
        counted = Counter(chain.from_iterable(of_split.values()))
        found["groups"] = {split: len(names) for split, names in of_split.items()}
        found["groups_in_two_splits"] = sum(number > 1 for number in counted.values())
    return found
