"""Every protocol on answers worked by hand; their own code stands in tests/oracle."""

import re
from pathlib import Path

import pytest

from exgra_med.evaluation.answers import (
    Prediction,
    Question,
    pair,
    read_candidates,
    read_predictions,
    read_reference,
)
from exgra_med.evaluation.measures import Candidates
from exgra_med.evaluation.protocols import PROTOCOLS
from exgra_med.evaluation.protocols.lmms_eval import cleaned
from exgra_med.evaluation.protocols.medevalkit import tagged
from exgra_med.evaluation.protocols.protocol import Answered, Number, count
from exgra_med.evaluation.score import score_vqa

# Number, type of the question, reference, answer, value.
CASES = [
    # The option that is chosen; a set of words.
    ("strict/closed", "CLOSED", "no", "The lung is normal.", 0),
    ("strict/closed", "CLOSED", "no", "<think>yes?</think>No.", 1),
    ("strict/closed", "CLOSED", "yes", "yes and no", 0),
    ("strict/open_recall", "OPEN", "left lung", "lung lung lung", 1 / 2),
    ("strict/open_f1", "OPEN", "left lung", "the lung", 2 / 3),
    # A substring of the cleaned answer; a word counts as often as it is repeated.
    ("exgra-med/closed", "CLOSED", "no", "The lung is normal.", 1),
    ("exgra-med/closed", "CLOSED", "left", "the left side", 1),
    ("exgra-med/open_recall", "OPEN", "left lung", "lung lung lung", 3 / 4),
    ("exgra-med/open_exact_match", "OPEN", "left lung", "left", 1),
    ("exgra-med/open_accuracy", "OPEN", "right lung", "in the right lung", 0),
    # Neither yes nor no in the answer: wrong. "no" stands in "know".
    ("llava-med/closed", "CLOSED", "left", "the left side", 0),
    ("llava-med/closed", "CLOSED", "left", "left, I know", 1),
    ("llava-med-pathvqa/closed", "CLOSED", "yes", "yes", 1),
    ("llava-med-pathvqa/closed", "CLOSED", "yes", "unclear", 0),
    ("llava-med-pathvqa/closed", "CLOSED", "yes", "no", None),
    # F1 over all questions: 2 common words, 3 said, 2 expected.
    ("medgemma/f1", "OPEN", "Left lung", "The left lung, upper", 4 / 5),
    ("medgemma/f1", "CLOSED", "Yes", "yes.", 1),
    ("medgemma/f1", "OPEN", "X-ray", "xray", 1),
    ("medgemma/f1", "OPEN", "left", "", 0),
    ("medgemma/closed", "CLOSED", "no", "No.", 1),
    ("medgemma/closed", "CLOSED", "no", "No, it is not", 0),
    ("medgemma/closed", "CLOSED", "left", "left", None),
    # One of yes and no alone, as a substring: the right "yes" beside "normal" is wrong.
    ("medevalkit/closed", "CLOSED", "yes", "Yes, the lung is normal", 0),
    ("medevalkit/closed", "CLOSED", "no", "The lung is normal", 1),
    ("medevalkit/closed", "CLOSED", "no", "yes? \\boxed{No}", 1),
    ("medevalkit/closed", "CLOSED", "left", "left", None),
    ("medevalkit/open", "CLOSED", "Left", "LEFT", 1),
    # Behind "answer:" a blank stays, and what is not equal is wrong.
    ("medevalkit/open", "OPEN", "left", "Answer: left", 0),
    ("medevalkit/open", "OPEN", "left", "answer:left", 1),
    ("medevalkit/open", "OPEN", "left", "<answer>left</answer>", 1),
    # Half of what is said is right, all that is expected is said: precision 1/2, recall 1.
    ("medevalkit/open_precision", "OPEN", "left", "left lung", 2 / 3),
    ("medevalkit/open_recall", "OPEN", "left", "left lung", 1 / 2),
    ("medevalkit/open_f1", "OPEN", "left", "left lung", 1),
    ("medevalkit-slake/closed", "CLOSED", "Yes", "Yes.", 1),
    ("medevalkit-slake/closed", "CLOSED", "Yes", "Yes, it is", 0),
    ("medevalkit-slake/closed", "CLOSED", "yes", "Yes, it is", 1),
    ("medevalkit-slake/open", "OPEN", "Left", "left ", 0),
    ("medevalkit-pathvqa/closed", "CLOSED", "no", "None", 1),
    # Clean and equal, with words for yes and no.
    ("lmms-eval/accuracy", "CLOSED", "No", "Nope!", 1),
    ("lmms-eval/closed", "CLOSED", "Yes", "Yes, it is", 0),
    ("lmms-eval/open", "OPEN", "X-Ray", "xray (chest)", 1),
    ("lmms-eval/open", "OPEN", "left lung", "Left-Lung.", 1),
    ("lmms-eval-zh/closed", "CLOSED", "是", "是的。", 1),
    ("lmms-eval-zh/closed", "CLOSED", "不是", "异常", 1),
    ("lmms-eval-zh/open", "OPEN", "肺", "肺（左）", 1),
    ("lmms-eval-zh/open", "OPEN", "肺", "心脏", 0),
]


def one_answer(number: str, kind: str, reference: str, answer: str, **others: object) -> Answered:
    meta = {"language": "zh"} if number.startswith("lmms-eval-zh") else {}
    question = Question("1", "Is it?", reference, kind, images=("1.png",), meta=meta)
    known = Candidates.of(["right", "right lung"])
    return Answered.of(pair([Prediction("1", answer)], [question]), known, **others)


def number_of(name: str) -> Number:
    protocol, _, number = name.partition("/")
    return PROTOCOLS.find(protocol).number(number)


def value(number: str, answered: Answered) -> float | None:
    return count(number_of(number), answered).value


@pytest.mark.parametrize(("number", "kind", "reference", "answer", "expected"), CASES)
def test_an_answer_is_worth_what_it_is_by_hand(
    number: str, kind: str, reference: str, answer: str, expected: float | None
) -> None:
    assert value(number, one_answer(number, kind, reference, answer)) == pytest.approx(expected)


JUDGED = [
    ("medevalkit/open_judged", "OPEN", "<think>so</think><judge>0</judge>", 1),
    ("medevalkit/open_judged", "OPEN", "<judge>1</judge>", 0),
    ("medevalkit/open_judged", "OPEN", "It is correct.", 0),
    # Right by the rule and by the judge: twice.
    ("medevalkit-slake/closed_judged", "CLOSED", "<judge>0</judge>", 2),
    # Closed questions are forgotten where the judge is on.
    ("medevalkit-pathvqa/total_judged", "CLOSED", "<judge>0</judge>", 0),
    ("vlmevalkit/overall", "OPEN", "[Begin Correctness]Yes[End Correctness]", 1),
    ("vlmevalkit/overall", "OPEN", "[Begin Correctness]yes or no[End Correctness]", 0),
]


@pytest.mark.parametrize(("number", "kind", "reply", "expected"), JUDGED)
def test_what_a_judge_replies_is_read_as_the_protocol_reads_it(
    number: str, kind: str, reply: str, expected: float
) -> None:
    found = number_of(number)
    judges = [each.judge for each in (*found.readings, found.open) if each and each.judge]
    reference = "yes" if kind == "CLOSED" else "left"
    answered = one_answer(number, kind, reference, reference)
    (case,) = answered.cases
    assert reference in judges[0].message(case) and "Is it?" in judges[0].message(case)
    verdicts = {judges[0].name: {"1": judges[0].verdict(reply)}}
    assert (
        value(number, one_answer(number, kind, reference, reference, verdicts=verdicts)) == expected
    )


def test_every_protocol_is_in_a_test_of_numbers() -> None:
    tests = Path(__file__).parents[3]
    files = [
        *tests.glob("oracle/test_oracle_*protocol*.py"),
        *Path(__file__).parent.glob("test_*.py"),
    ]
    text = "\n".join(each.read_text(encoding="utf-8") for each in files)
    for name in PROTOCOLS.names():
        assert re.search(rf'"{name}["/]', text), f"no test has a number of {name}"


@pytest.mark.parametrize("file", ["gt.json", "gt_pvqa_types.json"])
def test_scorers_and_protocols_of_one_name_give_one_number(file: str) -> None:
    """On the files whose numbers the original's own script gave (tests/golden)."""
    folder = Path(__file__).parents[3] / "golden" / "data" / "evaluation" / "made_up"
    answers = read_predictions(folder / "pred.jsonl").predictions
    questions = read_reference(folder / file).questions
    known = read_candidates(folder / "candidate.json")
    answered = Answered.of(pair(answers, questions), Candidates.of(known))
    names = {"average": "average", "closed": "closed_accuracy", "open_recall": "open_recall",
             "open_f1": "open_f1", "open_precision": "open_precision",
             "open_exact_match": "open_exact_match", "open_accuracy": "open_accuracy"}  # fmt: skip
    for scorer, protocol in (
        ("legacy", "exgra-med"), ("legacy-pathvqa", "llava-med-pathvqa"), ("strict", "strict")
    ):  # fmt: skip
        scores = score_vqa(answers, questions, scorer, candidates=known)["scores"]
        for number in PROTOCOLS.find(protocol).numbers:
            made = count(number, answered)
            assert 100 * made.value == pytest.approx(scores[names[number.name]]["value"])


def test_a_type_with_a_blank_is_no_question_of_the_original_scripts() -> None:
    questions = [Question(str(n), "?", "yes", "CLOSED", type_had_blanks=bool(n)) for n in range(2)]
    answered = Answered.of(pair([Prediction("0", "yes"), Prediction("1", "no")], questions))
    assert value("exgra-med/closed", answered) == 1
    assert value("medevalkit-slake/closed", answered) == 1 / 2


@pytest.mark.parametrize(
    "text", ["(" * 200_000, "<answer>" * 50_000, "\\boxed{" * 50_000, "no" * 9]
)
def test_an_answer_of_any_form_is_read_in_time(text: str) -> None:
    for number in ("lmms-eval/accuracy", "medevalkit/total", "medgemma/f1"):
        assert value(number, one_answer(number, "OPEN", "left", text)) == 0


def test_brackets_are_taken_away_one_kind_after_the_other() -> None:
    assert cleaned("a（b(c）d)e") == "a b e"
    assert cleaned("left) lung (upper") == "left lung upper"
    assert tagged("<a>1</a>2<a>3</a><a>4", "a") == "1 3"
