"""The one place that unpickles: plain containers, text and numbers, nothing that can run."""

import pickle
from pathlib import Path
from typing import Any, NoReturn

from exgra_med.errors import DataError

MAX_PICKLE_BYTES = 256 * 2**20
"""Larger files are refused; the largest of PathVQA has some megabytes."""


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every name, so that no function can be found and none be called."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it has a persistent id")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, text and numbers.

    Args:
        path: the file.

    Raises:
        DataError: the file names a class or function, is too large, cut short, or no pickle.
    """
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise DataError(f"{path}: larger than {MAX_PICKLE_BYTES} bytes.")
        with path.open("rb") as stream:
            return _PlainUnpickler(stream).load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except DataError:
        raise
    # A hostile or broken pickle raises whatever it likes: all of it means a refused file.
    except Exception as error:
        raise DataError(
            f"{path}: refused, not a pickle of plain values ({error}).",
            "Nothing of it was run; convert it to JSON where you trust it.",
        ) from error
