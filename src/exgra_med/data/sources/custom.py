"""Your own data: one table of any name, or `train`, `validation`, `test`, of any kind that is read.

A row is a question with its answer, a conversation in any shape of `data/talks.py`, or a record of
this project. One way leads from each of them to a record.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from exgra_med.data.records import (
    NOT_STATED,
    REPORT,
    SPLITS,
    Met,
    Record,
    RecordsAside,
    parse_record,
)
from exgra_med.data.sources.identifiers import by_name, identifying, mentions
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
from exgra_med.data.sources.rows import (
    check_mapping,
    facts,
    image_folder,
    report_exchange,
    vqa_record,
)
from exgra_med.data.sources.source import (
    Collected,
    Column,
    Dropped,
    OwnData,
    PrepareOptions,
    Source,
)
from exgra_med.data.sources.tables import ENDINGS, TABLES, field_columns, folded, read_rows
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
NOT_READ = (".xls", ".xlsb", ".ods", ".numbers", ".arrow", ".feather")
"""Endings of tables that a person has to save in another format first."""
OTHER_NAMES = ("train", "val", "dev", "test")
SPLIT_WORDS = {"val": "validation", "valid": "validation", "validate": "validation"}
SPLIT_WORDS |= {"dev": "validation", "training": "train", "testing": "test"}
ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("question_id", "qid"),
    "image": (
        "images", "image_path", "image_paths", "image_name", "image_names", "image_file",
        "img", "imgs", "img_path", "img_name", "file", "file_name", "file_path", "figure_path",
        "picture", "scan", "bild", "imagen", "imagem", "immagine", "图像", "图片",
    ),
    "question": (
        "question_text", "prompt", "q", "frage", "pregunta", "pergunta", "domanda", "问题", "вопрос"
    ),
    "answer": (
        "answer_text", "reply", "response", "label", "ground_truth", "target", "antwort",
        "respuesta", "réponse", "resposta", "risposta", "答案", "回答", "ответ",
    ),
    "answer_type": (),
    "extended": (),
    "options": ("choices", "candidates"),
    "split": (),
    "report": ("report_text", "full_report", "radiology_report", "reports"),
    "findings": ("findings_text", "findings_section"),
    "impression": ("impressions", "impression_text", "impression_section"),
}  # fmt: skip
"""Fields that a column can be mapped to, and the columns that are taken for them without a `--map`;
other columns go to `meta`."""
OF_REPORTS = ("report", "findings", "impression")
"""Fields that make a row a report, where no column is the question."""
GROUP_NAMES = (
    "group",
    "patient",
    "patient_id",
    "subject",
    "subject_id",
    "pat_id",
    "participant",
)
"""Columns that are taken for the group of a row, the first one that is there."""
FIELDS = (*ALIASES, "group")
SAMPLE_ROWS = 50
"""Rows at the beginning of a file from which a column without a known name is guessed."""
_NUMBERED = re.compile(r"(?:image|img)(?:path|name)?\d+")
_WHAT = {"user": "question", "assistant": "answer"}
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"RIFF")
"""Of pictures that stand in a row as bytes."""
_FILE_NAME = re.compile(r".+\.(?:jpe?g|png|bmp|tiff?|webp|dcm|nii|nii\.gz)(?:#.*)?", re.IGNORECASE)


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
    group: str
    """The column of what must not be divided, such as a patient; empty where there is none."""


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
    group: str
    """What the file says of whose row it is; it goes no further than its number."""


@dataclass
class _Reader:
    """What the rows of one data set have in common."""

    mapping: Mapping[str, str]
    images: RowImages
    own: OwnData
    dropped: list[Dropped] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    """Columns of bytes that are no image; a record cannot hold them."""
    num_system_prompts: int = 0
    ids: Met = field(default_factory=Met)
    known: dict[tuple[str, ...], _Columns] = field(default_factory=dict)
    """By the names of a row's columns, which are the same in nearly all rows."""
    splits_by_row: bool = False
    """Whether the rows of the file that is read may be of several splits."""
    sample: dict[str, list[Any]] = field(default_factory=dict)
    """Column -> values at the beginning of the file that is read."""
    first: dict[str, str] = field(default_factory=dict)
    """Column -> its first value that is not empty, cut short, in the order of the file."""
    columns_dropped: set[str] = field(default_factory=set)
    num_rows: Counter[str] = field(default_factory=Counter)
    """Of each split."""

    def rows(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """The rows of a file without the columns that are not to be read."""
        dropped = {folded(name) for name in self.own.drop}
        for where, row in read_rows(path, self.known_columns, self.own.sheet):
            self.columns_dropped |= {*filter(lambda name: folded(name) in dropped, row)}
            yield where, {key: value for key, value in row.items() if folded(key) not in dropped}

    def file(self, path: Path, split: str) -> Iterator[tuple[str, _Row | Record | None]]:
        """The split and what was read of each row of a file.

        Args:
            split: of all its rows; empty where a column says it, or nothing does.
        """
        rows = self.rows(path)
        begin = list(islice(rows, SAMPLE_ROWS))
        self.sample, self.splits_by_row = {}, not split
        for _, row in begin:
            for key, value in row.items():
                if not is_null(value) and value != "":
                    self.sample.setdefault(key, []).append(value)
        is_table = path.suffix.lower() in TABLES
        for where, row in chain(begin, rows):
            for key, value in row.items():
                if not self.first.get(key):
                    self.first[key] = _shown(value)
            named = self._split_of(row, where, split)
            number = self.num_rows[named]
            self.num_rows[named] += 1
            yield named, self.read(row, where, named, number, is_table)

    def _split_of(self, row: dict[str, Any], where: str, split: str) -> str:
        """The split of a row: of its file, of its column, or `train` where nothing is said."""
        if "turns" in row:
            meta = row.get("meta")
            said = meta.get("split") if isinstance(meta, dict) else None
            return split or (said if said in SPLITS else "train")
        column = self.columns(row, where).split
        said = plain_text(row.get(column), f"{where}: the split").lower()
        named = SPLIT_WORDS.get(said, said)
        if split:
            if said and named != split:
                raise DataError(
                    f"{where}: its column {column!r} says {row.get(column)!r}, the file's name "
                    f"{split!r}.",
                    f"Give the file itself instead of its folder, or --drop-column {column}.",
                )
            return split
        if not column:
            return "train"
        if named not in SPLITS:
            if not said and all(is_null(value) or value == "" for value in row.values()):
                return "train"
            what = f"says {row[column]!r}" if said else "is empty"
            raise DataError(
                f"{where}: its column {column!r}, the split, {what}.",
                "Splits are train, validation and test; --drop-column "
                f"{column} reads the rows without it.",
            )
        return named

    def read(
        self, row: dict[str, Any], where: str, split: str, number: int, is_table: bool
    ) -> _Row | Record | None:
        """Read a row; a record of this project is one already, a row with an empty message none."""
        if "turns" in row:
            return self.images.found(parse_record(row, where), where)
        columns = self.columns(row, where)
        talk = self._talk(row, where)
        sections = {each: columns.fields[each] for each in OF_REPORTS if each in columns.fields}
        used = {*columns.fields.values(), *columns.options, *columns.images, columns.group}
        if talk:
            # A question beside a conversation is a further fact.
            used -= {columns.fields.get(name) for name in _WHAT.values()}
            used |= {*TALK_KEYS}
        # A line of JSON may be a text without an image; a table says so by an empty cell.
        said = [] if sections else ["question", "answer"]
        needed = [] if talk else [*said, *(["image"] if is_table else [])]
        for name in needed:
            if name not in columns.fields and not (name == "image" and columns.images):
                raise DataError(
                    f"{where}: there is no column {self.mapping.get(name, name)!r}.",
                    f"It has {', '.join(row)}; give --map {name}=COLUMN.",
                )
        values = {name: row[column] for name, column in columns.fields.items()}
        published = plain_text(values.get("id"), f"{where}: the id") or str(number)
        name = f"{NAME}/{split}/{published}"
        if not self.ids.add(name):
            # Public sets name questions by their image; what is published stays in `meta`.
            name += f"#{number}"
            self.ids.add(name)
        if talk is None:
            texts = (("user", values.get("question")), ("assistant", values.get("answer")))
            talk = Talk([Message(role, text) for role, text in texts], "")
        images = self.images.names(image_values(row, columns.images, talk, where), where)
        if sections:
            texts = {each: plain_text(values[each], f"{where}: the {each}") for each in sections}
            question, report = report_exchange(texts, len(images))
            question = values.get("question") or question
            talk = Talk([Message("user", question), Message("assistant", report)], "")
        options = self._options(row, columns, where)
        if options and len(talk.messages) != 2:
            raise DataError(f"{where}: options, and more than one question.", "Split the row.")
        meta = self._meta({key: item for key, item in row.items() if key not in used}, where)
        if talk.system:
            meta["system"] = talk.system
            self.num_system_prompts += 1
        meta |= {"published_id": published, "split": split} | ({"task": REPORT} if sections else {})
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
        kind = "CLOSED" if options else "OPEN" if sections else kind
        group = plain_text(row.get(columns.group), f"{where}: the group")
        return _Row(name, where, messages, images, meta, kind, extended, options, group)

    def _talk(self, row: Mapping[str, Any], where: str) -> Talk | None:
        """The conversation of a row, unless --map says where question and answer are."""
        said = {"question", "answer", *OF_REPORTS} & self.mapping.keys()
        return None if said else read_talk(row, where)

    def columns(self, row: Mapping[str, Any], where: str) -> _Columns:
        """What the columns of a row are for.

        Raises:
            DataError: two of them could be the same field.
        """
        names = tuple(row)
        if names not in self.known:
            fields = field_columns(names, self.mapping, ALIASES, where)
            group = fields.pop("group", "")
            self._choose_report(names, fields)
            if "image" not in self.mapping and {"image", "images"} <= set(map(folded, names)):
                raise DataError(
                    f"{where}: both 'image' and 'images' are there.",
                    "Remove one of them, or say which: --map image=COLUMN.",
                )
            numbered = [name for name in names if _NUMBERED.fullmatch(folded(name))]
            numbered.sort(key=lambda name: (len(folded(name)), folded(name)))
            by_fold = {folded(name): name for name in reversed(names)}
            of_group = [by_fold[known] for known in map(folded, GROUP_NAMES) if known in by_fold]
            free = [name for name in names if name not in {*fields.values(), *numbered, group}]
            if "group" not in self.mapping:
                group = next((name for name in of_group if name in free), "")
            free = [name for name in free if name != group]
            self._guess(names, fields, [] if numbered else ["image"], free, where)
            images = [fields["image"]] if "image" in fields else numbered
            free = [name for name in free if name not in fields.values()]
            split = fields.get("split", "")
            self.known[names] = _Columns(fields, images, option_columns(free), split, group)
        return self.known[names]

    def _choose_report(self, names: tuple[str, ...], fields: dict[str, str]) -> None:
        """Leave the fields of a report, or those of a question: a row is one of the two.

        Where a question stands, a report beside it is a further fact, unless --map names it.
        """
        mapped = {*OF_REPORTS} & self.mapping.keys()
        if not mapped and ("question" in fields or {*TALK_KEYS} & {*names}):
            others = OF_REPORTS
        elif "report" in fields:
            others = ("findings", "impression", "answer")
        elif {"findings", "impression"} & fields.keys():
            others = ("answer",)
        else:
            return
        for name in others:
            if name not in self.mapping:
                fields.pop(name, None)

    def _guess(
        self,
        names: tuple[str, ...],
        fields: dict[str, str],
        wanted: list[str],
        free: list[str],
        where: str,
    ) -> None:
        """Add the fields that no name tells, but what is in a column does.

        Raises:
            DataError: two columns look like the same field.
        """
        is_talk = {*TALK_KEYS} & {*names} and not {"question", "answer"} & self.mapping.keys()
        if not is_talk and not {*OF_REPORTS} & fields.keys():
            wanted = [*wanted, "question"]
        for name in (*wanted, "answer_type", *(["split"] if self.splits_by_row else [])):
            if name in fields or name in self.mapping:
                continue
            looks = _LOOKS_LIKE[name]
            found = [
                column
                for column in free
                if column not in fields.values()
                and self.sample.get(column)
                and looks(self.sample[column])
            ]
            if len(found) > 1 and name in ("image", "question"):
                raise DataError(
                    f"{where}: {' and '.join(map(repr, found))} may be the column {name!r}.",
                    f"Say which: --map {name}=COLUMN.",
                )
            if len(found) == 1:
                fields[name] = found[0]

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

    def with_bytes(
        self, files: "Mapping[Path, array[int]]", split: str, records: Iterable[Record]
    ) -> Iterator[Record]:
        """The records of a split again, each when its images' bytes were read for writing.

        `files`: of each row of a file the place of its split in `SPLITS`; -1 of one without record.
        """
        self.images.keep_bytes = True
        wanted, made = SPLITS.index(split), iter(records)
        rows = (
            (place, *row)
            for path, places in files.items()
            if wanted in places
            for place, row in zip(places, self.rows(path), strict=True)
        )
        for place, where, row in rows:
            if place != wanted:
                continue
            if "turns" not in row:
                talk = self._talk(row, where)
                values = image_values(row, self.columns(row, where).images, talk, where)
                self.images.names(values, where)
            yield next(made)

    @property
    def known_columns(self) -> list[str]:
        """Names that decide between two separators of a table."""
        return [*ALIASES, *GROUP_NAMES, *self.mapping.values()]


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read one file, or the splits of a folder; `--map question=Frage` names a column.

    Columns are known by their names, else by what is in them; `own.approve` is told what each was
    taken for. Rows that have `turns` are taken as records of this project.

    Every row is read twice, as what is decided for all of them, such as which columns say who a
    person is, is known behind the last one. Records are set aside on disk, not in memory.

    Raises:
        DataError: no split, an unknown mapping, or a row that cannot be understood.
        MissingExtraError: a parquet or Excel file, and what reads it is not installed.
    """
    check_mapping(options.mapping, FIELDS)
    own = options.own
    folder = source if source.is_dir() else source.parent
    images = RowImages.of(image_folder(folder, options))
    images.keep_bytes = False
    reader, again = (_Reader(options.mapping, images, own) for _ in range(2))
    files = _files(source)
    seen = _Seen.of(reader, files)
    _refuse_unknown_columns(source, reader)
    if not seen.num_rows:
        listed = ", ".join(path.name for path in files)
        raise DataError(f"{listed}: there is no row of a question.", "Is it the right table?")
    columns, people = _columns(reader, seen)
    if own.approve:
        own.approve(columns)
    places = iter(answers_among(seen.asked))
    records = {split: RecordsAside() for split in SPLITS}
    split_of_rows = {path: array("b") for path in files}
    has_images = False
    for path, of_file in files.items():
        for split, row in again.file(path, of_file):
            record = None
            if row is not None:
                people.take_out(row)
            if isinstance(row, _Row):
                _choose(row, places)
                record = reader.record(row)
            elif row is not None:
                record = row
            split_of_rows[path].append(-1 if record is None else SPLITS.index(split))
            if record is not None:
                records[split].add(record)
                has_images = has_images or bool(record.images)
    if any(map(len, records.values())) and not has_images:
        raise DataError(
            f"{source}: no row names an image.",
            f"The column {options.mapping.get('image', 'image')!r} has their names; another: "
            "--map image=COLUMN.",
        )
    notes = facts(records) | people.notes()
    if reader.num_system_prompts:
        notes["system_prompts_in_meta"] = reader.num_system_prompts
    if reader.left_out:
        notes["columns_left_out"] = sorted(reader.left_out)
    splits: Mapping[str, Iterable[Record]] = records
    if images.in_rows:
        splits = {s: reader.with_bytes(split_of_rows, s, records[s]) for s in SPLITS}
    if "" in files.values():
        splits = {split: splits[split] for split in SPLITS if len(records[split])}
    return Collected(splits, images, list(files), reader.dropped, notes)


@dataclass
class _Seen:
    """What is kept of the rows when they are read for the first time."""

    identifying: dict[str, str]
    """Column -> why it may say who a person is."""
    asked: list[tuple[str, str, Options]]
    """Of each row with options: where it stands, its answer, and the options."""
    num_rows: int = 0
    with_group: str = ""
    """The first row that has a further fact called `group`."""

    @classmethod
    def of(cls, reader: _Reader, files: Mapping[Path, str]) -> "_Seen":
        """Read all rows, and hold none."""
        seen = cls({}, [])

        def metas() -> Iterator[dict[str, Any]]:
            for path, split in files.items():
                for _, row in reader.file(path, split):
                    seen.num_rows += 1
                    if row is None:
                        continue
                    if isinstance(row, _Row):
                        if row.options and row.messages[1].text:
                            seen.asked.append((row.where, row.messages[1].text, row.options))
                        if "group" in row.meta:
                            seen.with_group = seen.with_group or row.where
                    yield row.meta

        seen.identifying = identifying(metas())
        return seen


@dataclass
class _People:
    """Takes out of rows what names a person; a group becomes a number. Counts what it did."""

    left_out: dict[str, str]
    """Column -> why it is left out."""
    grouped_by: str
    """The column of groups; empty where there is none."""
    numbers: dict[str, int] = field(default_factory=dict)
    """What the file says of whose row it is -> the group."""
    without_group: int = 0
    in_images: int = 0
    in_texts: int = 0

    def take_out(self, row: _Row | Record) -> None:
        """Change the facts of a row."""
        taken = [row.meta.pop(name) for name in self.left_out if name in row.meta]
        if isinstance(row, _Row):
            texts = [str(message.text) for message in row.messages]
            group = row.group
            if self.grouped_by:
                self.without_group += not group
                name = group or f"\0{row.id}"
                row.meta["group"] = self.numbers.setdefault(name, len(self.numbers) + 1)
        else:
            texts, group = [turn.text for turn in row.turns], ""
        searched = [*taken, *([group] if group else [])]
        self.in_images += mentions(searched, row.images)
        self.in_texts += mentions(searched, texts)

    def notes(self) -> dict[str, Any]:
        """For the manifest."""
        notes: dict[str, Any] = {}
        if self.left_out:
            notes["identifiers_left_out"] = self.left_out
        if self.numbers:
            notes["group_column"] = self.grouped_by
            notes["rows_without_group"] = self.without_group
        if self.in_images:
            notes["rows_with_identifiers_in_image_names"] = self.in_images
        if self.in_texts:
            notes["rows_with_identifiers_in_texts"] = self.in_texts
        return notes


def _refuse_unknown_columns(source: Path, reader: _Reader) -> None:
    """Refuse a name of --map, --keep-column or --drop-column that no row has.

    Raises:
        DataError: there is one.
    """
    for name, column in reader.mapping.items():
        fields = [
            {*each.fields, *(["group"] if each.group else [])} for each in reader.known.values()
        ]
        if reader.ids and not any(name in each for each in fields):
            raise DataError(f"{source}: no row has the column {column!r} of --map {name}={column}.")
    names = [*reader.first, *sorted(reader.columns_dropped)]
    for option in ("keep", "drop"):
        for column in getattr(reader.own, option):
            if names and folded(column) not in map(folded, names):
                raise DataError(
                    f"{source}: no row has the column {column!r} of --{option}-column.",
                    f"It has {', '.join(names)}.",
                )


def _columns(reader: _Reader, seen: _Seen) -> tuple[list[Column], _People]:
    """What each column was taken for, and what takes out of rows what names a person.

    Raises:
        DataError: the ids of records would be what names a person, or two columns the group.
    """
    kept = {folded(name) for name in reader.own.keep}
    left_out = {name: why for name, why in seen.identifying.items() if folded(name) not in kept}
    named = {
        column: field for each in reader.known.values() for field, column in each.fields.items()
    }
    for column, name in named.items():
        if name == "id" and by_name(column) and folded(column) not in kept:
            raise DataError(
                f"The column {column!r} may say who a person is, and would be in the id of every "
                "record.",
                f"Leave out --map id={column}; or give --keep-column {column} besides.",
            )
    grouped_by = next((each.group for each in reader.known.values() if each.group), "")
    if grouped_by and seen.with_group:
        raise DataError(
            f"{seen.with_group}: {grouped_by!r} is the group, and 'group' is there too.",
            "Give --drop-column group, or --map group=group.",
        )
    columns = [_column(reader, name, named, left_out) for name in reader.first]
    return columns, _People(left_out, grouped_by)


def _column(reader: _Reader, name: str, named: dict[str, str], left_out: dict[str, str]) -> Column:
    known = reader.known.values()
    if name in left_out:
        return Column(name, f"left out, may name a person: {left_out[name]}", "")
    if name in (each.group for each in known):
        return Column(name, "group, kept as a number", "")
    if name in named:
        meaning = named[name].replace("_", " ")
    elif any(name in each.images for each in known):
        meaning = "image"
    elif any(name in each.options for each in known):
        meaning = "an option"
    elif name in TALK_KEYS:
        meaning = "conversation"
    elif name in reader.left_out:
        meaning = "left out: bytes"
    else:
        meaning = "meta"
    return Column(name, meaning, reader.first[name])


def _shown(value: Any) -> str:
    """The beginning of a value, for a person."""
    if is_null(value):
        return ""
    text = "bytes" if isinstance(value, bytes) else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def _all(values: Iterable[Any], words: Collection[str]) -> bool:
    return {str(value).strip().lower() for value in values} <= {*words}


def _are_images(values: list[Any]) -> bool:
    return all(
        (isinstance(value, str) and _FILE_NAME.fullmatch(value.strip()))
        or (isinstance(value, bytes) and value.startswith(_BEGINNINGS))
        or (isinstance(value, dict) and "bytes" in value)
        for value in values
    )


def _are_questions(values: list[Any]) -> bool:
    asked = [str(value).rstrip().endswith(("?", "？")) for value in values]
    return 2 * sum(asked) >= len(asked)


def _are_splits(values: list[Any]) -> bool:
    words = {*SPLITS, *SPLIT_WORDS}
    # Without `train`, words such as "valid" may mean anything.
    return _all(values, words) and not _all(values, words - {"train", "training"})


_LOOKS_LIKE: dict[str, Callable[[list[Any]], bool]] = {
    "image": _are_images,
    "question": _are_questions,
    "answer_type": lambda values: _all(values, ("open", "closed")),
    "split": _are_splits,
}
"""Field -> whether the values of a column look like it."""


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


def _choose(row: _Row, places: Iterator[int]) -> None:
    """Put the text of the option where an answer is its letter or number.

    `places`: the option of each answer that is one, see `answers_among`.
    """
    if not row.options or not row.messages[1].text:
        return
    place = next(places)
    text, written = row.options.texts[place], row.messages[1].text
    row.meta["answer_index"] = place
    if text != written:
        row.meta["raw_answer"] = written
        row.messages[1] = replace(row.messages[1], text=text)


def _files(source: Path) -> dict[Path, str]:
    """The files to read, and the split of each; empty where its rows say it.

    Raises:
        DataError: no split, two files of one, or a table that nobody would read.
    """
    if source.is_file():
        stem = source.stem.lower()
        split = SPLIT_WORDS.get(stem, stem)
        return {_readable(source): split if split in SPLITS else ""}
    inside = [path for path in (source, source / "data") if path.is_dir()]
    tables = sorted(
        path
        for folder in inside
        for path in folder.iterdir()
        if path.is_file()
        and path.suffix.lower() in (*ENDINGS, *NOT_READ)
        and not path.name.startswith((".", "~$"))
    )
    files: dict[Path, str] = {}
    for split in SPLITS:
        shard = re.compile(rf"{split}(-\d+(-of-\d+(-[0-9a-f]+)?)?)?\.parquet", re.IGNORECASE)
        names = [f"{split}{ending}" for ending in ENDINGS]
        found = [
            path for path in tables if path.name.lower() in names or shard.fullmatch(path.name)
        ]
        kinds = {path.name if not shard.fullmatch(path.name) else "" for path in found}
        if len(kinds) > 1:
            raise DataError(f"{source}: both {found[0].name} and {found[1].name} are there.")
        files |= dict.fromkeys(found, split)
    unread = [path for path in tables if path not in files and path.parent == source]
    if not files and len(unread) == 1:
        return _files(unread[0])
    others = [path.name for path in unread if path.name.lower().startswith(OTHER_NAMES)]
    if others or not files:
        listed = ", ".join(others or [path.name for path in unread])
        raise DataError(
            f"{source}: {listed} would not be read." if listed else f"{source}: no table is there.",
            f"Splits are train, validation and test, each as {', '.join(ENDINGS)}; one table of "
            "another name is given itself: data prepare custom FILE.",
        )
    return files


def _readable(path: Path) -> Path:
    if path.suffix.lower() in ENDINGS:
        return path
    raise DataError(
        f"{path}: tables that end in {path.suffix or 'nothing'} are not read.",
        f"Save it as one of {', '.join(ENDINGS)}.",
    )


SOURCE = Source(
    name=NAME,
    title="your own table or JSON, of any name: one file, or train, validation and test",
    licence=NOT_STATED,
    variants={"given": "the files' own split"},
    collect=collect,
)
