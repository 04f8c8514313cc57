"""MedGemma's numbers on VQA-RAD and SLAKE, from the words of its report and model card.

The authors publish no code that scores, so the cleaning of words is this project's reading of
"tokenized F1": that of SQuAD, which the report's sources use.
"""

import re
from collections import Counter

from exgra_med.evaluation.measures import Case
from exgra_med.evaluation.protocols.protocol import (
    BY_YES_NO,
    ENGLISH,
    Number,
    Protocol,
    Reading,
    Source,
)

_SIGNS = re.compile(r"[^\w\s]|_")
_ARTICLES = frozenset({"a", "an", "the"})


def tokens(text: str) -> list[str]:
    """Words in lower case, without signs and articles.

    >>> tokens("The X-ray.")
    ['xray']
    """
    return [word for word in _SIGNS.sub("", text.lower()).split() if word not in _ARTICLES]


def token_f1(answer: str, reference: str) -> float:
    """F1 over words, each as often as it stands in both.

    >>> token_f1("left left lung", "the left lung")
    0.8
    """
    said, expected = tokens(answer), tokens(reference)
    common = (Counter(said) & Counter(expected)).total()
    if not said or not expected:
        return float(said == expected)
    return 2 * common / (len(said) + len(expected))


TOKEN_F1 = Reading(
    "F1 over words without signs and articles; a word counts as often as both have it",
    lambda case: token_f1(case.answer, case.question.answer),
)
EQUAL = Reading(
    "right where the words of the answer are those of the reference",
    lambda case: float(_equal(case)),
)


def _equal(case: Case) -> bool:
    return tokens(case.answer) == tokens(case.question.answer)


MEDGEMMA = Protocol(
    "medgemma",
    "MedGemma",
    Source("MedGemma Technical Report and model card of MedGemma 1.5", "arXiv 2507.05201"),
    ("vqa-rad", "slake"),
    (
        Number(
            "f1",
            "tokenised F1 over all questions",
            "all",
            TOKEN_F1,
            asked=ENGLISH,
            typing=BY_YES_NO,
        ),
        Number(
            "closed",
            "accuracy of yes/no questions",
            "closed",
            EQUAL,
            TOKEN_F1,
            asked=ENGLISH,
            typing=BY_YES_NO,
        ),
    ),
    split="VQA-RAD: the balanced split of Yang et al. 2024 (arXiv 2405.03162), no picture in two "
    "parts; SLAKE: the English test split, 1,061 questions",
    prompt="not published",
    notes="Open and closed questions are one mean. No public code: how words are cleaned is our "
    "reading.",
    is_exact=False,
)
