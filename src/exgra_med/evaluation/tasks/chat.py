"""The visual chatbot: answers to open questions, graded by a language model in both orders.

answer        who is asked -> answers in the run folder
judge_run     stored answers -> gradings (judge.py) -> relative score and win rate
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.chat_template import answer_of
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import (
    MANIFEST,
    Record,
    file_sha256,
    numbered_images,
    open_prepared,
)
from exgra_med.data.sources.chat_benchmark import read_questions
from exgra_med.data.sources.source import Dropped
from exgra_med.errors import AnswerError, DataError, RunError, ScoreError
from exgra_med.evaluation.answers import (
    QuestionsAside,
    answer_counts,
    counts_sentence,
    pair,
    read_predictions,
)
from exgra_med.evaluation.engines import CHECKPOINT
from exgra_med.evaluation.measures import Measure
from exgra_med.evaluation.results import Entry, put_result, read_results
from exgra_med.evaluation.session import (
    Session,
    answers_path,
    open_engine,
    open_to_answer,
    stored_answers,
)
from exgra_med.evaluation.statistics import cluster_codes, interval, rows_by, scores_of
from exgra_med.evaluation.tables import Block, Task, group_table
from exgra_med.evaluation.tasks.judge import (
    ORDERS,
    PROMPT,
    ChatQuestion,
    Grades,
    Judgement,
    estimate_judging,
    judge_answers,
    reply_counts,
    write_transcripts,
)
from exgra_med.files import LOCK, sole_writer
from exgra_med.llm.prompt import faults_text, load_prompt
from exgra_med.llm.request import adapted_sentence
from exgra_med.llm.service import ServiceSettings
from exgra_med.recipe.schema import DataSettings
from exgra_med.terminal import Reporter

NAME = "chat"
MAX_NEW_TOKENS = 1024
"""Longest answer in tokens; as the published evaluation has it."""
_MAX_PIXELS = DataSettings(folder="").max_pixels
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChatSet:
    """Questions with their records and images."""

    name: str
    records: list[Record]
    images: ImageFolder
    fingerprint: str
    num_without_reference: int
    split: str
    place: str
    """Folder or file."""

    @property
    def questions(self) -> list[ChatQuestion]:
        """What is asked and graded."""
        return [chat_question(record) for record in self.records]


def open_chat_set(data: str, split: str = "test", images: Path | None = None) -> ChatSet:
    """Open a prepared folder, or a JSON Lines file in LLaVA-Med's format.

    The images of a file lie in `images`, or else in `images/` beside the file, or in its folder.

    Raises:
        DataError: it is neither, or holds no question.
    """
    path = Path(data)
    if path.is_file():
        dropped: list[Dropped] = []
        records, name, fingerprint = read_questions(path, dropped), path.stem, file_sha256(path)
        beside = path.parent / "images"
        root = images or (beside if beside.is_dir() else path.parent)
        within = None if images else path.parent
        folder, num_dropped = ImageFolder(root, _MAX_PIXELS, within=within), len(dropped)
    else:
        prepared = open_prepared(data)
        name, num_dropped = (
            prepared.manifest["dataset"],
            len(prepared.manifest.get("dropped") or ()),
        )
        records, fingerprint = prepared.records(split), prepared.fingerprint
        folder = prepared.image_folder(_MAX_PIXELS)
    found = ChatSet(name, records, folder, fingerprint, num_dropped, split, data)
    if not found.records:
        raise DataError(
            f"{data}: there is no question.", f"Give a file, or a folder with {MANIFEST}."
        )
    ids = [record.id for record in found.records]
    if len(set(ids)) < len(ids):
        raise DataError(f"{data}: question ids repeat.", "Every question needs its own id.")
    return found


def chat_question(record: Record) -> ChatQuestion:
    """The question of a record; what its `meta` does not tell is left empty."""
    meta: dict[str, Any] = record.meta
    return ChatQuestion(
        id=record.id,
        published_id=str(meta.get("published_id", record.id)),
        text=numbered_images(record.question),
        reference=record.answer,
        caption=str(meta.get("caption") or ""),
        # The benchmark writes an absent mention as an empty list.
        mentions=str(meta.get("mention") or "").removeprefix("[]"),
        question_type=str(meta.get("question_type") or "unknown"),
        domain=str(meta.get("domain") or "unknown"),
        cluster="\n".join(record.question_images) or f"question {record.id}",
    )


# The win rate at equal length: what is left when a judge's liking for long answers is taken out.
#
# As AlpacaEval 2 does (Dubois et al. 2024, "Length-Controlled AlpacaEval"), the win probability is
# modelled as `sigmoid(a + b * tanh(d / s))` with `d` the difference in characters and `s` its
# standard deviation over the questions; the controlled rate is `sigmoid(a)`.

_RIDGE = 0.05
"""Keeps the fit finite where one side always wins; a hundredth of a dozen questions."""
_NUM_STEPS = 30


def length_controlled(
    wins: Values,
    differences: Sequence[float],
    clusters: NDArray[np.int64],
    num_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The length-controlled win rate with an interval.

    Args:
        wins: (questions,) 1 for a win, 0 for a loss, between for ties.
        differences: (questions,) characters of the answer minus those of the reference.
        clusters: (questions,) image codes.
        num_samples: resamples of images.
        seed: of the resamples.

    Returns:
        `win_rate` and `interval` in percent; `length_effect`, the `b` above; `extrapolated`: every
        answer is shorter, or every one longer, than its reference, so equal length was never seen.
    """
    if not len(wins):
        return {"win_rate": None, "interval": None, "length_effect": None, "extrapolated": False}
    gaps = np.asarray(differences, dtype=np.float64)
    spread = gaps.std()
    scaled = np.tanh(gaps / spread) if spread else np.zeros_like(gaps)
    fitted = _fit(scaled, wins, np.ones((1, len(wins))))[0]
    _, codes = np.unique(clusters, return_inverse=True)
    num_clusters = int(codes.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, num_clusters, (num_samples, num_clusters))
    counts = np.stack([np.bincount(row, minlength=num_clusters) for row in drawn])
    rates = 100 * _sigmoid(_fit(scaled, wins, counts[:, codes].astype(np.float64))[:, 0])
    bounds = interval(rates, num_clusters)
    return {
        "win_rate": float(100 * _sigmoid(fitted[0])),
        "interval": list(bounds) if bounds else None,
        "length_effect": float(fitted[1]),
        "extrapolated": bool((gaps > 0).all() or (gaps < 0).all()),
    }


def _fit(x: Values, y: Values, weights: Values) -> Values:
    """Ridge logistic regression by Newton steps, one fit a row of weights; (fits, 2) numbers."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(_NUM_STEPS):
        p = _sigmoid(a[:, None] + b[:, None] * x)
        error = weights * (y - p)
        curve = weights * p * (1 - p)
        slope_a, slope_b = error.sum(1) - _RIDGE * a, error @ x - _RIDGE * b
        aa, ab, bb = curve.sum(1) + _RIDGE, curve @ x, curve @ (x * x) + _RIDGE
        determinant = aa * bb - ab * ab
        # A full Newton step can overshoot where all answers are on one side.
        a = a + np.clip((bb * slope_a - ab * slope_b) / determinant, -2, 2)
        b = b + np.clip((aa * slope_b - ab * slope_a) / determinant, -2, 2)
    return np.stack([a, b], axis=1)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


MEASURES = ("relative_score", "relative_score_published_order", "win_rate")


def score_judgements(
    questions: Sequence[ChatQuestion],
    answers: Mapping[str, str],
    judgements: Sequence[Judgement],
    *,
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the answers of a model.

    The relative score is LLaVA-Med's: the mean over questions of the model's grade divided by the
    reference's, times 100; here over both orders, and `relative_score_published_order` with the
    reference first only, as published. A win counts 1, a tie 1/2, each order half.

    Returns:
        JSON-ready, in percent. A question without an answer scores 0 and loses; one that the judge
        did not grade in both orders is left out of the means and counted in `num_unjudged`.

    Raises:
        ScoreError: nothing was graded and nothing was missing.
    """
    grades = {(each.id, each.order): each.grades for each in judgements}
    values = np.full((len(questions), len(MEASURES)), np.nan)
    both: dict[int, tuple[Grades, Grades]] = {}
    num_no_answer = 0
    for row, question in enumerate(questions):
        if not answers.get(question.id, "").strip():
            values[row] = 0.0
            num_no_answer += 1
            continue
        first, second = (grades.get((question.id, order)) for order in ORDERS)
        if first is not None and second is not None:
            both[row] = first, second
            ratios = [each.model / each.reference for each in (first, second)]
            wins = [(_verdict(each) + 1) / 2 for each in (first, second)]
            values[row] = [np.mean(ratios), ratios[0], np.mean(wins)]
    if not both and not num_no_answer:
        raise ScoreError("The judge graded no answer.", "Its replies are in the transcripts.")
    clusters = cluster_codes(question.cluster for question in questions)

    def measure(rows: NDArray[np.int64]) -> dict[str, Any]:
        arguments = (values[rows], MEASURES, clusters[rows], num_bootstrap_samples, seed)
        return scores_of(*arguments, ratios=MEASURES[:2])

    def grouped(names: Iterable[str]) -> dict[str, Any]:
        return {name: measure(np.array(rows)) for name, rows in sorted(rows_by(names).items())}

    return {
        "scores": measure(np.arange(len(questions))),
        "num_questions": len(questions),
        "num_images": len(np.unique(clusters)),
        "num_no_answer": num_no_answer,
        "num_unjudged": len(questions) - len(both) - num_no_answer,
        "unjudged": {
            order: sum(each.grades is None for each in judgements if each.order == order)
            for order in ORDERS
        },
        "groups": {
            "question type": grouped(question.question_type for question in questions),
            "domain": grouped(question.domain for question in questions),
        },
        "order": _order_effects(list(both.values())),
        "length": _length(
            questions, answers, values, sorted(both), clusters, num_bootstrap_samples, seed
        ),
        "bootstrap": {"samples": num_bootstrap_samples, "seed": seed},
    }


def _order_effects(both: Sequence[tuple[Grades, Grades]]) -> dict[str, float | None]:
    """How much of the judgements is the order, in percent; `first_place_bonus` in grade points."""
    if not both:
        return dict.fromkeys(("flip_rate", "reversal_rate", "first_place_bonus"), None)
    verdicts = [(_verdict(first), _verdict(second)) for first, second in both]
    flips = [first != second for first, second in verdicts]
    reversals = [first * second < 0 for first, second in verdicts]
    bonus = [
        (first.reference - second.reference + second.model - first.model) / 2
        for first, second in both
    ]
    return {
        "flip_rate": 100 * float(np.mean(flips)),
        "reversal_rate": 100 * float(np.mean(reversals)),
        "first_place_bonus": float(np.mean(bonus)),
    }


def _length(
    questions: Sequence[ChatQuestion],
    answers: Mapping[str, str],
    values: Values,
    rows: list[int],
    clusters: NDArray[np.int64],
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    model = [len(answers[questions[row].id].strip()) for row in rows]
    reference = [len(questions[row].reference.strip()) for row in rows]
    controlled = length_controlled(
        values[rows, MEASURES.index("win_rate")],
        [a - b for a, b in zip(model, reference, strict=True)],
        clusters[rows],
        num_samples,
        seed,
    )
    return controlled | {
        "mean_characters": float(np.mean(model)) if model else None,
        "mean_reference_characters": float(np.mean(reference)) if reference else None,
    }


def _verdict(grades: Grades) -> int:
    return int(np.sign(grades.model - grades.reference))


def answer(
    source: str | Path,
    chat: ChatSet,
    reporter: Reporter,
    *,
    engine: str | None = None,
    out: Path | None = None,
    template: str | None = None,
    service: ServiceSettings | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Session:
    """Answer chat questions; resumable. Who answers is as in `open_session`.

    Raises:
        RunError: the run is not finished, or holds answers made in another way.
    """
    run = open_to_answer(
        source,
        engine=engine or CHECKPOINT,
        data=chat.place,
        split=chat.split,
        out=out,
        template=template,
        service=service,
    )
    session = Session(
        run=run,
        engine=open_engine(run, service, max_new_tokens),
        dataset=chat.name,
        split=chat.split,
        records=chat.records,
        images=chat.images,
        fingerprint=chat.fingerprint,
        data_folder=chat.place,
        reporter=reporter,
    )
    session.ask(NAME, f"answers to {chat.name}")
    return session


def count_stored(session: Session) -> dict[str, int]:
    """How many stored answers of a session can be used; also kept in `results.json`."""
    _, _, counts = _counted(session.path(NAME), session.records)
    entry = session.entry(
        NAME,
        scores={},
        answers={"questions": session.relative(session.path(NAME))},
        details={"answer_counts": counts},
    )
    session.keep(entry)
    return counts


def require_graded(replies: Mapping[str, int]) -> None:
    """Refuse to call a judgement done where not one grading can be used.

    Raises:
        AnswerError: the judge was asked, and graded nothing.
    """
    if replies["asked"] and not replies["graded"]:
        raise AnswerError(
            f"The judge graded nothing; its {replies['asked']} replies: {faults_text(replies)}.",
            "Its replies are in the transcripts; --max-new-tokens lets it write more.",
        )


def judge_run(
    source: Path, chat: ChatSet, settings: ServiceSettings, reporter: Reporter, seed: int = 0
) -> dict[str, Any]:
    """Have stored answers graded and score them.

    A run folder receives the scores; beside a file of answers the transcripts are put.

    Returns:
        What this judge found: `scores`, and what else `results.json` keeps of a judge.

    Raises:
        RunError: the run has no answers yet.
        DamagedFileError: they are not those that were counted when they were given.
        ServiceError: the judge cannot be used.
        AnswerError: the judge graded nothing; what it wrote is in the transcripts.
    """
    file = _answer_file(source, chat)
    with sole_writer(source / LOCK, source) if source.is_dir() else nullcontext():
        return _judge_file(source, file, chat, settings, reporter, seed)


def _judge_file(
    source: Path,
    file: Path,
    chat: ChatSet,
    settings: ServiceSettings,
    reporter: Reporter,
    seed: int,
) -> dict[str, Any]:
    answers, pairing, counts = chat_answers(file, chat)
    judgements, usage = judge_answers(chat.questions, answers, settings, reporter)
    judge = settings.served_name(settings.endpoint())
    transcripts = file.with_name(f"{file.stem}.judged-by-{_slug(judge)}.jsonl")
    write_transcripts(transcripts, judgements)
    if len(judgements) == len(ORDERS) * len(chat.records):
        # Every question was to be graded, so there is no score without a grading.
        require_graded(reply_counts(judgements))
    found = score_judgements(chat.questions, answers, judgements, seed=seed)
    found |= {
        "judge": judge,
        "pairing": pairing,
        "answer_counts": counts,
        "reply_counts": reply_counts(judgements),
        "prompt": load_prompt(PROMPT).label,
        "sampling": settings.sampling.given(),
        "date": datetime.now(UTC).date().isoformat(),
        "data_fingerprint": chat.fingerprint,
        "num_without_reference": chat.num_without_reference,
        "transcripts": transcripts.name,
        "usage": vars(usage).copy(),
    }
    if source.is_dir():
        details = {name: value for name, value in found.items() if name != "scores"}
        entry = Entry(
            dataset=chat.name,
            split=chat.split,
            task=NAME,
            engine={"name": "stored answers"},
            scores={judge: found["scores"]},
            answers={"questions": file.relative_to(source).as_posix()},
            data_folder=chat.place,
            data_fingerprint=chat.fingerprint,
            details={
                "answer_counts": counts,
                "judges": {judge: details},
            },
        )
        put_result(source, entry)
    return found


def estimate_run(source: Path, chat: ChatSet, settings: ServiceSettings) -> dict[str, Any]:
    """What `judge_run` would ask and cost, without any connection."""
    answers, *_ = chat_answers(_answer_file(source, chat), chat)
    return estimate_judging(chat.questions, answers, settings)


def chat_answers(
    path: Path, chat: ChatSet
) -> tuple[dict[str, str], dict[str, int], dict[str, int]]:
    """Answers without thoughts by question id, what did not fit, and how many can be used.

    The file is ours or the original's.

    Raises:
        DataError: the file cannot be read.
        ScoreError: no answer belongs to a question.
    """
    return _counted(path, chat.records)


def _counted(
    path: Path, records: Sequence[Record]
) -> tuple[dict[str, str], dict[str, int], dict[str, int]]:
    questions = QuestionsAside.of(records)
    pairing = pair(read_predictions(path).predictions, questions)
    answers = {
        question.id: answer_of(text)
        for question, text in zip(questions, pairing.answers, strict=True)
        if text is not None
    }
    return answers, pairing.counts, answer_counts(pairing.predictions)


def _answer_file(source: Path, chat: ChatSet) -> Path:
    file = source if source.is_file() else answers_path(source, NAME, chat.name, chat.split)
    if not file.is_file():
        raise RunError(
            f"{source} has no answers to {chat.name} yet: there is no {file}.",
            "Run `exgra-med evaluate chat` first.",
        )
    if source.is_dir():
        for entry in read_results(source).find(NAME, chat.name, chat.split):
            stored_answers(source, entry)
    return file


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:80] or "model"


def judged_sentences(found: dict[str, Any]) -> list[str]:
    """What a judge found, what its habits are worth, what was left out, what it cost."""
    scores = found["scores"]
    relative = scores["relative_score"]
    sentences = [
        f"{found['judge']} graded {relative['count']} answers on {found['num_images']} images.",
        f"Relative score: {_number(relative['value'])} % of the reference's "
        f"(95 %: {_bounds(relative)}); with the reference always first, as "
        f"published, {_number(scores['relative_score_published_order']['value'])} %.",
    ]
    for title, groups in found["groups"].items():
        values = "; ".join(
            f"{name} {_number(each['relative_score']['value'])} "
            f"({_bounds(each['relative_score'])}, n = {each['relative_score']['count']})"
            for name, each in groups.items()
        )
        sentences.append(f"Relative score by {title}: {values}.")
    return sentences + habit_sentences(found, scores["win_rate"])


def habit_sentences(found: dict[str, Any], win_rate: dict[str, Any]) -> list[str]:
    """What length and order are worth to a judge, what was left out, and what it cost."""
    length, order = found["length"], found["order"]
    counts, replies = found.get("answer_counts"), found.get("reply_counts")
    sentences = [counts_sentence(counts)] if counts else []
    if replies:
        sentences.append(
            f"{replies['graded']} of {replies['asked']} gradings could be used; the others: "
            f"{faults_text(replies)}."
        )
    sentences += [
        f"Win rate against the reference: {_number(win_rate['value'])} % "
        f"(95 %: {_bounds(win_rate)}); at equal length {_number(length['win_rate'])} % "
        f"({_bounds(length)}), answers have {_number(length['mean_characters'])} characters on "
        f"average and references {_number(length['mean_reference_characters'])}."
    ]
    if length["extrapolated"]:
        sentences.append(
            "Every answer lies on the same side of its reference in length, so the win rate at "
            "equal length is extrapolated and says little."
        )
    if order["flip_rate"] is not None:
        sentences.append(
            f"Exchanging the two answers changes {order['flip_rate']:.1f} % of the verdicts and "
            f"turns {order['reversal_rate']:.1f} % round; the first place is worth "
            f"{order['first_place_bonus']:+.2f} grade points."
        )
    left_out = [
        (found["num_no_answer"], "have no answer and lose"),
        (found["num_unjudged"], "could not be graded and are left out"),
        (found["num_without_reference"], "have no reference and were not asked"),
    ]
    sentences += [f"{number} questions {what}." for number, what in left_out if number]
    usage = found["usage"]
    # Absent where the judge was asked before this was stored.
    adapted = adapted_sentence(usage.get("adapted") or {}, found["judge"])
    sentences += [adapted] if adapted else []
    cost = "unknown" if usage["cost"] is None else f"${usage['cost']:.4f}"
    sentences.append(
        f"{usage['requests']} requests, {usage['from_cache']} from the cache, "
        f"{usage['prompt_tokens'] + usage['completion_tokens']:,} tokens, cost {cost}; "
        f"every reply is in {found['transcripts']}."
    )
    return sentences


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _bounds(score: dict[str, Any]) -> str:
    bounds = score["interval"]
    return "–" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def _notes(entry: Entry) -> list[str]:
    counts = entry.details.get("answer_counts")
    told = [counts_sentence(counts)] if counts and not entry.scores else []
    return told + [
        f"{judge}, {found['date']}: {sentence}"
        for judge, found in (entry.details.get("judges") or {}).items()
        for sentence in habit_sentences(found, dict(entry.score(judge, "win_rate")))
    ]


def _details(entry: Entry) -> list[Block]:
    return [
        Block(f"By {title}, {judge}", group_table(groups, TASK.measures()))
        for judge, found in (entry.details.get("judges") or {}).items()
        for title, groups in (found.get("groups") or {}).items()
    ]


TASK = Task(
    name=NAME,
    title="Chat",
    about="Answers graded by a language model that reads the caption, not the image, in both "
    "orders. The relative score is the grade divided by that of the reference answer.",
    measures=lambda: [
        Measure("relative_score", "relative score", "all"),
        Measure("relative_score_published_order", "reference first", "all"),
        Measure("win_rate", "win rate", "all"),
    ],
    variants={},
    rows="variants",
    notes=_notes,
    details=_details,
)
