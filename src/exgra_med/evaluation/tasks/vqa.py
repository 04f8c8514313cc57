"""Visual question answering: greedy answers to short questions, by the strict and published rules.

Beside the scores stand those of baselines that never look, and what of the test questions the
data set's own training split has.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exgra_med.data.on_demand import Picked
from exgra_med.data.records import Met, Prepared
from exgra_med.evaluation.answer_spread import same_questions_sentence, spread_sentence
from exgra_med.evaluation.answers import (
    Prediction,
    PredictionsAside,
    Question,
    QuestionsAside,
    counts_sentence,
    pair,
    pairing_sentences,
    read_predictions,
)
from exgra_med.evaluation.claims import CLAIM_RULE, claims_of_model, judge_claims
from exgra_med.evaluation.engines import CHECKPOINT
from exgra_med.evaluation.existence import (
    ABSENT_KINDS,
    EXISTENCE,
    FURTHER_EXISTENCE,
    existence_sentence,
)
from exgra_med.evaluation.measures import (
    PairedValues,
    ScorerName,
    item_values,
    measures,
    paired_summary,
    summary,
    with_functions,
)
from exgra_med.evaluation.metrics import WordIndex
from exgra_med.evaluation.published import NOT_COMPARABLE, NUMBERS, by_protocol
from exgra_med.evaluation.reading import words
from exgra_med.evaluation.results import Entry, Score
from exgra_med.evaluation.score import score_vqa
from exgra_med.evaluation.session import Session
from exgra_med.evaluation.statistics import cluster_codes
from exgra_med.evaluation.tables import (
    Block,
    Cell,
    Column,
    Row,
    Table,
    Task,
    bounded,
    cell,
    compared_columns,
    group_table,
)
from exgra_med.model.published import PROVENANCE, PublishedScore
from exgra_med.recipe.run_folder import AnsweringRecipe

# What answers well without understanding: scores that stand beside every score of a model.
#
# `majority` gives the most frequent training answer of the question's type; `text_nearest` the
# answer of the most similar training question, without any image; `same_image_nearest` the same
# among the training questions about the same image, which is what a leak between splits is worth.

BASELINE_LABELS = {
    "majority": "most frequent training answer",
    "text_nearest": "nearest training question, no image",
    "same_image_nearest": "nearest training question on the same image",
}
BLIND = ("majority", "text_nearest")
"""Baselines that see no picture, nor know which one it is."""
_WORD = re.compile(r"[^\W_]+")


def baseline_predictions(
    train: Sequence[Question], test: Sequence[Question]
) -> dict[str, Sequence[Prediction]]:
    """Answers of each baseline to the test questions.

    Similarity is the cosine between the sets of lower-case words; the first of equally similar
    training questions wins. Only training questions of the same answer type are looked at, except
    where an image has none of that type.

    Returns:
        Baseline -> predictions; `same_image_nearest` only where a test image occurs in training.
    """
    if not train:
        return {}
    most_frequent = {
        kind: Counter(each.answer for each in train if each.answer_type == kind).most_common(1)
        for kind in ("OPEN", "CLOSED")
    }
    nearest = _Nearest(train)
    train_images = {image for each in train for image in each.images}
    answers: dict[str, list[str]] = {name: [] for name in BASELINE_LABELS}
    for question in test:
        common = most_frequent[question.answer_type]
        answers["majority"].append(common[0][0] if common else "")
        text_answer, image_answer = nearest.answers(question)
        answers["text_nearest"].append(text_answer)
        answers["same_image_nearest"].append(image_answer)
    if not any(image in train_images for each in test for image in each.images):
        del answers["same_image_nearest"]
    return {
        name: PredictionsAside(Prediction(q.id, text) for q, text in zip(test, texts, strict=True))
        for name, texts in answers.items()
    }


def strongest_blind(scores: Mapping[str, float | None]) -> str | None:
    """The baseline that sees no picture and scores highest, of baseline -> score; None without one.

    >>> strongest_blind({"majority": 32.4, "text_nearest": 30.7, "same_image_nearest": 60.0})
    'majority'
    """
    known = {name: value for name in BLIND if (value := scores.get(name)) is not None}
    return max(known, key=lambda name: known[name]) if known else None


class _Nearest:
    """Training questions indexed by word."""

    def __init__(self, train: Sequence[Question]) -> None:
        self._answers = [each.answer for each in train]
        sets = [_word_set(each.text) for each in train]
        self._sizes = np.array([max(1, len(each)) for each in sets], dtype=np.float64)
        is_open = np.array([each.answer_type == "OPEN" for each in train])
        self._of_type = {
            "OPEN": (is_open, is_open.nonzero()[0]),
            "CLOSED": (~is_open, (~is_open).nonzero()[0]),
        }
        self._by_word = WordIndex(sets)
        self._by_image = WordIndex([each.images for each in train])

    def answers(self, question: Question) -> tuple[str, str]:
        """Answer of the nearest question anywhere, and among those on the same images."""
        of_type, places = self._of_type[question.answer_type]
        if not len(places):
            return "", ""
        # The squared cosine times the size of the question, in the order of the cosine. One
        # division of whole numbers keeps equal similarities equal, so that the first one wins.
        shared = self._by_word.shared(_word_set(question.text))
        similarity = np.zeros(len(self._answers)) if shared is None else shared**2 / self._sizes
        anywhere = int(places[similarity[places].argmax()])
        shared = self._by_image.shared(question.images)
        if shared is None:
            return self._answers[anywhere], self._answers[anywhere]
        same = shared.nonzero()[0]
        if of_type[same].any():
            same = same[of_type[same]]
        best = int(same[similarity[same].argmax()])
        return self._answers[anywhere], self._answers[best]


def _word_set(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


NAME = "vqa"
SCORERS: tuple[ScorerName, ...] = ("strict", "legacy")


def check(session: Session) -> None:
    """Refuse before the first question what would stop `evaluate` later; see `Session.check`."""
    session.check(NAME)


def evaluate(session: Session, claims: Sequence[PublishedScore] | None = None) -> Entry | None:
    """Answer the questions of a split, then score the answers.

    Args:
        session: who is asked what.
        claims: what the scores are held against; where absent, what is claimed of the model if it
            is a published checkpoint.

    Returns:
        The entry; nothing in all but the first process of a launch.

    Raises:
        RunError: the folder holds answers made in another way.
    """
    session.ask(NAME, f"answers to {session.dataset}/{session.split}")
    return score(session, claims) if session.is_first else None


def score(session: Session, claims: Sequence[PublishedScore] | None = None) -> Entry:
    """Score the stored answers of a session into `results.json`; see `evaluate`."""
    stored = read_predictions(session.path(NAME))
    prepared = session.prepared
    train: Sequence[Question] = ()
    if prepared is not None and "train" in prepared.splits:
        train = QuestionsAside.of(prepared.iterate("train"))
    details = score_answers(
        stored.predictions,
        QuestionsAside.of(session.records),
        train,
        num_bootstrap_samples=session.settings.num_bootstrap_samples,
        seed=session.seed,
        oddities=dict(stored.oddities),
    )
    scores = {name: part.pop("scores") for name, part in details["scorers"].items()}
    claims = _claims(session) if claims is None else claims
    if claims:
        about = {"dataset": session.dataset, "split": session.split}
        missing = details["answer_counts"]["missing"]
        details["claims"] = judge_claims(claims, scores, **about, num_unanswered=missing)
    answers = {"questions": session.relative(session.path(NAME))}
    return session.keep(session.entry(NAME, scores=scores, answers=answers, details=details))


def _claims(session: Session) -> Sequence[PublishedScore]:
    """What is claimed of the model that answers, where it is a published checkpoint."""
    recipe = session.run.recipe
    if isinstance(recipe, AnsweringRecipe) and recipe.engine != CHECKPOINT:
        return claims_of_model(None, str(recipe.model.start))
    folder = session.run.last_checkpoint
    # Of a model that was trained here nothing is claimed.
    return claims_of_model(folder) if (folder / PROVENANCE).is_file() else ()


def score_answers(
    predictions: Sequence[Prediction],
    questions: Sequence[Question],
    train: Sequence[Question] = (),
    *,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    oddities: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Score answers by every rule, beside the baselines.

    Questions of training give baselines, known answers, and seen answers.

    Returns:
        `answer_counts`, `scorers` (scorer -> result of `score_vqa`), `groups` of the strict one,
        `baselines`,
        `leaks` where there are training questions, and `num_train_questions`.
    """
    known = sorted({each.answer for each in train if each.answer_type == "OPEN"})
    scorers = {
        scorer: score_vqa(
            predictions,
            questions,
            scorer,
            candidates=list(known) or None,
            train_answers=[each.answer for each in train] or None,
            num_bootstrap_samples=num_bootstrap_samples,
            seed=seed,
            groups=scorer == "strict",
            oddities=oddities,
        )
        for scorer in SCORERS
    }
    details: dict[str, Any] = {
        "answer_counts": scorers["strict"]["answer_counts"],
        "num_train_questions": len(train),
        "groups": scorers["strict"].pop("groups"),
        "scorers": scorers,
        "baselines": score_baselines(
            train, questions, num_bootstrap_samples, seed, model=predictions
        ),
    }
    if train:
        details["leaks"] = score_clean(predictions, train, questions, num_bootstrap_samples, seed)
    return details


def folder_baselines(
    prepared: Prepared, split: str = "test", train_split: str = "train", seed: int = 0
) -> dict[str, Any]:
    """What a prepared folder's questions are worth without a model; see `score_baselines`.

    Raises:
        DataError: the folder has no such split.
    """
    train, test = (QuestionsAside.of(prepared.iterate(each)) for each in (train_split, split))
    return score_baselines(train, test, seed=seed)


def score_baselines(
    train: Sequence[Question],
    test: Sequence[Question],
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
    model: Sequence[Prediction] = (),
) -> dict[str, Any]:
    """Baseline -> `scores` by scorer, for the measures that comparisons show.

    Answers of a model add `difference`, model minus baseline over the questions that the model
    answered (strict); where some are missing, also `lowest` and `highest`, what the difference over
    all questions would be if all of those were wrong, or right.
    """
    if not train:
        return {}
    chosen = measures("compare")
    columns = with_functions(chosen)
    clusters = cluster_codes(question.cluster for question in test)
    arguments = (chosen, clusters, num_bootstrap_samples, seed)
    own = pair(model, test) if model else None
    result: dict[str, Any] = {}
    for name, predictions in baseline_predictions(train, test).items():
        pairing = pair(predictions, test)
        values = {scorer: item_values(pairing, scorer, columns) for scorer in SCORERS}
        result[name] = {
            "scores": {scorer: summary(each, *arguments) for scorer, each in values.items()}
        }
        if own is not None:
            both = PairedValues.of(own, pairing, "strict", columns)
            tables = {"difference": both.answered}
            if not both.both.all():
                tables |= {"lowest": both.lowest, "highest": both.highest}
            result[name] |= {
                key: paired_summary(table, chosen, clusters, seed) for key, table in tables.items()
            }
    return result


def find_leaks(train: Sequence[Question], test: Sequence[Question]) -> dict[str, list[bool]]:
    """For each test question: is its image in training, its text, or both together.

    By names and texts only; `exgra-med data audit` also looks for images that look alike.

    Returns:
        `image`, `question_text`, `image_and_question`, each one value a test question.
    """
    images = {image for question in train for image in question.images}
    texts = {words(question.text) for question in train}
    pairs = {(image, words(question.text)) for question in train for image in question.images}
    return {
        "image": [any(image in images for image in each.images) for each in test],
        "question_text": [words(each.text) in texts for each in test],
        "image_and_question": [
            any((image, words(each.text)) in pairs for image in each.images) for each in test
        ],
    }


def score_clean(
    predictions: Sequence[Prediction],
    train: Sequence[Question],
    test: Sequence[Question],
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Counts of leaks, and the strict score on questions whose image training has not seen.

    Returns:
        `counts` by kind of leak, `num_questions`, and `clean`: `scores` of the measures that
        comparisons show, and counts; None where no question is clean.
    """
    leaks = find_leaks(train, test)
    rows = [row for row, leaked in enumerate(leaks["image"]) if not leaked]
    clean = QuestionsAside(Picked(test, rows))
    names = Met()
    for each in clean:
        names.add(each.id)
    answered = Picked(predictions, (n for n, each in enumerate(predictions) if each.id in names))
    score = None
    if answered:
        score = score_vqa(
            answered,
            clean,
            num_bootstrap_samples=num_bootstrap_samples,
            seed=seed,
            groups=False,
            only=measures("compare"),
        )
    kept = ("scores", "num_open", "num_closed", "num_images")
    return {
        "num_questions": len(test),
        "counts": {name: sum(found) for name, found in leaks.items()},
        "clean": None if score is None else {name: score[name] for name in kept},
    }


_ODDITIES = {
    "answer_type_guessed": "Questions without an answer type (yes/no answers were taken as closed)",
    "answer_type_with_blanks": "Answer types with blanks around them",
    "pathvqa_answer_type": "Answer types of PathVQA (yes/no was taken as closed)",
    "empty_reference": "Empty reference answers",
    "reference_not_text": "Reference answers that are numbers (read as text)",
    "prediction_not_text": "Predictions that are numbers (read as text)",
    "only_first_turn_scored": "Records with several turns (the first one is scored)",
    "torn_last_line": "Incomplete last lines of the predictions (dropped)",
    "tool_got_no_answer": "Rows that say that no answer was obtained (taken as missing)",
    "answer_is_null": "Rows whose answer is null (taken as empty)",
}


def count_notes(result: dict[str, Any], *, with_order: bool = True) -> list[str]:
    """One sentence for everything that was out of order in a result of `score_vqa`.

    `with_order`: whether it matters that the answers come in another order than the questions.
    """
    pairing, oddities = result["pairing"], result["oddities"]
    counts = result.get("answer_counts")
    notes = [counts_sentence(counts)] if counts else []
    if spread := result.get("answer_spread"):
        notes.append(spread_sentence(spread))
    if found := result.get("existence"):
        notes.append(existence_sentence(found))
    if found := result.get("same_questions"):
        notes.append(same_questions_sentence(found))
    notes += pairing_sentences(pairing, result.get("answers_tool", ""), with_order)
    notes += [f"{text}: {oddities[key]}." for key, text in _ODDITIES.items() if key in oddities]
    closed = (result.get("scores") or {}).get("closed_accuracy") or {}
    dropped = result["num_closed"] - (closed.get("count") or 0)
    if result["scorer"] == "legacy-pathvqa" and dropped:
        notes.append(f"Wrong closed answers that the published script drops: {dropped}.")
    if result.get("left_out_by_published_rule"):
        skipped = result["left_out_by_published_rule"]
        notes.append(f"Questions that the published script skips: {skipped}.")
    return notes


def _notes(entry: Entry) -> list[str]:
    strict = (entry.details.get("scorers") or {}).get("strict")
    # Answers are made in order of length, so their order says nothing here.
    notes = count_notes(strict, with_order=False) if strict and "pairing" in strict else []
    if any(_is_even(score) for scores in entry.scores.values() for score in scores.values()):
        notes.append(
            "Where all images score 0 or 100 %, the interval is that of the exact binomial test "
            "over images."
        )
    return notes


def _is_even(score: Score) -> bool:
    return score.value in (0.0, 100.0) and score.interval is not None


GROUP_TITLES = {
    "modality": "By modality",
    "organ": "By organ",
    "question_type": "By question type",
    "language": "By language",
    "answer_in_training": "By whether the answer occurs in training",
}


def _baseline_block(entry: Entry) -> Block | None:
    """The model beside its baselines; nothing where none was computed."""
    baselines = entry.details.get("baselines") or {}
    if not baselines or "strict" not in entry.scores:
        return None
    chosen = measures("compare")

    def row(label: str, scores: Mapping[str, Mapping[str, Any]], difference: Any) -> Row:
        strict = scores.get("strict") or {}
        legacy = (scores.get("legacy") or {}).get(chosen[0].name)
        cells = [cell(strict.get(each.name), each.unit) for each in chosen]
        return Row(label, [*cells, cell(legacy), difference], is_first=not difference)

    rows = [row("this model", entry.scores, "")]
    for name, label in BASELINE_LABELS.items():
        if name in baselines:
            difference = (baselines[name].get("difference") or {}).get(chosen[0].name)
            rows.append(row(label, baselines[name]["scores"], cell(difference)))
    return Block(
        "Beside the baselines",
        Table([*compared_columns(chosen), Column("Model − baseline", signed=True)], rows),
        "What the same questions give without looking, or without thinking. The last column "
        "compares model and baseline over the questions that the model answered, swapping the two "
        "image by image; an interval that holds 0 means they cannot be told apart.",
        _leak_notes(entry),
    )


def _leak_notes(entry: Entry) -> list[str]:
    """What of the test set is in the training split beside it."""
    leaks = entry.details.get("leaks") or {}
    if not leaks:
        return []
    counts, total = leaks["counts"], leaks["num_questions"]
    notes = [
        f"Of {total} test questions, {counts['image']} are about an image of the data set's own "
        f"training split, {counts['question_text']} have a text that occurs there, and "
        f"{counts['image_and_question']} repeat image and text. What this model was trained on is "
        "another matter, unless it was that split."
    ]
    clean = leaks.get("clean")
    if clean and counts["image"]:
        average = cell(clean["scores"].get("average"))
        bounds = f" (95 % interval {average.bounds})" if average.bounds else ""
        notes.append(
            f"On the {clean['num_open']} + {clean['num_closed']} questions about other images the "
            f"strict average is {average.text} %{bounds}."
        )
    elif not clean:
        notes.append("No test question is about another image, so there is no clean score.")
    return notes


def _claims_block(entry: Entry) -> Block | None:
    """The scores beside what was claimed; nothing where no claim is known."""
    claims = entry.details.get("claims") or []
    if not claims:
        return None
    rows = [
        Row(
            f"{each['measure'].replace('_', ' ').capitalize()}, {each['protocol']}",
            [
                each["claimed"],
                bounded(each["measured"], each["interval"]),
                f"{each['verdict']}{': ' if each['why'] else ''}{each['why']}",
                each["source"],
            ],
            small=f"{each['dataset']}, {each['split']}",
        )
        for each in claims
    ]
    columns = [Column("Claimed"), Column("Measured")]
    columns += [Column("Verdict", is_text=True), Column("Source", is_text=True)]
    return Block("Beside what is claimed", Table(columns, rows, "Measure"), CLAIM_RULE)


def _published_block(entry: Entry) -> Block | None:
    """What others published of the data set, a protocol a line; nothing where none is known."""
    numbers = [each for each in NUMBERS if each.dataset == entry.dataset]
    if not numbers:
        return None
    rows = [
        Row(metric, [text, f"{source} ({checked})"], small=regime)
        for (metric, regime, source, checked), text in by_protocol(numbers).items()
    ]
    strict, legacy = (cell(entry.score(each, "average")).text for each in SCORERS)
    return Block(
        "Published numbers, under other protocols",
        Table([Column("Models, %", is_text=True), Column("Source", is_text=True)], rows, "Metric"),
        f"{NOT_COMPARABLE} Its averages are {strict} (strict) and {legacy} (legacy); the legacy "
        "one stands beside “published rules”, where split, denominators and fine-tuning are the "
        "same.",
        [
            "No line can be compared with another. Look at the source before citing: most are "
            "second-hand."
        ],
    )


_CLOSED_LABELS = {
    "macro_f1": "macro F1 over the answers that occur",
    "balanced_accuracy": "balanced accuracy over the answers that occur",
    "yes_true_rate": "of the questions answered by yes, right",
    "no_true_rate": "of the questions answered by no, right",
    "yes_share": "“yes” among the yes/no answers",
    "abstentions": "abstentions (wrong)",
    "several_options": "several options named (wrong)",
    "parse_failures": "no option recognised or no answer (wrong)",
}


def _closed_block(entry: Entry) -> Block | None:
    strict = (entry.details.get("scorers") or {}).get("strict") or {}
    closed = strict.get("closed_answers") or {}
    rows = [
        Row(label, [Cell(closed[name])])
        for name, label in _CLOSED_LABELS.items()
        if closed.get(name) is not None
    ]
    return Block("Closed answers", Table([Column("%")], rows)) if rows else None


def _existence_block(entry: Entry) -> Block | None:
    """Claims of findings that are there and that are not, by how the absent ones were chosen."""
    found = ((entry.details.get("scorers") or {}).get("strict") or {}).get("existence") or {}
    chosen = [*EXISTENCE, *FURTHER_EXISTENCE]
    rows = [
        Row(
            name,
            [cell(found[name]["scores"][each.name]) for each in chosen]
            + [f"{found[name]['num_present']} + {found[name]['num_absent']}"],
            is_first=name == "all",
        )
        for name in ("all", *ABSENT_KINDS)
        if name in found
    ]
    columns = [*(Column(each.label.capitalize()) for each in chosen), Column("Present + absent")]
    return (
        Block(
            "Is a finding there?",
            Table(columns, rows, "Questions"),
            "“Yes” claims it. Who does not look claims absent findings as often as present ones. "
            "Absent ones are drawn at random, are the most frequent (popular), or go with what is "
            "there (adversarial).",
        )
        if rows
        else None
    )


def _details(entry: Entry) -> list[Block]:
    closed = filter(None, [_existence_block(entry), _closed_block(entry)])
    groups = [
        Block(
            GROUP_TITLES.get(name, f"By {name}"),
            group_table({group: part["scores"] for group, part in members.items()}, measures()),
        )
        for name, members in (entry.details.get("groups") or {}).items()
    ]
    return [*closed, *groups]


TASK = Task(
    name=NAME,
    title="Visual question answering",
    about="Strict reads answers as words and options. Legacy repeats the published rules, which "
    "also find “no” in “normal”. Bars are 95 % intervals over images.",
    measures=lambda: measures("report"),
    variants={"strict": "strict", "legacy": "legacy"},
    rows="measures",
    notes=_notes,
    further=lambda entry: list(
        filter(None, (_claims_block(entry), _baseline_block(entry), _published_block(entry)))
    ),
    details=_details,
)
