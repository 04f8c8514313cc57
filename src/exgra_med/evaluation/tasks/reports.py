"""Reports: a model writes what a picture, or the pictures of a study, show; scored by a reference.

    overlap       BLEU and ROUGE-L: how many words, in what order, are those of the reference
    findings      what both state, and what one denies that the other states (`findings.py`)
    RadEval       trained labelers and graphs of entities (`radeval.py`), where they are asked for

A record is a report where its `meta` says `"task": "report"`; its answer is the reference.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.data.chat_template import answer_of
from exgra_med.data.records import REPORT, Record, file_sha256
from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.answers import (
    Pairing,
    Prediction,
    Question,
    QuestionsAside,
    answer_counts,
    counts_sentence,
    pair,
    read_predictions,
    read_reference,
)
from exgra_med.evaluation.findings import FINDINGS, VERSION, findings_of
from exgra_med.evaluation.measures import Measure, Scores
from exgra_med.evaluation.radeval import (
    check_names,
    radeval_measures,
    radeval_values,
    radeval_version,
)
from exgra_med.evaluation.results import Entry, read_results
from exgra_med.evaluation.session import Session
from exgra_med.evaluation.statistics import (
    cluster_bootstrap,
    cluster_codes,
    interval,
    mean_interval,
    scored,
)
from exgra_med.evaluation.tables import Block, Column, Row, Table, Task, cell

NAME = "reports"
VARIANT = "score"
MAX_NEW_TOKENS = 512
"""Longest report in tokens; nearly all chest reports have fewer than 300."""
Values = NDArray[np.float64]

# Words are those of the package rouge-score (lower case, letters and digits), with letters of every
# script; a sign of Chinese or Japanese is a word. Headings are no words of a report.
_HEADING = re.compile(r"\b(?:findings?|impressions?)\s*:", re.IGNORECASE)
_SIGNS = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_SIGNS}]|[^\W_{_SIGNS}]+")
_ORDERS = (1, 2, 3, 4)


def report_words(text: str) -> list[str]:
    """The words of a report by which it is compared.

    >>> report_words("FINDINGS: No 1.5-cm nodule.")
    ['no', '1', '5', 'cm', 'nodule']
    """
    return _WORD.findall(_HEADING.sub(" ", text).lower())


def rouge_l(reference: Sequence[str], report: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), each side counting alike.

    >>> rouge_l("no effusion or pneumothorax".split(), "no pneumothorax".split())
    0.6666666666666666
    """
    if not reference or not report:
        return 0.0
    # One bit a word of the reference (Hyyrö 2004): as many steps as the report has words.
    places: dict[str, int] = {}
    for place, word in enumerate(reference):
        places[word] = places.get(word, 0) | 1 << place
    every = open_places = (1 << len(reference)) - 1
    for word in report:
        met = open_places & places.get(word, 0)
        open_places = ((open_places + met) | (open_places - met)) & every
    common = len(reference) - open_places.bit_count()
    return 2 * common / (len(reference) + len(report))


def bleu_counts(reference: Sequence[str], report: Sequence[str]) -> list[float]:
    """What BLEU is made of: words of the report, of the reference, then for 1- to 4-grams how many
    are in the reference (each as often as there, at most) and how many there are."""
    counts: list[float] = [len(report), len(reference)]
    for order in _ORDERS:
        said, known = (
            Counter(zip(*(words[start:] for start in range(order)), strict=False))
            for words in (report, reference)
        )
        counts += [(said & known).total(), said.total()]
    return counts


def bleu_of(counts: Values, order: int) -> Values:
    """BLEU with equal weights for 1- to `order`-grams (Papineni et al. 2002), without smoothing.

    Args:
        counts: (..., 10) of `bleu_counts`: of one report, or sums (or means) over many, which give
            the BLEU of a corpus.
    """
    said, known = counts[..., 0], counts[..., 1]
    hits, all_ = counts[..., 2 : 2 + 2 * order : 2], counts[..., 3 : 3 + 2 * order : 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(np.where(all_ > 0, hits / all_, 0.0)).mean(axis=-1))
        brevity = np.exp(np.minimum(0.0, 1 - known / said))
    return np.where(said > 0, precision * brevity, 0.0)


def compare_findings(reference: str, report: str) -> dict[str, str]:
    """Finding -> `hit`, `added`, `missed`, `opposite`, `same`, or `open`, of those that one of the
    two speaks of.

    `opposite` is stated by one and denied by the other, `same` is denied by both. An uncertain
    finding of the reference is `open` and counts for nothing; one of the report counts as stated,
    so that hedging is no way out, but contradicts nothing.
    """
    known, said = findings_of(reference), findings_of(report)
    found = {}
    for name in FINDINGS:
        before, now = known.get(name), said.get(name)
        if before is None and now is None:
            continue
        if before == "uncertain":
            found[name] = "open"
        elif {before, now} == {"present", "absent"}:
            found[name] = "opposite"
        elif before == "present":
            found[name] = "missed" if now is None else "hit"
        elif now in ("present", "uncertain"):
            found[name] = "added"
        elif before == now:
            found[name] = "same"
    return found


def _finding_counts(reference: str, report: str) -> list[float]:
    """Findings of one report: hit, added, missed, opposite, decided (stated or denied) by both."""
    found, known = compare_findings(reference, report), findings_of(reference)
    opposite = [name for name, kind in found.items() if kind == "opposite"]
    counts = Counter(found.values())
    # What is stated and denied is missed, or added, besides.
    missed = sum(known[name] == "present" for name in opposite)
    said = findings_of(report)
    sure = sum(kind == "hit" and said[name] == "present" for name, kind in found.items())
    return [
        counts["hit"],
        counts["added"] + len(opposite) - missed,
        counts["missed"] + missed,
        len(opposite),
        sure + counts["same"] + len(opposite),
    ]


_SHARES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "finding_f1": ((2, 0, 0, 0, 0), (2, 1, 1, 0, 0)),
    "finding_precision": ((1, 0, 0, 0, 0), (1, 1, 0, 0, 0)),
    "finding_recall": ((1, 0, 0, 0, 0), (1, 0, 1, 0, 0)),
    "contradictions": ((0, 0, 0, 1, 0), (0, 0, 0, 0, 1)),
}
"""Measure -> how often each of `_finding_counts` is taken above and below the line."""


def _share(counts: Values, name: str) -> Values:
    """A share of (..., 5) counts; NaN where there is nothing to count."""
    above, below = (counts @ np.array(each) for each in _SHARES[name])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def report_measures() -> list[Measure]:
    """What is measured of reports, in the order of the table; the aggregation is in the label."""
    bleu = [(f"BLEU-{order}", order) for order in _ORDERS]
    return [
        Measure("finding_f1", "findings, F1, corpus", "all"),
        Measure("finding_precision", "findings, precision, corpus", "all"),
        Measure("finding_recall", "findings, recall, corpus", "all"),
        Measure(
            "contradictions",
            "findings contradicted (lower is better), corpus",
            "all",
            higher_is_better=False,
        ),
        *radeval_measures(),
        Measure("mean_rouge_l", "ROUGE-L, mean of reports", "all"),
        *(Measure(f"mean_bleu_{n}", f"{label}, mean of reports", "all") for label, n in bleu),
        *(Measure(f"corpus_bleu_{n}", f"{label}, corpus", "all") for label, n in bleu),
    ]


def report_cluster(question: Question) -> str:
    """What resampling draws: the pictures, and what `meta.group` says, such as the patient."""
    group = question.meta.get("group")
    return question.cluster if group is None else f"{question.cluster}\ngroup {group}"


def _values(references: Sequence[str], reports: Sequence[str]) -> Values:
    """(reports, 20): ROUGE-L, BLEU-1 to BLEU-4, what BLEU is made of, counts of findings."""
    rows = []
    for reference, report in zip(references, reports, strict=True):
        known, said = report_words(reference), report_words(report)
        counts = bleu_counts(known, said)
        single = [float(bleu_of(np.array(counts), order)) for order in _ORDERS]
        rows.append([rouge_l(known, said), *single, *counts, *_finding_counts(reference, report)])
    return np.array(rows)


_SINGLE = ("mean_rouge_l", *(f"mean_bleu_{order}" for order in _ORDERS))
_OF_BLEU = slice(len(_SINGLE), len(_SINGLE) + 10)
_OF_FINDINGS = slice(_OF_BLEU.stop, _OF_BLEU.stop + 5)


def score_texts(
    references: Sequence[str],
    reports: Sequence[str],
    clusters: NDArray[np.int64],
    *,
    radeval: Sequence[str] = (),
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> Scores:
    """Measure -> value in percent, 95 % interval over clusters and count of reports.

    An empty report is worth 0 in every measure; it contradicts nothing, and misses what is there.
    `count` of the shares of findings is the number of
    reports that have something to count.

    Args:
        references: what was expected.
        reports: what was written; empty where there is nothing.
        clusters: (reports,) codes of the pictures and patients.
        radeval: measures of RadEval that are wanted.
        num_bootstrap_samples: resamples of clusters; 0 for no intervals.
        seed: of the resamples.

    Raises:
        ScoreError: RadEval fails.
    """
    foreign = radeval_values(radeval, references, reports) if radeval else {}
    single = {name: each for name, each in foreign.items() if isinstance(each, np.ndarray)}
    own = _values(references, reports)
    table = np.column_stack([own, *single.values()])
    samples = cluster_bootstrap(table, clusters, num_bootstrap_samples, seed)
    num, num_clusters = len(table), int(clusters.max()) + 1
    scores: Scores = {}

    def keep(name: str, value: float, count: int, bounds: tuple[float, float] | None) -> None:
        if not np.isfinite(value):
            scores[name] = scored(None, count)
            return
        bounds = None if bounds is None else (100 * bounds[0], 100 * bounds[1])
        scores[name] = scored(100 * value, count, bounds)

    for name in _SHARES:
        counts = own[:, _OF_FINDINGS]
        rows = ~np.isnan(_share(counts, name))
        bounds = _spread(_share(samples[:, _OF_FINDINGS], name), len(np.unique(clusters[rows])))
        keep(name, float(_share(counts.sum(axis=0), name)), int(rows.sum()), bounds)
    for order in _ORDERS:
        value = float(bleu_of(own[:, _OF_BLEU].sum(axis=0), order))
        bounds = _spread(bleu_of(samples[:, _OF_BLEU], order), num_clusters)
        keep(f"corpus_bleu_{order}", value, num, bounds)
    columns = dict(zip(_SINGLE, range(len(_SINGLE)), strict=True))
    columns |= {name: own.shape[1] + place for place, name in enumerate(single)}
    for name, column in columns.items():
        value = float(table[:, column].mean())
        bounds = mean_interval(samples[:, [column]], [value], [num_clusters])
        keep(name, value, num, bounds)
    for name, value in foreign.items():
        if not isinstance(value, np.ndarray):
            keep(name, value, num, None)
    return {each.name: scores[each.name] for each in report_measures() if each.name in scores}


def _spread(samples: Values, num_clusters: int) -> tuple[float, float] | None:
    """The interval of a share of sums; none where all resamples are alike, which bound nothing."""
    bounds = interval(samples, num_clusters)
    return None if bounds is None or bounds[1] - bounds[0] < 1e-12 else bounds


def score_reports(
    predictions: Sequence[Prediction],
    questions: Sequence[Question],
    train: Sequence[str] = (),
    *,
    radeval: Sequence[str] = (),
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score reports beside those that look at no picture.

    Args:
        predictions: what was written, in any order.
        questions: what was asked, with the reference reports.
        train: reports of the training split, for the baseline that always writes the same.
        radeval: measures of RadEval that are wanted.
        num_bootstrap_samples: resamples of pictures (and patients) behind each interval.
        seed: of the resamples and the baselines.

    Returns:
        JSON-ready: `scores`, `answer_counts`, `pairing`, `num_images`, `findings` (each with how
        many reports state or deny it), `baselines`, versions.

    Raises:
        ScoreError: predictions and questions do not fit, or RadEval fails.
    """
    pairing = pair(predictions, questions)
    references = [question.answer for question in questions]
    reports = report_texts(pairing)
    clusters = cluster_codes(report_cluster(each) for each in questions)
    measure = partial(
        score_texts,
        references,
        clusters=clusters,
        num_bootstrap_samples=num_bootstrap_samples,
        seed=seed,
    )
    baselines = baseline_reports(references, clusters, train, seed)
    return {
        "scores": measure(reports, radeval=radeval),
        "answer_counts": answer_counts(pairing.predictions),
        "pairing": pairing.counts | {"same_order": pairing.same_order},
        "num_images": int(clusters.max()) + 1,
        "findings": _by_finding(references, reports),
        "baselines": {
            name: {"scores": {VARIANT: measure(texts)}} for name, texts in baselines.items()
        },
        "finding_rules_version": VERSION,
        "radeval": {"version": radeval_version(), "measures": [*radeval]} if radeval else None,
        "bootstrap": {"samples": num_bootstrap_samples, "seed": seed, "unit": "picture, patient"},
    }


def report_texts(pairing: Pairing) -> list[str]:
    """What was written to each question, without thoughts; empty where there is nothing."""
    return [answer_of(answer or "").strip() for answer in pairing.answers]


def _by_finding(references: Sequence[str], reports: Sequence[str]) -> dict[str, dict[str, int]]:
    """Finding -> in how many references and reports it is stated, in both, and contradicted."""
    found: dict[str, Counter[str]] = {name: Counter() for name in FINDINGS}
    for reference, report in zip(references, reports, strict=True):
        for name, kind in compare_findings(reference, report).items():
            found[name][kind] += 1
        for which, text in (("in_references", reference), ("in_reports", report)):
            for name, state in findings_of(text).items():
                found[name][which] += state == "present"
    names = ("in_references", "in_reports", "hit", "missed", "added", "opposite", "open")
    return {
        name: {each: counts[each] for each in names}
        for name, counts in found.items()
        if counts.total()
    }


BASELINE_LABELS = {
    "another_report": "reference of another picture",
    "one_for_all": "the same training report for every picture",
}
_MOST_CANDIDATES = 300


def baseline_reports(
    references: Sequence[str], clusters: NDArray[np.int64], train: Sequence[str], seed: int = 0
) -> dict[str, list[str]]:
    """Reports that are written without a look: what knowing how reports are written is worth.

    `another_report` gives each picture the reference of another one; `one_for_all` the training
    report that has most words in common with the others (of 300 drawn ones).
    """
    drawn = random.Random(seed)
    found: dict[str, list[str]] = {}
    order = list(range(int(clusters.max()) + 1))
    if len(order) > 1:
        drawn.shuffle(order)
        # A circle through all clusters: none gives to itself.
        giver = dict(zip(order, [*order[1:], *order[:1]], strict=True))
        members = {code: np.flatnonzero(clusters == code) for code in order}
        found["another_report"] = [
            references[int(drawn.choice(members[giver[int(code)]]))] for code in clusters
        ]
    if train:
        texts = drawn.sample(list(train), min(len(train), _MOST_CANDIDATES))
        sets = [set(report_words(each)) for each in texts]
        shared = [
            sum(2 * len(one & other) / max(1, len(one) + len(other)) for other in sets)
            for one in sets
        ]
        found["one_for_all"] = [texts[int(np.argmax(shared))]] * len(references)
    return found


def is_report(question: Question) -> bool:
    """Whether a question asks for a report; see `Record.is_report`."""
    return question.meta.get("task") == REPORT


def report_records(records: Sequence[Record]) -> list[Record]:
    """The records whose answer is a report.

    Raises:
        DataError: there is none.
    """
    found = [each for each in records if each.is_report]
    if not found:
        raise DataError(
            'No record is a report: in none says `meta` "task": "report".',
            "`exgra-med data prepare custom` makes reports of a table with a column `report`; "
            "--map report=COLUMN names another.",
        )
    return found


def check(session: Session) -> None:
    """Refuse before the first question what would stop `evaluate` later; see `Session.check`.

    Raises:
        DataError: no question asks for a report.
    """
    session.check(NAME, report_records(session.records))


def evaluate(session: Session, radeval: Sequence[str] = ()) -> Entry | None:
    """Have reports written, then score them.

    Args:
        session: run, engine and questions.
        radeval: measures of RadEval that are wanted besides.

    Returns:
        The entry; nothing in all but the first process of a launch.

    Raises:
        DataError: no question asks for a report.
        RunError: the folder holds reports made in another way.
        ScoreError: RadEval fails; the reports are stored.
    """
    check_names(radeval)
    asked = report_records(session.records)
    session.ask(NAME, f"reports of {session.dataset}/{session.split}", asked)
    return score(session, asked, radeval) if session.is_first else None


def score(session: Session, asked: Sequence[Record], radeval: Sequence[str] = ()) -> Entry:
    """Score the stored reports of a session into `results.json`.

    What RadEval measured of the very same answers before is kept.
    """
    file = session.path(NAME)
    prepared = session.prepared
    train: list[str] = []
    if prepared is not None and "train" in prepared.splits and session.split != "train":
        train = [each.answer for each in prepared.iterate("train") if each.is_report]
    details = score_reports(
        read_predictions(file).predictions,
        QuestionsAside.of(asked),
        train,
        radeval=radeval,
        num_bootstrap_samples=session.settings.num_bootstrap_samples,
        seed=session.seed,
    )
    scores: dict[str, Any] = details.pop("scores")
    details["num_left_out"] = len(session.records) - len(asked)
    for known in read_results(session.run.path).find(NAME, session.dataset, session.split):
        before = known.details.get("radeval")
        if before and file.is_file() and known.sha256() == file_sha256(file):
            foreign = {each.name for each in radeval_measures()}
            kept = known.scores.get(VARIANT, {})
            scores = {
                name: each.model_dump(mode="json") for name, each in kept.items() if name in foreign
            } | scores
            now = details["radeval"] or before
            measured = [*before["measures"], *now["measures"]]
            details["radeval"] = now | {"measures": [*dict.fromkeys(measured)]}
    answers = {"questions": session.relative(file)}
    return session.keep(
        session.entry(NAME, scores={VARIANT: scores}, answers=answers, details=details)
    )


def holds_reports(reference: Path) -> bool:
    """Whether the questions of a file of references ask for reports.

    Raises:
        DataError: the file cannot be read.
        ScoreError: some do and some do not.
    """
    kinds = {is_report(each) for each in read_reference(reference).questions}
    if len(kinds) > 1:
        raise ScoreError(
            f"{reference}: some of its questions ask for reports, and some do not.",
            "Put the two into files of their own.",
        )
    return kinds == {True}


def score_report_files(
    predictions: Path, reference: Path, radeval: Sequence[str] = (), seed: int = 0
) -> dict[str, Any]:
    """Score a file of reports against a file of records, without a model; see `score_reports`.

    Raises:
        DataError: a file is missing or is none of these.
        ScoreError: see `score_reports`.
    """
    check_names(radeval)
    answers, asked = read_predictions(predictions), read_reference(reference)
    result = score_reports(answers.predictions, asked.questions, radeval=radeval, seed=seed)
    return result | {"answers_sha256": file_sha256(predictions)}


def report_notes(details: dict[str, Any]) -> list[str]:
    """What was counted as nothing, and how the numbers came about; of `score_reports`."""
    counts = details["answer_counts"]
    notes = [counts_sentence(counts)]
    if nothing := counts["missing"] + counts["empty"]:
        notes.append(
            f"Reports missing or empty: {nothing}; each is worth 0, misses every finding and "
            "contradicts none."
        )
    if left_out := details.get("num_left_out"):
        notes.append(f"Questions of the split that ask for no report, left out: {left_out}.")
    found = details["findings"].values()
    opposite, open_ = (sum(each[kind] for each in found) for kind in ("opposite", "open"))
    known = sum(each["in_references"] for each in found)
    notes += [
        f"By rules for {len(FINDINGS)} findings of chest pictures, in English: the references "
        f"state {known} findings. Contradicted: {opposite}. Left open by a reference, and not "
        f"counted: {open_}. The rules are no trained labeler and no clinical truth.",
        "Mean of reports: one value a report. Corpus: counts summed over all reports first.",
    ]
    if foreign := details.get("radeval"):
        notes.append(
            f"RadEval {foreign['version']}: {', '.join(foreign['measures'])}. Of a corpus it gives "
            "no interval."
        )
    return notes


_BESIDE = ("finding_f1", "contradictions", "mean_rouge_l", "mean_bleu_4", "corpus_bleu_4")
"""Measures that stand beside those of the baselines."""


def _further(entry: Entry) -> list[Block]:
    baselines = entry.details.get("baselines") or {}
    measures = [each for each in report_measures() if each.name in _BESIDE]
    rows = [
        Row(
            BASELINE_LABELS.get(name, name),
            [cell(each["scores"][VARIANT].get(measure.name)) for measure in measures],
        )
        for name, each in baselines.items()
    ]
    if not rows:
        return []
    own = Row("this model", [cell(entry.score(VARIANT, each.name)) for each in measures])
    titles = [f"{each.label[:1].upper()}{each.label[1:]}, %" for each in measures]
    table = Table([Column(each) for each in titles], [own, *rows], "Who writes")
    about = "Reports that are written without a look at the picture, scored alike."
    return [Block("Without a look", table, about)]


def _details(entry: Entry) -> list[Block]:
    found = entry.details.get("findings") or {}
    names = ("in_references", "in_reports", "hit", "missed", "added", "opposite", "open")
    titles = (
        "In references", "In reports", "In both", "Missed", "Added", "Contradicted", "Left open"
    )  # fmt: skip
    rows = [Row(name, [str(counts[each]) for each in names]) for name, counts in found.items()]
    return [Block("By finding", Table([Column(each) for each in titles], rows))] if rows else []


TASK = Task(
    name=NAME,
    title="Reports",
    about="Reports beside their references. BLEU and ROUGE-L count common words, and hardly see "
    "that a “no” is gone; the findings say what is stated and denied, by rules.",
    measures=report_measures,
    variants={VARIANT: "score"},
    rows="measures",
    notes=lambda entry: report_notes(entry.details),
    further=_further,
    details=_details,
)
