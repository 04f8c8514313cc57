"""Multiple choice (OmniMedVQA): by generated answers and by likelihoods; all of it counts."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.chat_template import answer_of, has_thoughts, multiple_choice_question
from exgra_med.data.records import Record, Turn
from exgra_med.errors import DataError, RunError, ScoreError
from exgra_med.evaluation import reading
from exgra_med.evaluation.answers import (
    Prediction,
    answer_counts,
    counts_sentence,
    read_predictions,
)
from exgra_med.evaluation.engines import ScoresOptions
from exgra_med.evaluation.measures import Measure
from exgra_med.evaluation.reading import words
from exgra_med.evaluation.results import Entry
from exgra_med.evaluation.score import versions_of
from exgra_med.evaluation.session import Session
from exgra_med.evaluation.statistics import cluster_codes, rows_by, scored, scores_of
from exgra_med.evaluation.tables import Task

NAME = "multiple-choice"
Protocol = Literal["generation", "likelihood", "both"]
WITH_IMAGE, TEXT_ONLY, PRIOR = "with_image", "text_only", "prior"
NEUTRAL_QUESTION = "N/A"
"""What stands in the place of the question where options are weighed by themselves."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One question with its options."""

    id: str
    options: tuple[str, ...]
    right: int
    """Place of the right option."""
    cluster: str
    """The image, which resampling draws."""
    meta: dict[str, Any]


def choice_of(record: Record) -> Choice:
    """The multiple-choice question of a record.

    Raises:
        DataError: the record has fewer than two options, or its answer is none of them.
    """
    options = tuple(str(option) for option in record.meta.get("options") or ())
    if len(options) < 2:
        raise DataError(
            f"Record {record.id!r} has {len(options)} options.",
            "Multiple choice needs a data set with `options`, such as OmniMedVQA.",
        )
    right = right_option(options, record.answer, record.meta.get("answer_index"))
    if right is None:
        raise DataError(f"Record {record.id!r}: the answer is none of the options.")
    cluster = "\n".join(record.question_images) or f"question {record.id}"
    return Choice(record.id, options, right, cluster, record.meta)


def right_option(options: Sequence[str], answer: str, known: Any = None) -> int | None:
    """Place of the right option: where it is known, or by its text; None where there is none.

    Case and a final full stop make no difference. A `known` place that is none of the options', or
    no number, is passed over.
    """
    if isinstance(known, int | float) and known in range(len(options)):
        return int(known)
    plain = [_plain(option) for option in options]
    return plain.index(_plain(answer)) if _plain(answer) in plain else None


def asked_with_options(record: Record, rotation: int = 0) -> Record:
    """The record as it is asked: question and list of options in the original's words.

    `rotation`: by how many places the options are moved round; goes into the id.
    """
    options = rotated(choice_of(record).options, rotation)
    question = Turn(role="user", text=multiple_choice_question(record.question, options))
    meta = {key: value for key, value in record.meta.items() if key != "options"}
    return record.model_copy(
        update={
            "id": rotated_id(record.id, rotation),
            "turns": [question, *record.turns[1:]],
            "meta": meta,
        }
    )


def rotated(options: Sequence[str], rotation: int) -> tuple[str, ...]:
    """Options moved round: the first `rotation` of them go to the end."""
    shift = rotation % len(options)
    return tuple(options[shift:]) + tuple(options[:shift])


def rotated_id(name: str, rotation: int) -> str:
    """The id of a question whose options are moved round."""
    return f"{name}@{rotation}" if rotation else name


def _plain(text: str) -> str:
    return text.strip().lower().removesuffix(".").rstrip()


# Which option an answer chooses: by a sound rule, and by the similarity of the original.
#
# The original takes the option whose characters resemble the answer most (difflib), so a long wrong
# answer drifts to the longest option; its evaluation drops questions that raise an error.


def choose_strictly(answer: str, options: Sequence[str]) -> int | None:
    """The option an answer names, by its words or by its letter; None for none or several.

    Options with equal texts are one option, its first place counts. Those that differ in signs
    alone are told apart by their letters, and by their exact texts. How letters and texts are told
    apart: see `reading.read_options`.

    >>> choose_strictly("**B**", ["CT", "MRI"]), choose_strictly("E. coli", ["HIV", "E. coli"])
    (1, 1)
    """
    same = [(words(option), _plain(option)) for option in options]
    places = [same.index(each) for each in same]
    texts = [option.strip() for option in options]
    if answer.strip() and answer.strip() in texts:
        return places[texts.index(answer.strip())]
    firsts = _places(options, reading.NORMALISER_VERSION)
    named: reading.Options = {str(place): (phrase,) for phrase, place in firsts.items() if phrase}
    chosen = reading.read_options(answer, named, [str(firsts[phrase]) for phrase, _ in same])
    if len(chosen) != 1:
        return None
    phrase = same[int(chosen.pop())][0]
    alike = {place for place in places if same[place][0] == phrase}
    if len(alike) > 1:
        by_letter = reading.read_options(answer, {}, [str(place) for place in places])
        alike &= {int(place) for place in by_letter}
    return alike.pop() if len(alike) == 1 else None


_LETTER_1 = re.compile(
    r"^\W*(?:option\s+|the answer is\s+)?\(?([A-H])(?:[).:]|\s*$)", re.IGNORECASE
)


def choose_by_version_1(answer: str, options: Sequence[str]) -> int | None:
    """What `choose_strictly` chose before normaliser 2, so that older scores can be explained."""
    version = reading.OLDER_NORMALISER
    places = _places(options, version)
    said = words(answer, version)
    named = reading.chosen_options(
        said, {str(place): (phrase,) for phrase, place in places.items() if phrase}
    )
    if said in places:
        named = {str(places[said])}
    by_words = {int(place) for place in named}
    letter = _LETTER_1.match(reading.answer_turn(answer))
    by_letter = ord(letter.group(1).upper()) - ord("A") if letter else None
    if by_letter is not None and by_letter < len(options):
        first = places[words(options[by_letter], version)]
        if not by_words or by_words == {first}:
            return first
        return by_words.pop() if len(by_words) == 1 and len(said) == 1 else None
    return by_words.pop() if len(by_words) == 1 else None


def _places(options: Sequence[str], version: str) -> dict[tuple[str, ...], int]:
    """The words of each option, and the first place at which they stand."""
    places: dict[tuple[str, ...], int] = {}
    for place, option in enumerate(options):
        places.setdefault(words(option, version), place)
    return places


def similarities(answer: str, options: Sequence[str]) -> list[float]:
    """How much each option resembles the raw answer, from 0 to 1 (difflib's ratio)."""
    return [SequenceMatcher(None, option, answer).ratio() for option in options]


def choose_by_similarity(answer: str, options: Sequence[str]) -> int | None:
    """The most similar option as in the original; the first of equals, None where nothing is."""
    ratios = similarities(answer, options)
    return ratios.index(max(ratios)) if any(ratios) else None


def softmax(scores: Sequence[float]) -> list[float]:
    """Scores (log-likelihoods) as probabilities that sum to one."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def calibration(
    confidence: Sequence[float], is_right: Sequence[bool], num_bins: int = 10
) -> dict[str, Any]:
    """Calibration of the chosen option's probability.

    Args:
        confidence: probability of the option that was chosen, from 0 to 1.
        is_right: whether it was right.
        num_bins: bins of equal count for the expected calibration error.

    Returns:
        `expected_calibration_error` (mean gap between confidence and accuracy over bins, weighted),
        `brier` (mean squared gap), `area_under_risk_coverage` (mean error rate when only the most
        confident share is answered, over all shares), `bins` (confidence, accuracy, count), and
        `risk_at_coverage` for a half, three quarters and all of the questions.
    """
    if not len(confidence):
        return {"num": 0}
    confident = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(is_right, dtype=np.float64)
    order = np.argsort(confident, kind="stable")
    bins = [
        {
            "confidence": float(confident[part].mean()),
            "accuracy": float(right[part].mean()),
            "num": len(part),
        }
        for part in np.array_split(order, min(num_bins, len(order)))
    ]
    falling = order[::-1]
    risk = np.cumsum(1 - right[falling]) / np.arange(1, len(falling) + 1)
    gaps = sum(each["num"] * abs(each["confidence"] - each["accuracy"]) for each in bins)
    return {
        "num": len(confident),
        "expected_calibration_error": gaps / len(confident),
        "brier": float(np.mean((confident - right) ** 2)),
        "area_under_risk_coverage": float(risk.mean()),
        "risk_at_coverage": {
            str(share): float(risk[max(0, math.ceil(share * len(risk)) - 1)])
            for share in (0.5, 0.75, 1.0)
        },
        "bins": bins,
    }


_GROUPS = ("dataset", "modality", "question_type")
Chooser = Callable[[str, Sequence[str]], int | None]
CHOOSERS: dict[str, Chooser] = {"strict": choose_strictly, "original": choose_by_similarity}
_RULES = CHOOSERS | {"strict-1": choose_by_version_1}


def score_choices(
    predictions: Sequence[Prediction],
    choices: Sequence[Choice],
    rule: str = "strict",
    *,
    num_rotations: int = 1,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of generated answers, whose ids are as in `rotated_id`.

    The rule is `strict` (words or letter), `original` (difflib), or `strict-1`, the strict one of
    before. Thoughts are no part of an answer, but for `strict-1`. With several option orders,
    `accuracy` is the mean over orders and `all_orders_right` counts questions that are right in
    every order.

    Returns:
        JSON-ready, in percent; an answer that is missing or names no option is wrong, and counted
        in `unreadable`. `answer_counts` says which of the two, by the strict rule.

    Raises:
        ScoreError: no question, an unknown rule, or no answer that belongs to a question.
    """
    if not choices:
        raise ScoreError("There are no multiple-choice questions.")
    if rule not in _RULES:
        raise ScoreError(f"Unknown rule {rule!r}.", f"Known are {', '.join(_RULES)}.")
    given = {each.id: each for each in predictions}
    asked_for: list[tuple[Prediction | None, tuple[str, ...]]] = []
    orders = np.full((len(choices), num_rotations), -1, dtype=np.int64)
    num_missing = 0
    for row, choice in enumerate(choices):
        # A question with fewer options than rotations meets an order again; the copy is no news.
        for rotation in range(min(num_rotations, len(choice.options))):
            prediction = given.get(rotated_id(choice.id, rotation))
            num_missing += prediction is None
            shown = rotated(choice.options, rotation)
            asked_for.append((prediction, shown))
            place = None
            if prediction is not None:
                is_thinking = rule != "strict-1" and has_thoughts(prediction.text)
                text = answer_of(prediction.text) if is_thinking else prediction.text
                place = _RULES[rule](text, shown)
            if place is not None:
                orders[row, rotation] = (place + rotation) % len(choice.options)
    if num_missing == sum(min(num_rotations, len(choice.options)) for choice in choices):
        raise ScoreError("No prediction has the id of a question.", "Answer these questions first.")
    asked = np.array(
        [[r < len(choice.options) for r in range(num_rotations)] for choice in choices]
    )
    right = np.array([_same_option(choice) for choice in choices], dtype=object)
    hits = np.array(
        [[place in right[row] for place in places] for row, places in enumerate(orders.tolist())]
    )
    values = np.where(asked, hits, np.nan).astype(np.float64)
    result = _accuracy(np.nanmean(values, axis=1), choices, num_bootstrap_samples, seed)
    result["scores"]["unreadable"] = scored(100 * float(((orders < 0) & asked).sum() / asked.sum()))
    if num_rotations > 1:
        every = 100 * float(np.nanmin(values, axis=1).mean())
        result["scores"]["all_orders_right"] = scored(every, len(choices))

    were_read = (
        prediction is not None and choose_strictly(prediction.text, shown) is not None
        for prediction, shown in asked_for
    )
    versions = {"strict": versions_of("strict"), "strict-1": versions_of("strict-1")}
    return result | {
        "protocol": "generation",
        "rule": rule,
        **versions.get(rule, {}),
        "answer_counts": answer_counts((each for each, _ in asked_for), were_read),
        "num_rotations": num_rotations,
        "missing": num_missing,
    }


def score_likelihoods(
    option_scores: Mapping[str, Sequence[float]],
    choices: Sequence[Choice],
    prior: Mapping[str, Sequence[float]] | None = None,
    *,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of taking the option with the highest mean log-likelihood a token.

    A question without scores is wrong. `prior`: the same scores without image and question,
    subtracted where given, so that an option that is likely anywhere gains nothing.
    """
    hits = np.zeros(len(choices))
    missing = 0
    for row, choice in enumerate(choices):
        scores = option_scores.get(choice.id)
        if scores is None or len(scores) != len(choice.options):
            missing += 1
            continue
        adjusted = np.array(scores, dtype=np.float64)
        if prior is not None:
            adjusted -= np.array(prior[choice.id], dtype=np.float64)
        hits[row] = int(adjusted.argmax()) in _same_option(choice)
    result = _accuracy(hits, choices, num_bootstrap_samples, seed)
    return result | {
        "protocol": "likelihood",
        "prior_subtracted": prior is not None,
        "missing": missing,
    }


def guessing(choices: Sequence[Choice]) -> float:
    """Expected accuracy in percent of picking an option blindly."""
    shares = [len(_same_option(choice)) / len(choice.options) for choice in choices]
    return 100 * sum(shares) / len(shares)


def _same_option(choice: Choice) -> set[int]:
    """Places of the right option; a data set can list it twice."""
    text = choice.options[choice.right].strip().lower()
    return {i for i, option in enumerate(choice.options) if option.strip().lower() == text}


def _accuracy(
    hits: NDArray[np.float64], choices: Sequence[Choice], num_samples: int, seed: int
) -> dict[str, Any]:
    clusters = cluster_codes(choice.cluster for choice in choices)
    groups: dict[str, dict[str, Any]] = {}
    names = ("accuracy",)
    for field in _GROUPS:
        members = rows_by(str(choice.meta.get(field) or "unknown") for choice in choices)
        groups[field] = {
            name: scores_of(hits[rows, None], names, clusters[rows], num_samples, seed)
            for name, rows in sorted(members.items())
        }
    macro = float(np.mean([group["accuracy"]["value"] for group in groups["dataset"].values()]))
    by_answer = rows_by(choice.options[choice.right].strip().lower() for choice in choices)
    balanced = float(np.mean([hits[rows].mean() for rows in by_answer.values()]))
    return {
        "scores": scores_of(hits[:, None], names, clusters, num_samples, seed)
        | {"macro_accuracy": scored(macro), "balanced_accuracy": scored(100 * balanced)},
        "num_questions": len(choices),
        "guessing": guessing(choices),
        "groups": groups,
    }


def check(session: Session, protocol: Protocol = "both", num_rotations: int = 1) -> None:
    """Refuse before the first question what would stop `evaluate` later; see `Session.check`.

    Raises:
        RunError, ScoreError: as for `evaluate`.
        DataError: the answer of a question is none of its options.
    """
    records = _with_options(session, protocol)
    if protocol in ("generation", "both"):
        asked = _asked(records, num_rotations)
        session.check(f"{NAME}/generation", asked, **_about(num_rotations))
    if protocol in ("likelihood", "both") and isinstance(session.engine, ScoresOptions):
        for record in records:
            choice_of(record)
        session.check(f"{NAME}/likelihood", records, protocol="likelihood")


def _with_options(session: Session, protocol: Protocol) -> list[Record]:
    """The records that can be asked."""
    if protocol == "likelihood" and not isinstance(session.engine, ScoresOptions):
        raise RunError("This engine tells no likelihoods.", "Use --protocol generation.")
    records = [record for record in session.records if record.meta.get("options")]
    if not records:
        raise ScoreError(
            f"No record of {session.dataset}/{session.split} has options.",
            "Multiple choice needs a data set with `options`, such as OmniMedVQA.",
        )
    return records


def _asked(records: Sequence[Record], num_rotations: int) -> list[Record]:
    """Every question in its orders; none is asked in more orders than it has options."""
    return [
        asked_with_options(record, rotation)
        for record in records
        for rotation in range(min(num_rotations, len(choice_of(record).options)))
    ]


def _about(num_rotations: int) -> dict[str, Any]:
    """What decides generated answers beside engine and data."""
    return {"num_rotations": num_rotations, "protocol": "generation"}


def evaluate(session: Session, protocol: Protocol = "both", num_rotations: int = 1) -> Entry | None:
    """Answer the multiple-choice questions of a split and score them.

    Records without options (open questions) are left out and counted.

    The protocol generates an answer, compares likelihoods of the options, or both; `both` of an
    engine that tells no likelihoods is generation. Rotations are option orders when generating.

    Returns:
        The entry; nothing in all but the first process of a launch.

    Raises:
        RunError: the engine tells no likelihoods, or the folder holds answers made in another way.
        ScoreError: no record has options.
    """
    records = _with_options(session, protocol)
    if protocol in ("generation", "both"):
        asked = _asked(records, num_rotations)
        title = f"choices on {session.dataset}/{session.split}"
        session.ask(f"{NAME}/generation", title, asked, **_about(num_rotations))
    if protocol in ("likelihood", "both") and isinstance(session.engine, ScoresOptions):
        _measure_likelihoods(session, records)
    if not session.is_first:
        return None
    left_out = len(session.records) - len(records)
    return session.keep(score_stored(session, records, num_rotations, left_out))


def _measure_likelihoods(session: Session, records: Sequence[Record]) -> None:
    """Score every option with the image, without it, and without the question."""
    assert isinstance(session.engine, ScoresOptions), "asked only of engines that tell likelihoods"
    score = session.engine.option_scores

    def make(batch: Sequence[Record]) -> list[Prediction]:
        made = []
        for record in batch:
            text_only = record.model_copy(update={"image": None})
            neutral = [Turn(role="user", text=NEUTRAL_QUESTION), *record.turns[1:]]
            prior = text_only.model_copy(update={"turns": neutral})
            asked = {WITH_IMAGE: record, TEXT_ONLY: text_only, PRIOR: prior}
            scores = {kind: score(each, session.images) for kind, each in asked.items()}
            best = max(range(len(scores[WITH_IMAGE])), key=scores[WITH_IMAGE].__getitem__)
            text = choice_of(record).options[best]
            made.append(Prediction(id=record.id, text=text, option_scores=scores))
        return made

    title = f"option likelihoods on {session.dataset}/{session.split}"
    session.predict(f"{NAME}/likelihood", title, records, make, protocol="likelihood")


def score_stored(
    session: Session,
    records: Sequence[Record],
    num_rotations: int = 1,
    num_without_options: int = 0,
) -> Entry:
    """Score what is stored, by every protocol that was asked."""
    choices = [choice_of(record) for record in records]
    samples = session.settings.num_bootstrap_samples
    arguments: dict[str, Any] = {"num_bootstrap_samples": samples, "seed": session.seed}
    results: dict[str, dict[str, Any]] = {}
    details: dict[str, Any] = {"num_without_options": num_without_options}
    answers = {name: session.path(f"{NAME}/{name}") for name in ("generation", "likelihood")}
    answers = {name: path for name, path in answers.items() if path.is_file()}
    if "generation" in answers:
        predictions = read_predictions(answers["generation"]).predictions
        for rule in CHOOSERS:
            results[f"generation_{rule}"] = score_choices(
                predictions, choices, rule, num_rotations=num_rotations, **arguments
            )
        # One reading, whatever the rule that scores.
        details["answer_counts"] = results["generation_strict"]["answer_counts"]
    if "likelihood" in answers:
        stored = read_predictions(answers["likelihood"]).predictions
        by_kind = {
            kind: {each.id: each.option_scores[kind] for each in stored if each.option_scores}
            for kind in (WITH_IMAGE, TEXT_ONLY, PRIOR)
        }
        seen, prior = by_kind[WITH_IMAGE], by_kind[PRIOR]
        results["likelihood"] = score_likelihoods(seen, choices, **arguments)
        results["likelihood_prior_subtracted"] = score_likelihoods(
            seen, choices, prior, **arguments
        )
        results["text_only_baseline"] = score_likelihoods(by_kind[TEXT_ONLY], choices, **arguments)
        details["calibration"] = _calibration(seen, choices)
    scores = {name: result.pop("scores") for name, result in results.items()}
    scores["guessing"] = {"accuracy": scored(guessing(choices), len(choices))}
    details["protocols"] = results
    files = {name: session.relative(path) for name, path in answers.items()}
    return session.entry(NAME, scores=scores, answers=files, details=details)


def _calibration(scores: dict[str, list[float]], choices: Sequence[Choice]) -> dict[str, Any]:
    known = [(softmax(scores[each.id]), each.right) for each in choices if each.id in scores]
    confidence = [max(shares) for shares, _ in known]
    return calibration(confidence, [shares.index(max(shares)) == right for shares, right in known])


def _notes(entry: Entry) -> list[str]:
    """Answers that cannot be used, calibration of likelihoods, questions that have no options."""
    counts = entry.details.get("answer_counts")
    notes = [counts_sentence(counts)] if counts else []
    measured = entry.details.get("calibration") or {}
    if measured.get("num"):
        risks = measured["risk_at_coverage"]
        notes.append(
            "Stated confidence is off by "
            f"{100 * measured['expected_calibration_error']:.1f} points on average (expected "
            f"calibration error; Brier score {measured['brier']:.3f}). Answering only the more "
            f"confident half, {100 * risks['0.5']:.1f} % are wrong instead of "
            f"{100 * risks['1.0']:.1f} %."
        )
    if entry.details.get("num_without_options"):
        notes.append(
            f"{entry.details['num_without_options']} questions without options were left out."
        )
    return notes


TASK = Task(
    name=NAME,
    title="Multiple choice",
    about="Every question counts; an answer that names no option is wrong. Macro is the mean over "
    "data sets, balanced the mean over right answers.",
    measures=lambda: [
        Measure("accuracy", "accuracy", "all"),
        Measure("macro_accuracy", "macro", "all"),
        Measure("balanced_accuracy", "balanced", "all"),
        Measure("all_orders_right", "right in all orders", "all"),
        Measure("unreadable", "unreadable", "all", higher_is_better=False),
    ],
    variants={
        "generation_strict": "generated, option read by words or letter",
        "generation_original": "generated, most similar option (original)",
        "likelihood": "most likely option",
        "likelihood_prior_subtracted": "most likely option, prior subtracted",
        "text_only_baseline": "most likely option without the image (baseline)",
        "guessing": "guessing",
    },
    rows="variants",
    notes=_notes,
)
