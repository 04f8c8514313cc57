"""Your own data: `train`, `validation`, `test` as JSON Lines or CSV, with a mapping of columns."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exgra_med.data.records import SPLITS, Record, iterate_objects, parse_record, read_text
from exgra_med.data.sources.rows import check_mapping, facts, image_folder, text_field, vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.errors import DataError

NAME = "custom"
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx")
READ = {f"{split}{ending}" for split in SPLITS for ending in (".csv", ".jsonl")}
ALIASES = ("train", "val", "dev", "test")
FIELDS = ("id", "image", "question", "answer", "answer_type", "extended", "options")
"""Fields that a column can be mapped to; other columns go to `meta`."""


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read the splits that are there; `--map question=Frage` names a column.

    JSON Lines rows that have `turns` are taken as records of this project.

    Raises:
        DataError: no split, an unknown mapping, or a row that cannot be understood.
    """
    check_mapping(options.mapping, FIELDS)
    dropped: list[Dropped] = []
    files = []
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        paths = [path for end in ("jsonl", "csv") if (path := source / f"{split}.{end}").is_file()]
        if len(paths) > 1:
            raise DataError(f"{source}: both {paths[0].name} and {paths[1].name} are there.")
        for path in paths:
            files.append(path)
            rows = iterate_objects(path) if path.suffix == ".jsonl" else _table(path)
            for number, (where, row) in enumerate(rows):
                record = _record(
                    row, where, split, number, options.mapping, dropped, path.suffix == ".csv"
                )
                if record:
                    splits[split].append(record)
    _refuse_other_names(source, bool(files))
    if not any(record.images for records in splits.values() for record in records):
        raise DataError(
            f"{source}: no row names an image.",
            f"The column {options.mapping.get('image', 'image')!r} has their names; another: "
            "--map image=COLUMN.",
        )
    return Collected(splits, image_folder(source, options), files, dropped, facts(splits))


def _refuse_other_names(source: Path, found: bool) -> None:
    """A table beside the splits that nobody would read is a split under another name."""
    tables = sorted(
        path.name
        for path in source.iterdir()
        if path.suffix.lower() in TABLES and path.name.lower() not in READ
    )
    aliases = [name for name in tables if name.lower().startswith(ALIASES)]
    if aliases or not found:
        unread = ", ".join(aliases or tables)
        raise DataError(
            f"{source}: {unread} would not be read."
            if unread
            else f"{source}: none of train, validation or test as .jsonl or .csv.",
            "Splits are train, validation and test, each as .jsonl or .csv.",
        )


def _table(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = read_text(path)
    header = text.partition("\n")[0]
    # Spreadsheets of countries with a decimal comma write semicolons.
    mark = next((mark for mark in ",;\t" if mark in header), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=mark)
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{where}: not as many cells as the header.")
            yield where, {key.strip(): value for key, value in row.items()}
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV ({error}).") from error


def _record(
    row: dict[str, Any],
    where: str,
    split: str,
    number: int,
    mapping: dict[str, str],
    dropped: list[Dropped],
    is_table: bool,
) -> Record | None:
    if "turns" in row:
        return parse_record(row, where)
    if row.get("split", split) not in (split, "") and "split" not in mapping.values():
        raise DataError(
            f"{where}: its column 'split' says {row['split']!r}, the file's name {split!r}.",
            "Put each split into a file of its own, or rename the column.",
        )
    column = {field: mapping.get(field, field) for field in FIELDS}
    # A line of JSON may be a text without an image; a table says so by an empty cell.
    needed = ("question", "answer", "image") if is_table else ("question", "answer")
    for field in needed:
        if column[field] not in row:
            raise DataError(
                f"{where}: there is no column {column[field]!r}.",
                f"It has {', '.join(row)}; give --map {field}=COLUMN.",
            )
    value = {field: row[name] for field, name in column.items() if row.get(name) not in (None, "")}
    published = text_field(value, "id", where) if "id" in value else str(number)
    used = set(column.values())
    meta = {key: item for key, item in row.items() if key not in used}
    meta |= {"published_id": published, "split": split}
    kind = text_field(value, "answer_type", where).upper() if "answer_type" in value else None
    if kind not in ("OPEN", "CLOSED", None):
        raise DataError(f"{where}: unknown answer_type {kind!r}.", "Known are OPEN and CLOSED.")
    choices = value.get("options")
    if isinstance(choices, str):
        choices = [part.strip() for part in choices.split("|")]
    record = vqa_record(
        f"{NAME}/{split}/{published}",
        {"question": value.get("question", ""), "answer": value.get("answer", "")},
        where,
        image=text_field(value, "image", where) if "image" in value else "",
        answer_type=kind,
        meta=meta,
        options=choices,
        dropped=dropped,
    )
    if record is None:
        return None
    updates: dict[str, Any] = {} if record.image else {"image": None}
    if "extended" in value:
        updates["extended"] = [text_field(value, "extended", where)]
    return record.model_copy(update=updates)


SOURCE = Source(
    name=NAME,
    title="your own train, validation, test as .jsonl or .csv, with --map FIELD=COLUMN",
    licence="yours",
    variants={"given": "the files' own split"},
    collect=collect,
)
