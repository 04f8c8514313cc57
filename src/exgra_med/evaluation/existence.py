"""Does a model invent findings? How often it claims those that are there, and those that are not.

POPE (Li et al. 2023, arXiv 2305.10355) asks whether objects are in a picture, half of which are
not: drawn at random, the most frequent ones, or those that often come together with what is there.
"""

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.evaluation import metrics, reading
from exgra_med.evaluation.answers import Pairing
from exgra_med.evaluation.measures import Measure, read_closed, summary
from exgra_med.evaluation.statistics import (
    FEWEST_HITS,
    cluster_bootstrap,
    interval,
    mean_interval,
    renumbered,
    scored,
    scored_share,
)

ABSENT_KINDS = ("random", "popular", "adversarial")
"""How the absent findings of made questions were chosen; `data/existence.py` makes them."""
EXISTENCE: tuple[Measure, ...] = (
    Measure("false_claims", "claims of absent findings", "closed", higher_is_better=False),
    Measure("true_claims", "claims of present findings", "closed"),
    Measure("yes_rate", "answered by yes", "closed"),
    Measure("accuracy", "accuracy", "closed"),
    Measure("neither", "neither yes nor no", "closed", higher_is_better=False),
)
"""What is measured of questions after a finding; `existence` adds what needs two of these."""
FURTHER_EXISTENCE: tuple[Measure, ...] = (
    Measure("f1", "F1 of yes", "closed"),
    Measure("told_apart", "present minus absent claims", "closed"),
)


def existence(pairing: Pairing, num_samples: int = 2000, seed: int = 0) -> dict[str, Any] | None:
    """How often findings are claimed that are there, and that are not, with intervals.

    It counts yes/no questions that a data set marks (`meta.existence`), or else, in English, whose
    words ask whether something is there.

    Returns:
        `all`, and each of `ABSENT_KINDS` beside the present findings where they are marked:
        `num_present`, `num_absent`, `num_images` and `scores`. `false_claims` is over absent
        findings, `true_claims` over present ones, the rest over all. `f1` is of the answer yes;
        `told_apart` is `true_claims` minus `false_claims`, 0 for who does not look. Without an
        answer, or with neither word, nothing is claimed. None without such questions.
    """
    rows, kinds, right, said = array("q"), [], [], []
    for row, (question, answer) in enumerate(zip(pairing.questions, pairing.answers, strict=True)):
        marked = question.meta.get("existence")
        asked = marked or metrics.asks_existence(question.text)
        expected = metrics.yes_or_no(question.answer)
        if asked and question.answer_type == "CLOSED" and expected:
            rows.append(row)
            kinds.append(tuple(marked) if isinstance(marked, list) else ())
            right.append(expected)
            said.append(None if answer is None else read_closed(answer, question).chosen)
    if not rows:
        return None
    is_there = np.array([each == reading.YES for each in right])
    said_yes = np.array([each == reading.YES for each in said])
    said_no = np.array([each == reading.NO for each in said])
    columns = [
        np.where(is_there, np.nan, said_yes),
        np.where(is_there, said_yes, np.nan),
        said_yes,
        np.where(is_there, said_yes, said_no),
        ~(said_yes | said_no),
    ]
    values = np.stack([each.astype(np.float64) for each in columns], axis=1)
    clusters = renumbered(pairing.clusters[rows])
    parts = {"all": np.ones(len(rows), dtype=bool)}
    for kind in ABSENT_KINDS:
        of_kind = np.array([kind in each for each in kinds])
        if of_kind.any():
            parts[kind] = of_kind | (is_there & np.array([bool(each) for each in kinds]))
    return {
        name: _existence_scores(values[part], is_there[part], clusters[part], num_samples, seed)
        for name, part in parts.items()
    }


def _existence_scores(
    values: NDArray[np.float64],
    is_there: NDArray[np.bool_],
    clusters: NDArray[np.int64],
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    _, codes = np.unique(clusters, return_inverse=True)
    scores = summary(values, EXISTENCE, codes, num_samples, seed)
    # Ratios and differences of means over the same resamples.
    hits, yes = (is_there * values[:, 2]), values[:, 2]
    parts = np.stack([2 * hits, yes + is_there, values[:, 1], values[:, 0]], axis=1)
    samples = cluster_bootstrap(parts, codes, num_samples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = samples[:, 0] / samples[:, 1]
        gap = samples[:, 2] - samples[:, 3]
    num_images, num_there = int(codes.max()) + 1, int(is_there.sum())
    total = float(parts[:, 1].sum())
    value = float(parts[:, 0].sum()) / total if total and num_there else None
    bounds = None if value is None else mean_interval(f1[:, None], [value], [num_images])
    scores["f1"] = scored_share(value, len(values), bounds)
    claims = scores["true_claims"], scores["false_claims"]
    scores["told_apart"] = _told_apart(*claims, interval(100 * gap, num_images))
    return {
        "num_present": num_there,
        "num_absent": len(values) - num_there,
        "num_images": num_images,
        "scores": scores,
    }


def _told_apart(
    true: Mapping[str, Any], false: Mapping[str, Any], resampled: tuple[float, float] | None
) -> dict[str, Any]:
    """One share minus the other, in percent; `resampled` are the bounds that resamples give."""
    count = true["count"] + false["count"]
    if resampled is None or not (true["interval"] and false["interval"]):
        both = None in (true["value"], false["value"])
        return scored(None if both else true["value"] - false["value"], count)
    value = true["value"] - false["value"]
    low, high = resampled
    if any(
        min(each["value"], 100 - each["value"]) * each["count"] < 100 * FEWEST_HITS
        for each in (true, false)
    ):
        # Resamples know too little of a share near its end, and its own bounds more: they are put
        # together by the distances (Zou and Donner 2008), as in `mean_interval`.
        (true_low, true_high), (false_low, false_high) = true["interval"], false["interval"]
        below = np.hypot(true["value"] - true_low, false_high - false["value"])
        above = np.hypot(true_high - true["value"], false["value"] - false_low)
        low = max(-100.0, min(low, value - float(below)))
        high = min(100.0, max(high, value + float(above)))
    return scored(value, count, (low, high))


def existence_sentence(found: Mapping[str, Any]) -> str:
    """`existence` in words."""
    part = found["all"]
    scores = part["scores"]

    def told(name: str) -> str:
        value, bounds = scores[name]["value"], scores[name]["interval"]
        if value is None:
            return "–"
        inside = f" (95 % interval {bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else ""
        return f"{value:.1f} %{inside}"

    sentence = (
        f"Asked whether a finding is there, it claims {told('false_claims')} of "
        f"{part['num_absent']} absent and {told('true_claims')} of {part['num_present']} present "
        f"ones, on {part['num_images']} images."
    )
    if scores["neither"]["value"]:
        sentence += f" {scores['neither']['value']:.1f} % of the answers are neither yes nor no."
    return sentence
