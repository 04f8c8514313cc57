"""Rows of a table or a list: CSV and its kin, Excel, JSON, JSON Lines, parquet.

What is in a cell is left as it is; `data/sources/values.py` says what it means.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from exgra_med.data.records import iterate_lines
from exgra_med.data.sources.parquet import iterate_rows
from exgra_med.data.sources.spreadsheets import sheet_rows
from exgra_med.data.sources.values import Row, is_null, plain_text
from exgra_med.data.talks import MESSAGE_LISTS
from exgra_med.errors import DataError
from exgra_med.reading import decode_json, read_text

TABLES = (".csv", ".tsv", ".xlsx", ".parquet")
ENDINGS = (*TABLES, ".json", ".jsonl")
SEPARATORS = ",;\t|"
_SNIFFED_ROWS = 200
_LONGEST_CELL = 512 * 2**20
"""Characters; a cell may hold a picture as base64, and Python's own limit is 131,072."""


def read_rows(path: Path, known: Iterable[str] = (), sheet: str | None = None) -> Iterator[Row]:
    """The rows of a file, by its ending; a `.json` file may hold a list or one object a line.

    Args:
        known: names of columns, which decide between two separators that both fit.
        sheet: of an Excel file; the one that holds rows where absent.

    Raises:
        DataError: the file cannot be read; names file and row.
        MissingExtraError: a parquet or Excel file, and what reads it is not installed.
    """
    ending = path.suffix.lower()
    if sheet is not None and ending != ".xlsx":
        raise DataError(f"{path}: --sheet is for .xlsx files.", "Leave it out.")
    if ending == ".xlsx":
        return _sheet(path, sheet)
    if ending == ".parquet":
        return iterate_rows([path])
    return _json_rows(path) if ending in (".json", ".jsonl") else _table_rows(path, known)


ZIP = b"PK\x03\x04"
"""How an Excel file begins."""


def read_any_table(path: Path, known: Iterable[str] = ()) -> Iterator[Row]:
    """The rows of an Excel file or of text with separators, by what is in it, not by its ending.

    Args:
        known: names of columns, which decide between two separators that both fit.

    Raises:
        DataError: the file cannot be read; names file and row.
        MissingExtraError: an Excel file, and what reads it is not installed.
    """
    with path.open("rb") as stream:
        is_sheet = stream.read(len(ZIP)) == ZIP
    return _sheet(path, None) if is_sheet else _table_rows(path, known)


def _json_rows(path: Path) -> Iterator[Row]:
    start = next((text.lstrip()[:1] for _, text in iterate_lines(path)), "")
    if start == "[":
        text = read_text(path)
        rows = decode_json(text, str(path), nan_is_null=True)
        places = ((f"{path}: row {number}", row) for number, row in enumerate(rows))
    else:
        places = _lines(path)
    for where, row in places:
        if not isinstance(row, dict):
            raise DataError(f"{where}: not an object.")
        names = [key.strip() for key in row]
        _refuse_duplicates(names, where)
        yield where, dict(zip(names, row.values(), strict=True))


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each line stands, and its row."""
    for where, text in iterate_lines(path):
        try:
            row = decode_json(text, where, nan_is_null=True)
        except DataError:
            if text.strip() in ("{", "[") or path.suffix.lower() == ".json":
                # One object over many lines.
                _refuse_whole(path, decode_json(read_text(path), str(path), nan_is_null=True))
            raise
        if isinstance(row, dict) and row.keys().isdisjoint((*MESSAGE_LISTS, "turns")):
            # A row of columns, as pandas' `to_json` writes them, or of lists of rows.
            inner = [each for value in row.values() if isinstance(value, list) for each in value]
            columns = row and all(isinstance(value, dict) for value in row.values())
            if columns or (len(row) == 1 and inner and all(isinstance(i, dict) for i in inner)):
                _refuse_whole(path, row)
        yield where, row


def _refuse_whole(path: Path, value: Any) -> None:
    if isinstance(value, dict):
        raise DataError(
            f"{path}: one object with {', '.join(map(repr, list(value)[:5]))}, not a list of rows.",
            'Write a list of rows, or one row a line; pandas does with to_json(orient="records").',
        )


def _table_rows(path: Path, known: Iterable[str]) -> Iterator[Row]:
    text = read_text(path)
    if "\0" in text:
        raise DataError(
            f"{path}: holds NUL characters, as UTF-16 and spreadsheets do.",
            "Save the file as UTF-8, a spreadsheet as CSV.",
        )
    said, lines_before = "", 0
    first, _, rest = text.partition("\n")
    if first.strip().strip('"').lower().startswith("sep=") and len(first.strip()) <= 7:
        # Excel's own line: it says the separator and is no row.
        said, text, lines_before = first.strip().strip('"')[4:5] or "\t", rest, 1
    mark = said or _separator(text, {name.strip().lower() for name in known})
    reader = _reader(text, mark)
    header: list[str] = []
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num + lines_before}"
            if not cells:
                continue
            if not header:
                header = [name.strip() for name in cells]
                _refuse_duplicates([name for name in header if name], str(path))
                continue
            _refuse_swallowed(cells, header, mark, where)
            yield where, _cells(header, cells, where, mark)
    except csv.Error as error:
        where = f"{path}:{reader.line_num + lines_before}"
        raise DataError(
            f"{where}: not valid CSV ({error}).",
            'In a cell between double quotes, write "" for a quote of the text.',
        ) from error
    if not header:
        raise DataError(f"{path}: the table is empty.")


def _sheet(path: Path, sheet: str | None) -> Iterator[Row]:
    header: list[str] = []
    for where, cells in sheet_rows(path, sheet):
        if not header:
            header = ["" if cell is None else plain_text(cell, where) for cell in cells]
            _refuse_duplicates([name for name in header if name], str(path))
            continue
        width = max(len(header), len(cells))
        padded = [*cells, *[None] * (width - len(cells))]
        row = {}
        for place, cell in enumerate(padded):
            name = header[place] if place < len(header) else ""
            if name:
                row[name] = cell
            elif (
                not is_null(cell)
                and str(cell).strip()
                and not (place == 0 and isinstance(cell, int))
            ):
                # The first column of pandas' to_excel has no name and numbers the rows.
                raise DataError(
                    f"{where}: column {place + 1} has no name and holds {str(cell)[:40]!r}.",
                    "The first row that is not empty has the names of all columns.",
                )
        yield where, row
    if not header:
        raise DataError(f"{path}: the table is empty.")


def _refuse_swallowed(cells: list[str], header: list[str], mark: str, where: str) -> None:
    """Refuse a row one of whose cells seems to hold further rows: a quote that was not closed ends
    at the next one, however many lines later.

    Reports have line breaks and separators too. So a line counts as a row where its first cell is
    written as that of this row, in digits and signs.
    """
    for cell in cells[1:]:
        lines = cell.splitlines()[1:]
        if not lines or cell.count(mark) < len(lines) * (len(header) - 1):
            continue
        for line in lines:
            if (form := _form(line.partition(mark)[0])) == _form(cells[0]) and form.strip("a "):
                raise DataError(
                    f"{where}: a line that is written like a row stands inside of a cell, as where "
                    "a quote was not closed.",
                    "Close the quote, or write the rows as JSON Lines if it is meant so.",
                )


def _form(text: str) -> str:
    """`img_07.png` and `scan_1.jpg` are written alike."""
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", text.strip()))


def _reader(text: str, mark: str) -> Any:
    csv.field_size_limit(_LONGEST_CELL)
    return csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=mark)


def _separator(text: str, known: set[str]) -> str:
    """The separator under which the first rows have as many cells as the header.

    Where several fit, the one with most known names in the header, then the one with most cells.
    """

    def fit(mark: str) -> tuple[bool, int, int]:
        rows: list[list[str]] = []
        whole = True
        try:
            rows.extend(row for row in islice(_reader(text, mark), _SNIFFED_ROWS) if row)
        except csv.Error:
            whole = False
        header = [name.strip().lower() for name in rows[0]] if rows else []
        same = whole and len(header) > 1 and all(len(row) == len(header) for row in rows)
        return same, len(known & set(header)), len(header)

    return max(SEPARATORS, key=fit)


def _cells(header: Sequence[str], cells: list[str], where: str, mark: str) -> dict[str, Any]:
    # Spreadsheets end rows with separators for columns that nobody filled.
    extra = cells[len(header) :]
    if len(cells) < len(header) or any(cell.strip() for cell in extra):
        name = {"\t": "tab"}.get(mark, repr(mark))
        raise DataError(
            f"{where}: {len(cells)} cells, and the header has {len(header)} (separator {name}).",
            "Put a cell that holds the separator or a line end into double quotes.",
        )
    row = {}
    for place, (name, cell) in enumerate(zip(header, cells, strict=False), start=1):
        if name:
            # A line end inside a cell is that of the file, and no part of the text.
            row[name] = cell.replace("\r\n", "\n").replace("\r", "\n")
        elif cell.strip() and not (place == 1 and cell.strip().isdecimal()):
            # The first column of pandas' to_csv has no name and numbers the rows.
            raise DataError(f"{where}: column {place} has no name and holds {cell[:40]!r}.")
    return row


def _refuse_duplicates(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{where}: the column {name!r} is there twice.", "Rename or remove one of them."
            )


def field_columns(
    names: Iterable[str],
    mapping: Mapping[str, str],
    aliases: Mapping[str, Sequence[str]],
    where: str,
) -> dict[str, str]:
    """Field -> the column that holds it: the mapped one, one of its name, or of a known alias.

    Case, blanks, `-` and `_` in names do not count.

    Raises:
        DataError: a mapped column is not there, or two columns could be the field.
    """
    columns = list(names)
    found: dict[str, str] = {}
    taken = set()
    for field, wanted in mapping.items():
        same = [name for name in columns if name == wanted.strip()]
        same = same or [name for name in columns if folded(name) == folded(wanted)]
        if not same:
            continue
        found[field] = same[0]
        taken.add(same[0])
    free = [name for name in columns if name not in taken]
    for field, others in aliases.items():
        if field in mapping:
            continue
        for wanted in (field, *others):
            same = [name for name in free if folded(name) == folded(wanted)]
            if len(same) > 1:
                raise DataError(
                    f"{where}: both {same[0]!r} and {same[1]!r} may be the column {field!r}.",
                    f"Say which: --map {field}=COLUMN.",
                )
            if same:
                break
        aliased = [name for name in free if folded(name) in map(folded, others)]
        if same and folded(same[0]) != folded(field) and len(aliased) > 1:
            raise DataError(
                f"{where}: {' and '.join(map(repr, aliased))} may be the column {field!r}.",
                f"Say which: --map {field}=COLUMN.",
            )
        if same:
            found[field] = same[0]
    return found


def folded(name: str) -> str:
    """A column's name as names are compared."""
    return "".join(name.lower().replace("-", " ").replace("_", " ").split())
