"""How evenly a run answers closed questions: macro F1, balanced accuracy, and the bias to "yes"."""

from collections import Counter
from collections.abc import Iterable

from exgra_med.evaluation.metrics.options import NO, YES
from exgra_med.evaluation.metrics.strict import ClosedScore, Verdict


def closed_balance(
    readings: Iterable[ClosedScore], num_missing: int = 0
) -> dict[str, float | None]:
    """Scores of closed answers in which a rare answer counts as much as a frequent one.

    Args:
        readings: closed answers as the strict scorer reads them.
        num_missing: closed questions without an answer; they count as failures.

    Returns:
        In percent: `macro_f1` and `balanced_accuracy` over the reference answers that occur,
        `yes_true_rate` (of the questions answered by yes) and `no_true_rate`, `yes_share` of the
        yes/no answers that were read, `parse_failures`, `abstentions`, `several_options` of all.
        None where nothing is there to count.
    """
    readings = list(readings)
    total = len(readings) + num_missing
    expected = Counter(reading.expected for reading in readings)
    chosen = Counter(reading.chosen for reading in readings if reading.chosen is not None)
    hits = Counter(reading.expected for reading in readings if reading.hit)
    verdicts = Counter(reading.verdict for reading in readings)
    read_yes_no = [r.chosen for r in readings if r.expected in (YES, NO) and r.chosen is not None]
    recalls = [hits[label] / expected[label] for label in expected]
    f1 = [2 * hits[label] / (expected[label] + chosen[label]) for label in expected]
    return {
        "macro_f1": _percent(sum(f1), len(f1)),
        "balanced_accuracy": _percent(sum(recalls), len(recalls)),
        "yes_true_rate": _percent(hits[YES], expected[YES]),
        "no_true_rate": _percent(hits[NO], expected[NO]),
        "yes_share": _percent(read_yes_no.count(YES), len(read_yes_no)),
        "parse_failures": _percent(verdicts[Verdict.UNPARSED] + num_missing, total),
        "abstentions": _percent(verdicts[Verdict.ABSTAINED], total),
        "several_options": _percent(verdicts[Verdict.SEVERAL], total),
    }


def _percent(part: float, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None
