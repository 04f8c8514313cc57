"""lmms-eval on SLAKE: exact match of cleaned answers, open and closed alike."""

import re
import string

from exgra_med.evaluation.measures import Case
from exgra_med.evaluation.protocols.protocol import (
    ENGLISH,
    Asked,
    Number,
    Protocol,
    Reading,
    Source,
)

REPOSITORY = ("EvolvingLMMs-Lab/lmms-eval", "75571cfe0fa36ca5ec2e6aa2bb268f9d38295af3")
"""Where it is, and the commit that was read."""
_BRACKETS = ((")", re.compile(r"\([^)]*\)")), ("）", re.compile(r"（[^）]*）")))
# Every sign of ASCII; its wide form, but for the full stop; and the signs of Chinese.
_WIDE = "".join(chr(ord(sign) + 0xFEE0) for sign in string.punctuation if sign != ".")
_TO_BLANK = dict.fromkeys(map(ord, string.punctuation + _WIDE + "｡。、《》【】"), " ")
_SAID = {
    "yes": "yes yeah yep true 是 是的 有 包含 可以 能 会 正常",
    "no": "no nope false 否 不是 没有 无 不包含 不能 不会 不可以 不正常 异常",
    "xray": "xray",
}
_LABELS = {word: label for label, words in _SAID.items() for word in words.split()} | {
    "x ray": "xray"
}


def cleaned(text: str) -> str:
    """Lower case, without brackets and what stands in them, and without signs.

    >>> cleaned("Nope!"), cleaned("X-Ray"), cleaned("left (upper) lung.")
    ('no', 'xray', 'left lung')
    """
    text = text.strip().lower()
    for end, bracket in _BRACKETS:
        # Behind the last one that closes none can match, however many open.
        closed = text.rfind(end) + 1
        text = bracket.sub(" ", text[:closed]) + text[closed:]
    text = " ".join(text.translate(_TO_BLANK).split())
    return _LABELS.get(text, text)


def _equal(case: Case) -> float:
    return float(cleaned(case.answer) == cleaned(case.question.answer))


EXACT = Reading("right where the cleaned answer equals the cleaned reference", _equal)
CHINESE = Asked("Chinese questions", lambda each: each.meta.get("language") == "zh")

_SOURCE = Source(*REPOSITORY, ("lmms_eval/tasks/slake/utils.py",))


def _numbers(asked: Asked) -> tuple[Number, ...]:
    return (
        Number("accuracy", "accuracy", "all", EXACT, asked=asked),
        Number("closed", "closed accuracy", "closed", EXACT, asked=asked),
        Number("open", "open accuracy", "open", EXACT, asked=asked),
    )


LMMS_EVAL = Protocol(
    "lmms-eval",
    "lmms-eval, slake_en",
    _SOURCE,
    ("slake",),
    _numbers(ENGLISH),
    split="test split of BoKelvin/SLAKE, English: 1,061 questions",
    prompt="the question, then “Answer the question using a single word or phrase.”",
    notes="Greedy, 32 new tokens. What stands in brackets is taken away from both texts.",
)
LMMS_EVAL_ZH = Protocol(
    "lmms-eval-zh",
    "lmms-eval, slake_zh",
    _SOURCE,
    ("slake",),
    _numbers(CHINESE),
    split="test split of BoKelvin/SLAKE, Chinese: 1,033 questions",
    prompt="the question, then “请用一个词或短语回答问题。”",
    notes="“正常” (normal) counts as yes, “异常” (abnormal) as no.",
)
