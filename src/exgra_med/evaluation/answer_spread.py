"""Whether the answers vary: with the question, and with the picture."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.records import Met
from exgra_med.evaluation import metrics, reading
from exgra_med.evaluation.answers import Pairing, Question
from exgra_med.evaluation.measures import read_closed
from exgra_med.evaluation.statistics import (
    MANY_CLUSTERS,
    NUM_SAMPLES_OF_MANY,
    mean_interval,
    scored_share,
)

Said = Counter[tuple[str, str]]
"""How often an answer was given where another, or the same, was right."""


def answer_spread(pairing: Pairing) -> dict[str, Any]:
    """Whether one answer is given to most questions, over all, open and closed ones.

    Returns:
        `all`, `open`, `closed`, each with `answered`, `different` (answers), and of the most
        frequent one `answer`, `count`, and `expected`: how often it is the right one. A closed
        answer is the option that was read in it, any other its words. `yes_no_to_open`: open
        questions answered by yes or no where the reference is neither. `by_kind`: the same as of
        `all` for the questions of a type that begin with the same word ("open where").
    """
    given: dict[str, Said] = {"all": Counter(), "open": Counter(), "closed": Counter()}
    kinds: dict[str, Said] = {}
    yes_no_to_open = 0
    for question, answer in zip(pairing.questions, pairing.answers, strict=True):
        if answer is None:
            continue
        said, right = said_and_right(question, answer)
        is_open = question.answer_type != "CLOSED"
        yes_no_to_open += bool(is_open and metrics.yes_or_no(said) and not metrics.yes_or_no(right))
        of_type = question.answer_type.lower()
        for kind in ("all", of_type):
            given[kind][said, right] += 1
        first_word = next(iter(reading.words(question.text)), "")
        kinds.setdefault(f"{of_type} {first_word}".strip(), Counter())[said, right] += 1
    by_kind = {name: _most_frequent(pairs) for name, pairs in sorted(kinds.items())}
    return (
        {"yes_no_to_open": yes_no_to_open}
        | {kind: _most_frequent(pairs) for kind, pairs in given.items()}
        | {
            "by_kind": {
                k: each for k, each in by_kind.items() if each["answered"] >= FEWEST_ANSWERS
            }
        }
    )


def said_and_right(question: Question, answer: str) -> tuple[str, str]:
    """What an answer and the reference say, so that equal things are equal strings: the option that
    was read in a closed answer, the words of any other."""
    said = " ".join(reading.words(reading.answer_text(answer)))
    if question.answer_type != "CLOSED":
        return said, " ".join(reading.words(question.answer))
    closed = read_closed(answer, question)
    return closed.chosen or said, closed.expected


def _most_frequent(pairs: Said) -> dict[str, Any]:
    """What `answer_spread` tells of answers, each with the right one."""
    counted: Counter[str] = Counter()
    for (said, _), number in pairs.items():
        counted[said] += number
    answer, count = counted.most_common(1)[0] if counted else ("", 0)
    return {
        "answered": pairs.total(),
        "different": len(counted),
        "answer": answer,
        "count": count,
        "expected": sum(number for (_, right), number in pairs.items() if right == answer),
    }


FEWEST_ANSWERS = 5
"""Below this one frequent answer is no sign of anything."""
_MOST, _EXCESS, _ALL_BUT = 0.5, 0.25, 0.95
_NEARLY_ALL_OF_A_KIND = 0.9


def collapsed(spread: Mapping[str, Any]) -> list[str]:
    """Of `open` and `closed`, then `all`, where one answer stands for most, as `answer_spread` has
    it: for over half of the answers and a quarter more of them than it should, or for nearly all
    where it should not. Else `by_kind`, where each kind of question gets its one answer."""
    found = []
    for kind in ("open", "closed", "all"):
        each = spread[kind]
        if each["answered"] < FEWEST_ANSWERS:
            continue
        share, right = (each[name] / each["answered"] for name in ("count", "expected"))
        if share > _MOST and (share - right >= _EXCESS or right < _ALL_BUT <= share):
            found.append(kind)
    kinds = (spread.get("by_kind") or {}).values()
    total, given, right = (
        sum(each[k] for each in kinds) for k in ("answered", "count", "expected")
    )
    is_given = len(kinds) > 1 and given >= _NEARLY_ALL_OF_A_KIND * total
    if not found and is_given and given - right >= _EXCESS * total:
        found.append("by_kind")
    return found


_MOST_KINDS = 4
"""Kinds of question that a sentence names."""


def spread_sentence(spread: Mapping[str, Any]) -> str:
    """`answer_spread` in words: collapsed, where, and onto what; or how the answers vary."""
    everything = spread["all"]
    if everything["answered"] < FEWEST_ANSWERS:
        return f"Too few answers ({everything['answered']}) to see whether they vary."
    found = collapsed(spread)
    if found == ["by_kind"]:
        return _by_kind_sentence(spread["by_kind"])
    parts = [
        f"“{spread[kind]['answer'] or '(empty)'}” to {spread[kind]['count']} of "
        f"{spread[kind]['answered']} {kind} questions, where it is right for "
        f"{spread[kind]['expected']}"
        for kind in [each for each in found if each != "all"] or found
    ]
    if parts:
        sentence = f"Collapsed: one answer stands for most. {'; '.join(parts)}."
    else:
        sentence = (
            f"Not collapsed: {everything['different']} different answers to "
            f"{everything['answered']} questions; the most frequent, "
            f"“{everything['answer'] or '(empty)'}”, stands for {everything['count']} and is right "
            f"for {everything['expected']}."
        )
    if spread["yes_no_to_open"] > spread["open"]["answered"] * _EXCESS:
        sentence += (
            f" {spread['yes_no_to_open']} of {spread['open']['answered']} open questions are "
            "answered by yes or no, which is no answer to them."
        )
    return sentence


def _by_kind_sentence(by_kind: Mapping[str, Any]) -> str:
    largest = sorted(by_kind.items(), key=lambda each: -each[1]["count"])
    parts = [
        f"“{each['answer'] or '(empty)'}” to {each['count']} of {each['answered']} {kind} "
        f"questions, where it is right for {each['expected']}"
        for name, each in largest[:_MOST_KINDS]
        for of_type, _, word in [name.partition(" ")]
        for kind in [f"{of_type} “{word}”" if word else of_type]
    ]
    more = len(largest) - _MOST_KINDS
    rest = f"; and so for {more} more kinds" if more > 0 else ""
    return (
        "Collapsed: one answer stands for nearly all questions that begin with the same word. "
        f"{'; '.join(parts)}{rest}."
    )


# Does the answer change with the picture? Where the same question is asked of two pictures and has
# two right answers, one answer for both did not come from the picture. Greedy answers have no
# chance in them: what differs, differs because of the picture, and no floor has to be taken off.


def same_questions(
    pairing: Pairing, num_samples: int = 2000, seed: int = 0
) -> dict[str, Any] | None:
    """How often the same question gets another answer of a picture with another right answer.

    Questions with equal words and options, about different pictures, form pairs where their
    references differ. A wording weighs as often as it was asked.

    Returns:
        `changed` (in percent; the interval redraws pictures, and with them all their pairs;
        `count` is of questions), `num_pairs`, `num_wordings`, `num_images`. None without a pair.
    """
    # Only wordings that come again can form a pair; of the others nothing is kept.
    seen, again = Met(), Met()
    for question in pairing.questions:
        if not seen.add(_wording(question)):
            again.add(_wording(question))
    cells: Counter[tuple[tuple[str, tuple[str, ...]], str, str, int]] = Counter()
    seen = Met()
    for question, answer, code in zip(
        pairing.questions, pairing.answers, pairing.clusters.tolist(), strict=True
    ):
        text = _wording(question)
        if answer is None or not question.images or text not in again:
            continue
        if not seen.add((text, question.images)):
            continue
        said, right = said_and_right(question, answer)
        cells[text, right, said, code] += 1
    references: dict[Any, set[str]] = {}
    for text, right, _, _ in cells:
        references.setdefault(text, set()).add(right)
    cells = Counter({key: n for key, n in cells.items() if len(references[key[0]]) > 1})
    if not cells:
        return None
    _, images = np.unique([key[3] for key in cells], return_inverse=True)
    counts = np.array(list(cells.values()), dtype=np.float64)
    texts, of_right, of_said, of_both = (
        _codes(each)
        for each in zip(
            *((t, (t, right), (t, said), (t, right, said)) for t, right, said, _ in cells),
            strict=True,
        )
    )

    def squares(weights: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """For each text the sum of the squared sizes of its groups, (texts,)."""
        sizes = np.bincount(codes, weights)
        of_text = np.zeros(len(sizes), dtype=np.int64)
        of_text[codes] = texts
        sums = np.bincount(of_text, sizes**2, minlength=int(texts.max()) + 1)
        return sums.astype(np.float64, copy=False)

    def changed(weights: NDArray[np.float64]) -> tuple[float, float]:
        """The share of pairs that differ, and how many pairs there are."""
        asked = np.bincount(texts, weights)
        pairs = (asked**2 - squares(weights, of_right)) / 2
        alike = (squares(weights, of_said) - squares(weights, of_both)) / 2
        there = pairs > 0
        if not there.any():
            return float("nan"), 0.0
        shares = 1 - alike[there] / pairs[there]
        return float(np.average(shares, weights=asked[there])), float(pairs.sum())

    value, num_pairs = changed(counts)
    num_images = int(images.max()) + 1
    if num_images >= MANY_CLUSTERS:
        num_samples = min(num_samples, NUM_SAMPLES_OF_MANY)
    generator = np.random.default_rng(seed)
    samples = np.empty((num_samples, 1))
    for sample in samples:
        drawn = np.bincount(generator.integers(0, num_images, num_images), minlength=num_images)
        sample[0], _ = changed(counts * drawn[images])
    bounds = mean_interval(samples, [value], [num_images])
    return {
        "changed": scored_share(value, int(counts.sum()), bounds),
        "num_pairs": int(num_pairs),
        "num_wordings": len(np.unique(texts)),
        "num_images": num_images,
    }


def _wording(question: Question) -> tuple[str, tuple[str, ...]]:
    return question.text.strip(), question.options


def _codes(values: Iterable[Any]) -> NDArray[np.int64]:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(each, len(numbers)) for each in values], dtype=np.int64)


def same_questions_sentence(found: Mapping[str, Any]) -> str:
    """`same_questions` in words."""
    score = found["changed"]
    bounds = score["interval"]
    inside = f" (95 % interval {bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else ""
    return (
        f"Where the same words are asked of two images with different right answers, its answers "
        f"differ in {score['value']:.1f} %{inside}: {score['count']} questions in "
        f"{found['num_wordings']} wordings on {found['num_images']} images; a model that "
        "never looks has 0 %."
    )
