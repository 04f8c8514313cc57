"""Errors of the page's process are reported by type and place, without their text.

Gradio and uvicorn print tracebacks whose last line can quote what a visitor sent. While a page is
open, nothing of that reaches a terminal or a log.
"""

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOGGERS = ("uvicorn.error", "asyncio")


def type_and_place(error: BaseException | None) -> str:
    """Type, file and line of an error, without its text."""
    if error is None:
        return "an error"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return type(error).__name__
    place = Path(frame.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} at {place}:{frame.tb_lineno}"


def report_error(error: BaseException | None) -> None:
    """Print type and place of an error on standard error."""
    print(f"exgra-med web: {type_and_place(error)}", file=sys.stderr)


@contextmanager
def without_error_text() -> Iterator[None]:
    """Within the block, tracebacks and logged exceptions lose their text; warnings are dropped."""
    before = traceback.print_exc
    traceback.print_exc = lambda *_, **__: report_error(sys.exception())
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_remove_text)
    with warnings.catch_warnings():
        # Their text may quote an input, too.
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            traceback.print_exc = before
            for name in _LOGGERS:
                logging.getLogger(name).removeFilter(_remove_text)


def _remove_text(record: logging.LogRecord) -> bool:
    found = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if record.levelno >= logging.WARNING:
        record.msg, record.args = f"exgra-med web: {record.name}: {type_and_place(found)}", ()
        record.exc_info = record.exc_text = None
    return True
