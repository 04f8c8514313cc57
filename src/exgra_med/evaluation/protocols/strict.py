"""The strict rules of this project, to stand beside the published ones."""

from dataclasses import replace

from exgra_med.data.chat_template import answer_of, has_thoughts
from exgra_med.evaluation import metrics
from exgra_med.evaluation.measures import Case, read_closed
from exgra_med.evaluation.protocols.protocol import (
    OVER_KINDS,
    Number,
    Protocol,
    Reading,
    Source,
)


def _said(case: Case) -> Case:
    """Without thoughts, as the scorer `strict` sees it."""
    return replace(case, answer=answer_of(case.answer)) if has_thoughts(case.answer) else case


def _chosen(case: Case) -> float:
    return float(read_closed(_said(case).answer, case.question).hit)


def _recall(case: Case) -> float:
    return metrics.open_overlap(_said(case).answer, case.question.answer).recall


def _f1(case: Case) -> float:
    return metrics.open_overlap(_said(case).answer, case.question.answer).f1


CHOSEN = Reading("right where exactly one option is chosen, and it is the reference", _chosen)
RECALL = Reading("recall over the set of words", _recall)

STRICT = Protocol(
    "strict",
    "this project, scorer strict",
    Source("exgra-med", f"scorer version {metrics.SCORER_VERSION}", ("evaluation/metrics.py",)),
    ("vqa-rad", "slake", "pathvqa"),
    (
        Number(
            "average",
            "average of open recall and closed accuracy",
            "all",
            CHOSEN,
            RECALL,
            mean=OVER_KINDS,
        ),
        Number("closed", "closed accuracy", "closed", CHOSEN, RECALL),
        Number("open_recall", "open recall", "open", CHOSEN, RECALL),
        Number("open_f1", "open F1", "open", CHOSEN, Reading("F1 over the set of words", _f1)),
    ),
    split="the split that was prepared",
    prompt="of the recipe, or of the call",
    notes="Thoughts are no part of an answer. No answer, or several options, is wrong.",
)
