"""MedEvalKit on VQA-RAD, SLAKE and PathVQA: rules, and a judge for open answers where it is on."""

from collections.abc import Callable

from exgra_med.evaluation.measures import Case
from exgra_med.evaluation.protocols.protocol import (
    BY_FIELD,
    BY_YES_NO,
    Judge,
    Number,
    Protocol,
    Reading,
    Source,
    Typing,
)
from exgra_med.llm.prompt import load_prompt

REPOSITORY = ("alibaba-damo-academy/MedEvalKit", "9b12e3b34232a8779cc1275417bf4f72f03d28e0")
"""Where it is, and the commit that was read."""
_BOX = "\\boxed{"
NO_BOX = "None"
"""What the reader of boxes gives where there is none; it then stands for the answer."""
_LEAD_INS = (
    "**answer**:",
    "**answer**",
    "*answer*:",
    "**answer:**",
    "answer is",
    "answer:",
    "答案:",
    "final answer",
    "final answer is",
)


def boxed(text: str) -> str:
    """What the last box holds; `None` as a word where no box is closed."""
    start = text.rfind(_BOX)
    if start < 0:
        return NO_BOX
    depth, inside = 1, text[start + len(_BOX) :]
    for place, sign in enumerate(inside):
        depth += (sign == "{") - (sign == "}")
        if not depth:
            return inside[:place].strip()
    return NO_BOX


def tagged(text: str, tag: str) -> str:
    """What stands between tags, several joined by a blank; the whole text where nothing does."""
    opens, closes = f"<{tag}>", f"</{tag}>"
    parts = [part.partition(opens) for part in text.split(closes)[:-1]]
    return " ".join(inside for _, mark, inside in parts if mark).strip() or text


def _unwrapped(text: str) -> str:
    """Out of a box, or out of tags."""
    if boxed(text) != NO_BOX:
        return boxed(text)
    return tagged(text, "answer") if "<answer>" in text else text


def parsed(text: str) -> str:
    """The answer behind the words that announce it.

    >>> parsed("The answer is: left"), parsed("Nothing is boxed here")
    (': left', 'None')
    """
    text = text.lower()
    if "boxed" in text:
        text = boxed(text)
    elif "<answer>" in text:
        text = tagged(text, "answer")
    for lead_in in _LEAD_INS:
        text = text.split(lead_in)[-1]
    return text


Text = Callable[[Case], tuple[str, str]]
"""A case -> answer and reference, as they come to the rules."""


def _lowered(case: Case) -> tuple[str, str]:
    return _unwrapped(case.answer).lower().strip(), case.question.answer.lower().strip()


def _as_it_is(case: Case) -> tuple[str, str]:
    return _unwrapped(case.answer), case.question.answer


def _yes_or_no(case: Case, texts: Text) -> float:
    answer, reference = texts(case)
    said = parsed(answer).replace("\n", "").replace(".", "")
    one_of_both = ("yes" in said) != ("no" in said)
    return float(one_of_both and reference.lower() in said)


def _closed_of_slake(case: Case) -> float:
    answer, reference = _as_it_is(case)
    if reference in ("yes", "no"):
        return _yes_or_no(case, _as_it_is)
    return float(parsed(answer).replace("\n", "").replace(".", "") == reference.lower())


def _equal(texts: Text) -> Callable[[Case], float]:
    def rule(case: Case) -> float:
        answer, reference = texts(case)
        return float(parsed(answer) == reference.lower())

    return rule


def _overlap(texts: Text, field: str) -> Callable[[Case], float]:
    def rule(case: Case) -> float:
        answer, reference = texts(case)
        said, expected = set(parsed(answer).lower().split()), set(reference.lower().split())
        common = len(said & expected)
        if not common:
            return 0.0
        precision, recall = common / len(said), common / len(expected)
        f1 = 2 * precision * recall / (precision + recall)
        return {"precision": precision, "recall": recall, "f1": f1}[field]

    return rule


def _judge(name: str, texts: Text) -> Judge:
    def told(case: Case) -> dict[str, str]:
        answer, reference = texts(case)
        return {"question": case.question.text, "reference": reference, "answer": answer}

    def verdict(reply: str, _: Case | None = None) -> float:
        return float(tagged(reply, "judge") == "0")

    return Judge(
        name,
        "gpt-4.1-2025-04-14",
        load_prompt("judge-medevalkit").text,
        told,
        verdict,
        published="utils/utils.py, get_compare_messages",
    )


ONE_WORD = Reading(
    "right where the reference stands anywhere in the answer and the answer holds only one of "
    "“yes” and “no”, inside a word too",
    lambda case: _yes_or_no(case, _lowered),
)
EQUAL = Reading("right where the answer equals the reference, in lower case", _equal(_lowered))
JUDGED = Reading(
    "right where the judge says 0; an answer of another form is wrong",
    judge=_judge("medevalkit", _lowered),
)
CLOSED_OF_SLAKE = Reading(
    "right where the answer equals the reference without full stops, in lower case",
    _closed_of_slake,
)
EQUAL_OF_SLAKE = Reading("right where the answer equals the reference", _equal(_as_it_is))
_SLAKE_JUDGE = _judge("medevalkit-slake", _as_it_is)
JUDGED_OF_SLAKE = Reading("right where the judge says 0", judge=_SLAKE_JUDGE)
COUNTED_TWICE = Reading(
    "by the rule, and once more by the judge: a closed answer can count twice",
    _closed_of_slake,
    _SLAKE_JUDGE,
)
FORGOTTEN = Reading("with the judge on, hits of closed questions are set to 0", lambda _: 0.0)


def _source(folder: str) -> Source:
    files = (f"utils/{folder}/{folder}.py", "utils/utils.py")
    return Source(*REPOSITORY, files)


def _numbers(
    typing: Typing, closed: Reading, equal: Reading, judged: Reading, texts: Text
) -> tuple[Number, ...]:
    """What is reported without a judge, and the open accuracy with one."""
    # The function returns F1, precision and recall, and its caller takes them for precision, recall
    # and F1: what is reported under one of these names is another score.
    reported = {"precision": "f1", "recall": "precision", "f1": "recall"}
    overlaps = [
        (
            f"open_{name}",
            f"open “{name}”, which is {field}",
            Reading(f"{field} over the set of words", _overlap(texts, field)),
        )
        for name, field in reported.items()
    ]
    return (
        Number("total", "accuracy", "all", closed, equal, typing=typing),
        Number("closed", "closed accuracy", "closed", closed, equal, typing=typing),
        Number("open", "open exact match", "open", closed, equal, typing=typing),
        *(
            Number(name, label, "open", closed, reading, typing=typing, is_main=False)
            for name, label, reading in overlaps
        ),
        Number("open_judged", "open accuracy, judged", "open", closed, judged, typing=typing),
    )


_JUDGE_NOTE = (
    "The accuracy of open questions is divided by their number twice before it is printed; here "
    "once. The judge is on in the published settings (eval.sh)."
)
_PROMPT = (
    "yes/no: the question, then “Please output 'yes' or 'no'(no extra output).”; others: the "
    "question, then “Please answer the question concisely.”"
)

MEDEVALKIT = Protocol(
    "medevalkit",
    "MedEvalKit, VQA_RAD",
    _source("VQA_RAD"),
    ("vqa-rad",),
    (
        *_numbers(BY_YES_NO, ONE_WORD, EQUAL, JUDGED, _lowered),
        Number("total_judged", "accuracy, open judged", "all", ONE_WORD, JUDGED, typing=BY_YES_NO),
    ),
    split="test split of flaviagiammarino/vqa-rad: 251 closed, 200 open",
    prompt=_PROMPT,
    notes=f"{_JUDGE_NOTE} An empty answer to an open question stops the published code; here it is "
    "wrong.",
)
MEDEVALKIT_SLAKE = Protocol(
    "medevalkit-slake",
    "MedEvalKit, SLAKE",
    _source("SLAKE"),
    ("slake",),
    (
        *_numbers(BY_FIELD, CLOSED_OF_SLAKE, EQUAL_OF_SLAKE, JUDGED_OF_SLAKE, _as_it_is),
        Number("closed_judged", "closed “accuracy”, judged", "closed", COUNTED_TWICE),
        Number("total_judged", "“accuracy”, judged", "all", COUNTED_TWICE, JUDGED_OF_SLAKE),
    ),
    split="test.json of BoKelvin/SLAKE, both languages: 2,094 questions",
    prompt="closed: the question, then “Answer the question using a single word or phrase.”; open: "
    "“Please answer the question concisely.”; in Chinese for Chinese questions",
    notes=f"{_JUDGE_NOTE} It is asked about closed answers too, and its hits are added to those of "
    "the rule, so that a score can exceed 100 %.",
)
MEDEVALKIT_PATHVQA = Protocol(
    "medevalkit-pathvqa",
    "MedEvalKit, PATH_VQA",
    _source("PATH_VQA"),
    ("pathvqa",),
    (
        *_numbers(BY_YES_NO, ONE_WORD, EQUAL, JUDGED, _lowered),
        Number(
            "total_judged", "“accuracy”, open judged", "all", FORGOTTEN, JUDGED, typing=BY_YES_NO
        ),
    ),
    split="test split of flaviagiammarino/path-vqa",
    prompt=_PROMPT,
    notes=f"{_JUDGE_NOTE} Hits of closed questions are then set to 0 and never put back.",
)
