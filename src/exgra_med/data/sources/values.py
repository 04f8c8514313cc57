"""What a value of a published row says, by one rule for CSV, JSON, JSON Lines and parquet.

| value | is |
| --- | --- |
| null, NaN, text of blanks | nothing; a row without question or answer is listed as dropped |
| text | itself, without outer blanks; words such as `None`, `NA` or `TRUE` too, which are answers |
| number | its digits; 3.0 is "3", 2.50 is "2.5" |
| true, false | "yes", "no" |
| list with one text, or one text again and again | that text |
| bytes | text, where they are UTF-8 |
"""

import math
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from exgra_med.errors import DataError

Row = tuple[str, dict[str, Any]]
"""Where it stands, for errors; and its values by name."""


def is_null(value: Any) -> bool:
    """Whether a value is null or NaN."""
    return value is None or (isinstance(value, (float, Decimal)) and math.isnan(value))


def plain_text(value: Any, what: str) -> str:
    """The text of a value, by the rule above; "" where it says nothing.

    Raises:
        DataError: several texts, an object, or a number that is none; the message begins with
            `what`.
    """
    if is_null(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float, Decimal)):
        if not math.isfinite(value):
            raise DataError(f"{what} is {value}, no number.")
        if value == int(value):
            return str(int(value))
        return format(value.normalize(), "f") if isinstance(value, Decimal) else repr(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{what} is bytes that are no UTF-8 text.") from error
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, (list, tuple)) for item in value):
            raise DataError(f"{what} is a list of lists.", "Give one text.")
        texts = {plain_text(item, what) for item in value}
        if len(texts) > 1:
            raise DataError(
                f"{what} is a list of {len(texts)} different texts.",
                "Give one; a longer wording of the same answer goes to `extended`.",
            )
        return texts.pop() if texts else ""
    if isinstance(value, (date, time)):
        raise DataError(
            f"{what} is the date or time {value}.",
            "Spreadsheets make dates of texts such as 3-4: format the column as text, and write "
            "the value again.",
        )
    raise DataError(f"{what} is neither text nor a number.")


def json_value(value: Any) -> Any:
    """A value as a record's `meta` can hold it: NaN is null; dates, decimals, infinity are text.

    Raises:
        TypeError: bytes, or another type that JSON has no word for.
    """
    if is_null(value):
        return None
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, (date, time, timedelta, Decimal)) or value in (math.inf, -math.inf):
        return str(value)
    if isinstance(value, (str, int, float)):
        return value
    raise TypeError(type(value).__name__)
