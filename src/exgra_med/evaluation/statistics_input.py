"""What the statistics refuse: numbers that would give a wrong answer without a word."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exgra_med.errors import ScoreError


def as_table(values: ArrayLike, name: str = "values") -> NDArray[np.float64]:
    """Numbers as (items, measures).

    Raises:
        ScoreError: not numbers, no item, more than two dimensions, or an infinite number.
    """
    table = _numbers(values, name)
    if table.ndim not in (1, 2) or not table.size:
        raise ScoreError(
            f"{name} has the shape {table.shape}, and (items,) or (items, measures) is needed.",
            "Give at least one item.",
        )
    if np.isinf(table).any():
        raise ScoreError(f"{name} holds an infinite number.", "NaN says that an item is left out.")
    return table.reshape(len(table), -1)


def as_column(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Numbers of one measure as (items,); there may be none.

    Raises:
        ScoreError: not numbers, or several measures.
    """
    table = _numbers(values, name)
    if table.ndim == 1 or (table.ndim == 2 and table.shape[1] == 1):
        return table.reshape(-1)
    raise ScoreError(
        f"{name} has the shape {table.shape}, and one measure is needed.",
        f"Give a column of it, such as {name}[:, 0].",
    )


def as_codes(clusters: ArrayLike, num_items: int) -> NDArray[np.int64]:
    """Codes of the clusters of so many items.

    Raises:
        ScoreError: not whole numbers from 0 without a gap, or not one an item.
    """
    codes = np.asarray(clusters)
    if codes.shape != (num_items,):
        raise ScoreError(f"There are {num_items} items, and clusters has the shape {codes.shape}.")
    whole = np.issubdtype(codes.dtype, np.integer)
    # A gap would be drawn as a cluster without items.
    if not whole or codes.min() < 0 or len(np.unique(codes)) != int(codes.max()) + 1:
        raise ScoreError(
            "clusters are not whole numbers from 0 on without a gap.",
            "Make them from names with `cluster_codes`.",
        )
    return codes.astype(np.int64, copy=False)


def check_share(value: float, name: str) -> None:
    """Refuse a level or power that is no share.

    Raises:
        ScoreError: not between 0 and 1.
    """
    if not _is_number(value) or not 0 < value < 1:
        raise ScoreError(
            f"{name}={value!r} is not between 0 and 1.", "95 per cent is written 0.95."
        )


def check_count(value: Any, name: str, least: int = 0) -> None:
    """Refuse what is no number of things.

    Raises:
        ScoreError: not a whole number, or fewer than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ScoreError(f"{name}={value!r} is not a whole number of {least} or more.")


def check_p_values(values: Sequence[float]) -> None:
    """Refuse what is no p-value.

    Raises:
        ScoreError: one is not between 0 and 1.
    """
    for value in values:
        if not _is_number(value) or not 0 <= value <= 1:
            raise ScoreError(f"{value!r} is no p-value: those lie between 0 and 1.")


def check_error(value: float) -> None:
    """Refuse what is no standard error.

    Raises:
        ScoreError: negative, infinite or no number.
    """
    if not _is_number(value) or not 0 <= value < math.inf:
        raise ScoreError(f"standard_error={value!r} is not a number of 0 or more.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScoreError(f"{name} is not an array of numbers.") from error
