"""The yes/no table that the published script for modalities prints beside the legacy metrics.

A reference "yes" is found by "yes" anywhere in the answer; a reference "no" is missed by "yes"
anywhere in it and found by "no". An answer to "no" with neither word is in no cell.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

Cell = Literal["tp", "fp", "tn", "fn"]


def yes_no_cell(prediction: str, reference: str) -> Cell | None:
    """The cell of a closed answer; None for other references, and where neither word occurs."""
    said, wanted = prediction.lower(), reference.strip().lower()
    if wanted == "yes":
        return "tp" if "yes" in said else "fn"
    if wanted == "no":
        return "fp" if "yes" in said else "tn" if "no" in said else None
    return None


def yes_no_table(pairs: Iterable[tuple[str, str]]) -> dict[str, float | None]:
    """Counts, and precision, recall and F1 of "yes" in percent; None where there is no "yes".

    Args:
        pairs: prediction and reference of each closed question.
    """
    cells = Counter(yes_no_cell(*pair) for pair in pairs)
    hits, false, missed = cells["tp"], cells["fp"], cells["fn"]
    return {
        "tp": hits,
        "fp": false,
        "tn": cells["tn"],
        "fn": missed,
        "precision": _percent(hits, hits + false),
        "recall": _percent(hits, hits + missed),
        "f1": _percent(2 * hits, 2 * hits + false + missed),
    }


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
