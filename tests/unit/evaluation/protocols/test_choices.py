"""Multiple choice: every answer gets the value that the evaluator's own public code gives it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exgra_med.evaluation.answers import Prediction, Question, pair
from exgra_med.evaluation.explain import explain
from exgra_med.evaluation.measures import Case
from exgra_med.evaluation.protocols import PROTOCOLS, choice_protocols, choice_readings
from exgra_med.evaluation.protocols.protocol import Answered, Protocol, count
from exgra_med.evaluation.tasks.multiple_choice import Choice, score_choices

_FILE = Path(__file__).parent / "choices.json"
PUBLISHED = json.loads(_FILE.read_text(encoding="utf-8"))
OPEN = {"mmmu", "lmms-eval-mmmu", "medevalkit-mmmu", "vlmevalkit-mmmu"}
"""Protocols of a data set that has questions without options."""
FOUR = {"omnimedvqa", "medevalkit-omnimedvqa", "pmc-vqa-td", "pmc-vqa-te", "medevalkit-pmc-vqa"}
"""Protocols of a data set that has at most four options."""


def _question(row: dict[str, Any]) -> Question:
    meta = {key: row[key] for key in ("dataset", "answer_index") if key in row}
    options = tuple(row.get("options", ()))
    return Question(row["id"], "?", row["answer"], "CLOSED", options=options, meta=meta)


def _answered(rows: list[dict[str, Any]]) -> Answered:
    given = [Prediction(row["id"], row["text"]) for row in rows if row["text"] is not None]
    return Answered.of(pair(given, [_question(row) for row in rows]))


def _rows(name: str) -> list[dict[str, Any]]:
    most = 4 if name in FOUR else 5
    return [
        row
        for row in PUBLISHED["questions"]
        if (len(row["options"]) <= most if "options" in row else name in OPEN)
    ]


def _one(name: str, text: str, options: tuple[str, ...], place: int) -> float:
    """The value of one answer."""
    number = PROTOCOLS.find(name).numbers[0]
    question = Question("1", "?", options[place], "CLOSED", options=options)
    rule = number.reading("closed").rule
    assert rule is not None
    value = rule(Case(text, question))
    assert value is not None
    return value


def test_every_protocol_of_these_benchmarks_is_compared_with_its_code() -> None:
    here = [each for each in vars(choice_protocols).values() if isinstance(each, Protocol)]
    here.remove(choice_protocols.STRICT_CHOICES)
    assert {each.name for each in here} == set(PUBLISHED["expected"])
    assert {each.source.where for each in here} == set(PUBLISHED["code"])
    assert all(PUBLISHED["code"][each.source.where] == each.source.version for each in here)
    assert all(PROTOCOLS.find(each.name) is each for each in here)


@pytest.mark.parametrize("name", PUBLISHED["expected"])
def test_each_answer_has_the_value_of_the_published_code(name: str) -> None:
    rows = _rows(name)
    expected = dict(zip([row["id"] for row in rows], PUBLISHED["expected"][name], strict=True))
    found = count(PROTOCOLS.find(name).numbers[0], _answered(rows))
    answered = {row["id"]: row for row in rows if row["text"] is not None}
    values = dict(zip([row["id"] for row in rows], found.values.tolist(), strict=True))
    for each, row in answered.items():
        assert values[each] == expected[each], row


@pytest.mark.parametrize("name", PUBLISHED["judged"])
def test_a_judge_is_asked_and_believed_as_in_the_published_code(name: str) -> None:
    """The invented judge decides by what it is told, so the words around it change nothing."""
    rows = _rows(name)
    answered = _answered(rows)
    number = PROTOCOLS.find(name).number("judged")
    assert number is not None
    (judge,) = {reading.judge for reading in number.readings}
    assert judge is not None
    verdicts = {}
    for case in answered.cases:
        told = None if case is None else judge.told(case)
        if case is not None and told is not None:
            text = "\n".join(told[name] for name in ("question", "options", "answer"))
            place = int(hashlib.sha1(text.encode()).hexdigest(), 16) % 3
            verdicts[case.question.id] = judge.verdict(PUBLISHED["replies"][place], case)
    values = count(number, replace(answered, verdicts={judge.name: verdicts})).values.tolist()
    for row, value, expected in zip(rows, values, PUBLISHED["judged"][name], strict=True):
        assert expected is None or value == expected, row
    read = sum(case is not None for case in answered.cases) - len(verdicts)
    assert 0 < len(verdicts) < read


@pytest.mark.parametrize(
    ("name", "drops"),
    [
        ("omnimedvqa", True),
        ("mmmu", True),
        ("vlmevalkit-choices", True),
        ("vlmevalkit-mmmu", True),
        ("lmms-eval-mmmu", False),
        ("medxpertqa", False),
        ("medevalkit-omnimedvqa", False),
    ],
)
def test_a_question_without_an_answer_is_dropped_or_wrong(name: str, drops: bool) -> None:
    rows = _rows(name)
    found = count(PROTOCOLS.find(name).numbers[0], _answered(rows))
    missing = sum(row["text"] is None for row in rows)
    assert missing
    assert found.num_questions == len(rows) - (missing if drops else 0)


def test_omnimedvqa_is_averaged_over_questions_or_over_data_sets() -> None:
    rows = [
        {"id": str(row), "dataset": data, "options": ["CT", "MRI"], "answer": "CT", "text": text}
        for row, (data, text) in enumerate([("a", "CT"), ("a", "CT"), ("a", "MRI"), ("b", "MRI")])
    ]
    protocol = PROTOCOLS.find("omnimedvqa")
    values = {each.name: count(each, _answered(rows)).value for each in protocol.numbers}
    assert values == {"accuracy": 2 / 4, "by_dataset": (2 / 3 + 0) / 2}


def test_what_no_rule_reads_is_wrong_or_drawn_or_the_first_option() -> None:
    options = ("CT", "MRI", "X-ray", "Ultrasound")
    asked = ("medxpertqa", "vlmevalkit-choices", "mmmu", "lmms-eval-mmmu", "medevalkit-mmmu")
    assert [_one(name, "", options, 0) for name in asked] == [0, 0, 1 / 4, 1 / 4, 1 / 4]
    assert [_one("medevalkit-pmc-vqa", "", options, place) for place in (0, 1)] == [1, 0]
    assert [_one("omnimedvqa", "", options, place) for place in (0, 1)] == [0, 0]


def test_a_word_that_ends_in_a_capital_is_a_letter_to_lmms_eval_alone() -> None:
    options = ("benign", "malignant")
    said = "The DNA is broken"
    assert [_one(name, said, options, 0) for name in ("lmms-eval-mmmu", "mmmu")] == [1.0, 1 / 2]


def test_an_option_list_of_any_length_has_its_letters() -> None:
    options = tuple(f"finding {number}" for number in range(10))
    for name in ("medxpertqa", "mmmu", "lmms-eval-mmmu", "medevalkit-medxpertqa"):
        assert _one(name, "J", options, 9) == 1.0, name


@pytest.mark.parametrize("known", [None, 29, 30, -1, 1e9, "B", "29", [1], float("nan")])
def test_more_options_than_letters_and_a_wrong_place_are_no_error(known: object) -> None:
    options = tuple(f"finding {number}" for number in range(30))
    meta = {"answer_index": known, "dataset": "one"}
    question = Question("1", "?", options[29], "CLOSED", options=options, meta=meta)
    given = [Prediction("1", "finding 29")]
    found = explain(Answered.of(pair(given, [question])))
    values = {each["name"]: each["value"] for each in found["numbers"]}
    assert values["omnimedvqa/accuracy"] == values["strict-choices/accuracy"] == 100


def test_a_question_whose_right_option_is_unknown_is_never_right() -> None:
    question = Question("1", "?", "PET", "CLOSED", options=("CT", "MRI"))
    for text in ("", "A", "PET"):
        for reading in (
            choice_readings.MMMU_LETTERS,
            choice_readings.FIRST_LETTER,
            choice_readings.MEDEVALKIT_AS_LISTED,
        ):
            assert reading.rule is not None
            assert reading.rule(Case(text, question)) == 0.0


def test_our_own_number_is_that_of_the_multiple_choice_task() -> None:
    rows = [row for row in PUBLISHED["questions"] if "options" in row]
    asked = [
        Choice(row["id"], tuple(row["options"]), row["answer_index"], row["id"], {}) for row in rows
    ]
    given = [Prediction(row["id"], row["text"]) for row in rows if row["text"] is not None]
    found = count(PROTOCOLS.find("strict-choices").numbers[0], _answered(rows))
    scored = score_choices(given, asked, "strict", num_bootstrap_samples=0)
    assert found.value is not None
    assert 100 * found.value == pytest.approx(scored["scores"]["accuracy"]["value"])


def _of(dataset: str, name: str) -> Answered:
    return _answered([row | {"id": f"{dataset}/test/{row['id']}"} for row in _rows(name)])


def test_explain_compares_the_protocols_of_a_data_set_with_options() -> None:
    found = explain(_of("omnimedvqa", "omnimedvqa"))
    assert found["dataset"] == "omnimedvqa"
    assert found["compared_with"] == "strict-choices/accuracy"
    stated = {each["name"] for each in found["numbers"] if each["is_stated"]}
    assert stated == {
        "strict-choices/accuracy",
        "omnimedvqa/accuracy",
        "omnimedvqa/by_dataset",
        "medevalkit-omnimedvqa/accuracy",
        "vlmevalkit-choices/accuracy",
        "vlmevalkit-choices/judged",
    }
    (similar,) = [e for e in found["differences"] if e["second"] == "omnimedvqa/accuracy"]
    assert [step["cause"] for step in similar["steps"]] == ["answer reading", "dropped answers"]
    assert sum(step["points"] for step in similar["steps"]) == pytest.approx(similar["value"])


def test_explain_says_how_far_drawn_letters_move_a_single_run() -> None:
    options = ["CT", "MRI", "X-ray", "Ultrasound"]
    rows = [
        {"id": f"mmmu-med/test/{row}", "options": options, "answer": "MRI", "text": text}
        for row, text in enumerate(["(B)"] * 6 + ["unclear"] * 4)
    ]
    found = explain(_answered(rows), claimed="80")
    drawn = [each["text"] for each in found["notes"] if each["name"] == "drawn"]
    # Four draws of one in four: 7 of 10 expected, and 1.96 * sqrt(4 * 3 / 16) / 10 around it.
    assert len(drawn) == 3 and all("within 17.0 points" in text for text in drawn)
    assert "It can be one run of mmmu/accuracy (70.00 expected)" in found["conclusion"]
