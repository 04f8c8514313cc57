"""VLMEvalKit on PathVQA: a judge for every question, and no number without one."""

import re

from exgra_med.evaluation.measures import Case
from exgra_med.evaluation.protocols.protocol import Judge, Number, Protocol, Reading, Source
from exgra_med.llm.prompt import load_prompt

REPOSITORY = ("open-compass/VLMEvalKit", "e8e78f05f3080fe28154f2130321f17951c3be94")
"""Where it is, and the commit that was read."""
_MARK = re.compile(r"\[(Begin|End) Correctness\]")


def _told(case: Case) -> dict[str, str]:
    """What the judge is told of an answer."""
    question = case.question
    return {"question": question.text, "reference": question.answer, "answer": case.answer}


def verdict(reply: str, _: Case | None = None) -> float | None:
    """1.0 for yes, 0.0 for no between the marks of correctness; None for neither or both.

    >>> verdict("[Begin Correctness]yes[End Correctness]"), verdict("Correct.")
    (1.0, None)
    """
    pieces = _MARK.split(reply)
    marks = pieces[1::2]
    if not {"Begin", "End"} <= set(marks):
        return None
    # Only what stands behind the first begin, up to the next mark, is read.
    inside = pieces[2 * marks.index("Begin") + 2].lower()
    found = [word for word in ("yes", "no") if word in inside]
    return float(found == ["yes"]) if len(found) == 1 else None


JUDGED = Reading(
    "right where the judge says yes; where it says neither yes nor no, wrong",
    judge=Judge(
        "vlmevalkit",
        "gpt-4o-mini",
        load_prompt("judge-vlmevalkit").text,
        _told,
        verdict,
        published="vlmeval/dataset/utils/shortqa.py, EVAL_TMPL with the examples en_single_ICEs",
    ),
)

VLMEVALKIT = Protocol(
    "vlmevalkit",
    "VLMEvalKit, PathVQA",
    Source(*REPOSITORY, ("vlmeval/dataset/image_shortqa.py", "vlmeval/dataset/utils/shortqa.py")),
    ("pathvqa",),
    (
        Number("overall", "accuracy, judged", "all", JUDGED),
        Number("closed", "closed accuracy, judged", "closed", JUDGED),
        Number("open", "open accuracy, judged", "open", JUDGED),
    ),
    split="PathVQA_TEST.tsv or PathVQA_VAL.tsv of Pfei111/PathVQA",
    prompt="the question, then “Please directly provide a short answer to the question. ”",
    notes="Published is the accuracy over all questions. A judge without a clear reply is asked up "
    "to three times; here once. Without a judge the published code stops.",
)
