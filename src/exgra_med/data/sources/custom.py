"""Your own data: `train`, `validation`, `test` as a table, JSON, JSON Lines or parquet.

A row is a question with its answer, a conversation in any shape of `data/talks.py`, or a record of
this project. One way leads from each of them to a record.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exgra_med.data.records import SPLITS, Record, parse_record
from exgra_med.data.sources.options import (
    Options,
    answers_among,
    decoded_list,
    option_columns,
    options_of_columns,
    plain_option,
    read_options,
)
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import check_mapping, facts, image_folder, vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.sources.tables import ENDINGS, field_columns, folded, read_rows
from exgra_med.data.sources.values import is_null, json_value, plain_text
from exgra_med.data.talks import (
    LONG_KEYS,
    TALK_KEYS,
    Message,
    Talk,
    place_images,
    read_talk,
)
from exgra_med.errors import DataError

NAME = "custom"
NOT_READ = (".xlsx", ".xls", ".ods", ".arrow", ".feather")
"""Endings of tables that a person has to save in another format first."""
OTHER_NAMES = ("train", "val", "dev", "test")
SPLIT_WORDS = {"val": "validation", "valid": "validation", "validate": "validation"}
SPLIT_WORDS |= {"dev": "validation", "training": "train", "testing": "test"}
ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("question_id", "qid"),
    "image": (
        "images", "image_path", "image_paths", "image_name", "image_names", "image_file",
        "img", "imgs", "img_path", "img_name", "file_name", "figure_path",
    ),
    "question": (),
    "answer": (),
    "answer_type": (),
    "extended": (),
    "options": ("choices", "candidates"),
}  # fmt: skip
"""Fields that a column can be mapped to, and the columns that are taken for them without a `--map`;
other columns go to `meta`."""
_NUMBERED = re.compile(r"(?:image|img)(?:path|name)?\d+")
_WHAT = {"user": "question", "assistant": "answer"}


_FILE_NAME = re.compile(r"\S+\.(?:jpe?g|png|bmp|tiff?|webp|dcm|nii|nii\.gz)", re.IGNORECASE)


@dataclass(frozen=True)
class _Columns:
    """What the columns of a row are for."""

    fields: dict[str, str]
    """Field of `ALIASES` -> column."""
    images: list[str]
    """The column of the images, or the columns `image_1`, `image_2`, ... of one each."""
    options: list[str]
    """Columns of one option each."""
    split: str
    """The column that says which split a row is of; empty where there is none."""


@dataclass
class _Row:
    """A row as it was read, before it is known how the data set writes its answers."""

    id: str
    where: str
    messages: list[Message]
    images: list[str]
    meta: dict[str, Any]
    answer_type: str | None
    extended: list[str] | None
    options: Options | None


@dataclass
class _Reader:
    """What the rows of one data set have in common."""

    mapping: Mapping[str, str]
    images: RowImages
    dropped: list[Dropped] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    """Columns of bytes that are no image; a record cannot hold them."""
    num_system_prompts: int = 0
    ids: set[str] = field(default_factory=set)
    known: dict[tuple[str, ...], _Columns] = field(default_factory=dict)
    """By the names of a row's columns, which are the same in nearly all rows."""

    def read(
        self, row: dict[str, Any], where: str, split: str, number: int, is_table: bool
    ) -> _Row | Record | None:
        """Read a row; a record of this project is one already, a row with an empty message none."""
        if "turns" in row:
            return self.images.found(parse_record(row, where), where)
        columns = self.columns(row, where)
        self._check_split(row.get(columns.split), where, split)
        talk = self._talk(row, where)
        used = {*columns.fields.values(), *columns.options, *columns.images, columns.split}
        if talk:
            used = {*used, *TALK_KEYS} - {columns.fields.get(name) for name in _WHAT.values()}
        # A line of JSON may be a text without an image; a table says so by an empty cell.
        needed = [] if talk else ["question", "answer", *(["image"] if is_table else [])]
        for name in needed:
            if name not in columns.fields and not (name == "image" and columns.images):
                raise DataError(
                    f"{where}: there is no column {self.mapping.get(name, name)!r}.",
                    f"It has {', '.join(row)}; give --map {name}=COLUMN.",
                )
        values = {name: row[column] for name, column in columns.fields.items()}
        published = plain_text(values.get("id"), f"{where}: the id") or str(number)
        name = f"{NAME}/{split}/{published}"
        if name in self.ids:
            # Public sets name questions by their image; what is published stays in `meta`.
            name += f"#{number}"
        self.ids.add(name)
        if talk is None:
            said = (("user", values["question"]), ("assistant", values["answer"]))
            talk = Talk([Message(role, text) for role, text in said], "")
        images = self.images.names(image_values(row, columns.images, talk, where), where)
        if not images and not columns.images:
            self._refuse_unread_image(row, where)
        options = self._options(row, columns, where)
        if options and len(talk.messages) != 2:
            raise DataError(f"{where}: options, and more than one question.", "Split the row.")
        meta = self._meta({key: item for key, item in row.items() if key not in used}, where)
        if talk.system:
            meta["system"] = talk.system
            self.num_system_prompts += 1
        meta |= {"published_id": published, "split": split}
        kind = plain_text(values.get("answer_type"), f"{where}: the answer_type").upper() or None
        if kind not in ("OPEN", "CLOSED", None):
            raise DataError(f"{where}: unknown answer_type {kind!r}.", "Known are OPEN and CLOSED.")
        if options and kind == "OPEN":
            raise DataError(
                f"{where}: options, and the answer_type is OPEN.",
                "A question with options is CLOSED; leave one of the two empty.",
            )
        messages = [_as_text(each, options, where) for each in talk.messages]
        if len(messages) != 2 and not all(each.text for each in messages):
            self.dropped.append(Dropped(name, "an empty message"))
            return None
        extended = extended_answers(row, values.get("extended"), where)
        kind = "CLOSED" if options else kind
        return _Row(name, where, messages, images, meta, kind, extended, options)

    def _check_split(self, value: Any, where: str, split: str) -> None:
        said = plain_text(value, f"{where}: the split").lower()
        if said and SPLIT_WORDS.get(said, said) != split:
            raise DataError(
                f"{where}: its column 'split' says {value!r}, the file's name {split!r}.",
                "Put each split into a file of its own, or rename the column.",
            )

    def _talk(self, row: Mapping[str, Any], where: str) -> Talk | None:
        """The conversation of a row, unless --map says where question and answer are."""
        return None if {"question", "answer"} & self.mapping.keys() else read_talk(row, where)

    def columns(self, row: Mapping[str, Any], where: str) -> _Columns:
        """What the columns of a row are for.

        Raises:
            DataError: two of them could be the same field.
        """
        names = tuple(row)
        if names not in self.known:
            fields = field_columns(names, self.mapping, ALIASES, where)
            if "image" not in self.mapping and {"image", "images"} <= set(map(folded, names)):
                raise DataError(
                    f"{where}: both 'image' and 'images' are there.",
                    "Remove one of them, or say which: --map image=COLUMN.",
                )
            numbered = [name for name in names if _NUMBERED.fullmatch(folded(name))]
            numbered.sort(key=lambda name: (len(folded(name)), folded(name)))
            images = [fields["image"]] if "image" in fields else numbered
            free = [name for name in names if name not in fields.values()]
            split = next((name for name in free if folded(name) == "split"), "")
            self.known[names] = _Columns(fields, images, option_columns(free), split)
        return self.known[names]

    def _options(self, row: Mapping[str, Any], columns: _Columns, where: str) -> Options | None:
        named = columns.fields.get("options", "")
        given = read_options(row.get(named), f"{where}: {named!r}")
        apart = options_of_columns(row, columns.options, where)
        if given and apart:
            raise DataError(
                f"{where}: both {named!r} and {columns.options[0]!r} hold options.",
                "Remove one of them.",
            )
        return given or apart

    def _refuse_unread_image(self, row: Mapping[str, Any], where: str) -> None:
        for column, value in row.items():
            if isinstance(value, str) and _FILE_NAME.fullmatch(value.strip()):
                raise DataError(
                    f"{where}: no column names an image, and {column!r} holds {value!r}.",
                    f"Give --map image={column}.",
                )

    def _meta(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        meta = {}
        for key, value in row.items():
            try:
                meta[key] = json_value(value)
            except TypeError:
                self.left_out.add(key)
            except RecursionError as error:
                raise DataError(f"{where}: {key!r} is nested too deeply.") from error
        return meta

    def record(self, row: _Row) -> Record | None:
        """The record of a row; None, and a listed drop, where question or answer is empty."""
        if len(row.messages) == 2 and row.messages[0].role == "user":
            question, answer = (each.text for each in row.messages)
            record = vqa_record(
                row.id,
                {"question": question, "answer": answer},
                row.where,
                image=row.images,
                answer_type=row.answer_type,
                meta=row.meta,
                options=row.options.texts if row.options else None,
                dropped=self.dropped,
            )
            if record is None or row.extended is None:
                return record
            return parse_record(record.to_json() | {"extended": row.extended}, row.where)
        turns = [{"role": each.role, "text": each.text} for each in row.messages]
        value = {
            "id": row.id,
            "image": row.images[0] if len(row.images) == 1 else row.images or None,
            "turns": place_images(turns, len(row.images), row.where),
            "extended": row.extended,
            "answer_type": row.answer_type,
            "meta": row.meta,
        }
        return parse_record(value, row.where)

    def with_bytes(self, paths: list[Path], records: list[Record | None]) -> Iterator[Record]:
        """The records again, each when the bytes of its images have been read for writing."""
        rows = (row for path in paths for row in read_rows(path, self.known_columns))
        self.images.keep_bytes = True
        for record, (where, row) in zip(records, rows, strict=True):
            if record is None:
                continue
            if "turns" not in row:
                talk = self._talk(row, where)
                values = image_values(row, self.columns(row, where).images, talk, where)
                self.images.names(values, where)
            yield record

    @property
    def known_columns(self) -> list[str]:
        """Names that decide between two separators of a table."""
        return [*ALIASES, *self.mapping.values()]


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read the splits that are there; `--map question=Frage` names a column.

    Rows that have `turns` are taken as records of this project.

    Raises:
        DataError: no split, an unknown mapping, or a row that cannot be understood.
        MissingExtraError: a parquet file, and pyarrow is not installed.
    """
    check_mapping(options.mapping, tuple(ALIASES))
    files = _split_files(source)
    reader = _Reader(options.mapping, RowImages.of(image_folder(source, options)))
    reader.images.keep_bytes = False
    found: dict[str, list[_Row | Record | None]] = {split: [] for split in SPLITS}
    for split, paths in files.items():
        for path in paths:
            is_table = path.suffix.lower() in (".csv", ".tsv", ".parquet")
            for where, row in read_rows(path, reader.known_columns):
                number = len(found[split])
                found[split].append(reader.read(row, where, split, number, is_table))
    for name, column in options.mapping.items():
        if reader.ids and not any(name in each.fields for each in reader.known.values()):
            raise DataError(f"{source}: no row has the column {column!r} of --map {name}={column}.")
    _choose([row for rows in found.values() for row in rows if isinstance(row, _Row)])
    made = {
        split: [reader.record(row) if isinstance(row, _Row) else row for row in rows]
        for split, rows in found.items()
    }
    records = {split: [each for each in rows if each] for split, rows in made.items()}
    every_record = [record for each in records.values() for record in each]
    if every_record and not any(record.images for record in every_record):
        raise DataError(
            f"{source}: no row names an image.",
            f"The column {options.mapping.get('image', 'image')!r} has their names; another: "
            "--map image=COLUMN.",
        )
    notes = facts(records)
    if reader.num_system_prompts:
        notes["system_prompts_in_meta"] = reader.num_system_prompts
    if reader.left_out:
        notes["columns_left_out"] = sorted(reader.left_out)
    every = [path for paths in files.values() for path in paths]
    splits: Mapping[str, Iterable[Record]] = records
    if reader.images.in_rows:
        splits = {split: reader.with_bytes(files[split], made[split]) for split in SPLITS}
    return Collected(splits, reader.images, every, reader.dropped, notes)


def image_values(
    row: Mapping[str, Any], columns: list[str], talk: Talk | None, where: str
) -> list[Any]:
    """What a row says of its images: in its columns, or in the parts of its messages.

    Raises:
        DataError: both name images, and they are not the same.
    """
    given = [row[name] for name in columns]
    given = [value for value in given if not is_null(value) and value != ""]
    if len(given) == 1 and isinstance(given[0], list):
        given = given[0]
    parts = [image for message in talk.messages for image in message.images] if talk else []
    named = [part for part in parts if part is not None]
    if not named:
        return given
    if len(named) != len(parts) or (given and given != named):
        raise DataError(
            f"{where}: some images are named in the messages and some beside them.",
            "Name each image once: in the messages, or in 'images'.",
        )
    return named


def extended_answers(row: Mapping[str, Any], value: Any, where: str) -> list[str] | None:
    """The longer answers of a row, one for each answer; None where it has none."""
    longer = [key for key in LONG_KEYS if row.get(key)]
    if longer:
        talk = read_talk({"conversations": row[longer[0]]}, f"{where}: {longer[0]!r}")
        value = [m.text for m in talk.messages if m.role == "assistant"] if talk else None
    if is_null(value) or value == "":
        return None
    values = value if isinstance(value, list) else [value]
    texts = [plain_text(each, f"{where}: the extended answer") for each in values]
    if any(texts) and not all(texts):
        raise DataError(f"{where}: some of the extended answers are empty.")
    return texts if any(texts) else None


def _as_text(message: Message, options: Options | None, where: str) -> Message:
    text = message.text
    if isinstance(text, bool) and options and "true" in map(plain_option, options.texts):
        text = str(text)
    if isinstance(text, str) and text.lstrip().startswith("["):
        # A list in a cell of a table; numbers may be the corners of a box, which are an answer.
        items = decoded_list(text.strip())
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            text = items
    return replace(message, text=plain_text(text, f"{where}: the {_WHAT[message.role]}"))


def _choose(rows: list[_Row]) -> None:
    """Put the text of the option where an answer is its letter or number."""
    asked = [row for row in rows if row.options and row.messages[1].text]
    places = answers_among(
        [(row.where, row.messages[1].text, row.options) for row in asked if row.options]
    )
    for row, place in zip(asked, places, strict=True):
        if row.options is None:
            continue
        text, written = row.options.texts[place], row.messages[1].text
        row.meta["answer_index"] = place
        if text != written:
            row.meta["raw_answer"] = written
            row.messages[1] = replace(row.messages[1], text=text)


def _split_files(source: Path) -> dict[str, list[Path]]:
    """Split -> its file, or its parquet shards.

    Raises:
        DataError: no split, two files of one, or a table that nobody would read.
    """
    inside = [path for path in (source, source / "data") if path.is_dir()]
    tables = sorted(
        path
        for folder in inside
        for path in folder.iterdir()
        if path.is_file() and path.suffix.lower() in (*ENDINGS, *NOT_READ)
    )
    files: dict[str, list[Path]] = {}
    for split in SPLITS:
        shard = re.compile(rf"{split}(-\d+(-of-\d+(-[0-9a-f]+)?)?)?\.parquet", re.IGNORECASE)
        names = [f"{split}{ending}" for ending in ENDINGS]
        files[split] = [
            path for path in tables if path.name.lower() in names or shard.fullmatch(path.name)
        ]
        kinds = {path.name if not shard.fullmatch(path.name) else "" for path in files[split]}
        if len(kinds) > 1:
            first, second = files[split][:2]
            raise DataError(f"{source}: both {first.name} and {second.name} are there.")
    read = [path for paths in files.values() for path in paths]
    unread = [path.name for path in tables if path not in read and path.parent == source]
    others = [name for name in unread if name.lower().startswith(OTHER_NAMES)]
    if others or not read:
        listed = ", ".join(others or unread)
        raise DataError(
            f"{source}: {listed} would not be read."
            if listed
            else f"{source}: none of train, validation or test is there.",
            "Splits are train, validation and test, each as .csv, .tsv, .json, .jsonl or .parquet; "
            "save a spreadsheet as CSV (UTF-8).",
        )
    return files


SOURCE = Source(
    name=NAME,
    title="your own train, validation, test as a table, JSON, JSON Lines or parquet, with --map",
    licence="yours",
    variants={"given": "the files' own split"},
    collect=collect,
)
