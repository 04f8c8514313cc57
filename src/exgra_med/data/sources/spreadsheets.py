"""The sheet of an Excel file (extra `excel`), row by row."""

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from exgra_med.data.download.archives import unpacked_bytes
from exgra_med.errors import DataError
from exgra_med.plugins import import_extra

MAX_BYTES = 2**30
"""Of all that is packed in the file; a million rows of questions have some hundred megabytes."""

_ERRORS = ("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!")
"""What a cell shows whose formula has no value."""
_SAVE = "Open it, and save it as .xlsx or as CSV (UTF-8)."


def sheet_rows(path: Path, sheet: str | None = None) -> Iterator[tuple[str, list[Any]]]:
    """Where each row that is not empty stands, and its cells; None where a cell is empty.

    Formulas are read as the values that were stored with them.

    Args:
        sheet: its name; where absent, the one sheet that is not empty.

    Raises:
        DataError: not an Excel file, no such sheet, or several that hold rows; names them.
        MissingExtraError: openpyxl is not installed.
    """
    openpyxl = import_extra("openpyxl", "Reading Excel files", "excel")
    # Of styles and extensions that are not read anyway.
    warnings.filterwarnings("ignore", module="openpyxl")
    try:
        if (size := unpacked_bytes(path)) > MAX_BYTES:
            raise DataError(f"{path}: {size} bytes unpacked are more than {MAX_BYTES}.", _SAVE)
        # Of a name openpyxl takes some endings alone; of a stream it takes what is in it.
        book = openpyxl.load_workbook(BytesIO(path.read_bytes()), read_only=True, data_only=True)
    except DataError:
        raise
    except Exception as error:
        # Damaged and hostile files raise errors of many kinds.
        raise DataError(f"{path}: not a complete Excel file, or a locked one.", _SAVE) from error
    try:
        yield from _rows(book, path, sheet)
    finally:
        book.close()


def _rows(book: Any, path: Path, sheet: str | None) -> Iterator[tuple[str, list[Any]]]:
    names = [each.title for each in book.worksheets]
    if sheet is not None and sheet not in names:
        raise DataError(
            f"{path}: there is no sheet {sheet!r}.", f"It has {', '.join(map(repr, names))}."
        )
    try:
        filled = [sheet] if sheet else [name for name in names if any(_cells(book[name]))]
        if len(filled) > 1:
            raise DataError(
                f"{path}: the sheets {' and '.join(map(repr, filled))} hold rows.",
                f"Say which one is meant: --sheet {filled[0]!r}.",
            )
        for name in filled:
            yield from (
                (f"{path}: sheet {name!r}, row {number}", cells)
                for number, cells in _cells(book[name])
            )
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: a sheet is damaged.", _SAVE) from error


def _cells(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    # What a file says of its own size is often wrong; the rows are read as they come.
    sheet.reset_dimensions()
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        values = [None if cell in _ERRORS else cell for cell in cells]
        if any(value is not None and str(value).strip() for value in values):
            yield number, values
