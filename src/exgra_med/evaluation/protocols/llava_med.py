"""The rules of LLaVA-Med and of the original ExGra-Med, whose scripts descend from it."""

from exgra_med.evaluation import metrics
from exgra_med.evaluation.measures import Case
from exgra_med.evaluation.protocols.protocol import (
    ALL_COUNT,
    ONLY_READ,
    OVER_KINDS,
    PLAIN_TYPE,
    Dropping,
    Number,
    Protocol,
    Reading,
    Source,
)


def _needs_yes_or_no(case: Case) -> float:
    said = metrics.published_words(case.answer)
    if "yes" not in said and "no" not in said:
        return 0.0
    return float(metrics.published_closed_hit(case.answer, case.question.answer))


def _overlap(field: str, words: str) -> Reading:
    return Reading(
        words,
        lambda case: getattr(metrics.published_overlap(case.answer, case.question.answer), field),
    )


def _candidate(case: Case) -> float | None:
    if case.candidates is None:
        return None
    return case.candidates.legacy.hit(case.answer, case.question.answer)


SUBSTRING = Reading(
    "right where the cleaned reference stands anywhere in the cleaned answer, inside a word too",
    lambda case: float(metrics.published_closed_hit(case.answer, case.question.answer)),
)
SUBSTRING_WITH_YES_NO = Reading(
    "as a substring, and wrong unless “yes” or “no” stands anywhere in the answer", _needs_yes_or_no
)
SUBSTRING_OR_NOTHING = Reading(
    "a hit as a substring is right; without “yes” and “no” wrong; any other answer gets no value",
    lambda case: metrics.published_closed_hit_pathvqa(case.answer, case.question.answer),
)
RECALL = _overlap("recall", "recall over words; a word counts as often as the answer repeats it")
F1 = _overlap("f1", "F1 over words; a word counts as often as the answer repeats it")
PRECISION = _overlap("precision", "precision over words")
EXACT = _overlap("exact_match", "called exact match: share of the answer's words that are right")
CANDIDATE = Reading(
    "the known answer with the largest share of its words in the answer must be the reference",
    _candidate,
    needs_candidates=True,
)

_OPEN = (
    ("open_recall", "open recall", RECALL),
    ("open_f1", "open F1", F1),
    ("open_precision", "open precision", PRECISION),
    ("open_exact_match", "open exact match", EXACT),
    ("open_accuracy", "open accuracy over known answers", CANDIDATE),
)


def _open(closed: Reading) -> tuple[Number, ...]:
    """The numbers of open questions; exact match, F1 and precision are printed beside the recall
    that tables show."""
    main = ("open_recall", "open_accuracy")
    return tuple(
        Number(name, label, "open", closed, reading, asked=PLAIN_TYPE, is_main=name in main)
        for name, label, reading in _OPEN
    )


def _closed(reading: Reading, dropping: Dropping = ALL_COUNT) -> Number:
    label = "closed accuracy"
    return Number("closed", label, "closed", reading, RECALL, asked=PLAIN_TYPE, dropping=dropping)


_LLAVA_MED = ("microsoft/LLaVA-Med", "b9a98a736d2ef05bcf5ff345be6403fb3a664eaf (v1.0.0)")
_OPTIONS = (
    "the question; closed questions end with their options, as in "
    "(Answer with either “Yes” or “No”)."
)

EXGRA_MED = Protocol(
    "exgra-med",
    "ExGra-Med (original)",
    Source("ExGra-Med, original code", "e9a3daa", ("llava/eval/run_eval.py",)),
    ("vqa-rad", "slake", "pathvqa"),
    (
        Number(
            "average",
            "average of open recall and closed accuracy",
            "all",
            SUBSTRING,
            RECALL,
            asked=PLAIN_TYPE,
            mean=OVER_KINDS,
        ),
        _closed(SUBSTRING),
        *_open(SUBSTRING),
    ),
    split="the published test split; of SLAKE the English questions",
    prompt=_OPTIONS,
    notes="A “no” is found inside “normal”, “not” and “cannot”.",
)
LLAVA_MED = Protocol(
    "llava-med",
    "LLaVA-Med v1.0.0",
    Source(*_LLAVA_MED, ("llava/eval/run_eval.py",)),
    ("vqa-rad", "slake"),
    (
        _closed(SUBSTRING_WITH_YES_NO),
        *_open(SUBSTRING_WITH_YES_NO),
    ),
    split="the published test split; of SLAKE the English questions",
    prompt=_OPTIONS,
    notes="A closed question whose answer is neither yes nor no can hardly be right.",
)
LLAVA_MED_PATHVQA = Protocol(
    "llava-med-pathvqa",
    "LLaVA-Med v1.0.0, script for PathVQA",
    Source(*_LLAVA_MED, ("llava/eval/run_eval_pvqa.py",)),
    ("pathvqa",),
    (
        _closed(SUBSTRING_OR_NOTHING, ONLY_READ),
        *_open(SUBSTRING_OR_NOTHING),
    ),
    split="the published test split",
    prompt=_OPTIONS,
    notes="Most wrong yes/no answers leave the denominator.",
)
