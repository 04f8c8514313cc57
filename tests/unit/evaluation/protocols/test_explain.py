"""Known confusions on invented files of answers: they are found, add up, and are named."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import Prediction, Question, pair
from exgra_med.evaluation.explain import CAUSES, ClaimedNumber, explain, hidden_in, sign_of
from exgra_med.evaluation.protocols.protocol import Answered

Row = tuple[str, str, str | None]
"""Answer type, reference, answer."""


def answered(rows: list[Row], dataset: str = "vqa-rad", **others: object) -> Answered:
    questions = [
        Question(f"{dataset}/test/{n}", f"question {n}?", reference, kind, images=(f"{n}.png",))
        for n, (kind, reference, _) in enumerate(rows)
    ]
    said = [
        Prediction(each.id, text)
        for each, (*_, text) in zip(questions, rows, strict=True)
        if text is not None
    ]
    return Answered.of(pair(said, questions), **others)


def value_of(result: dict, name: str) -> dict:
    return next(each for each in result["numbers"] if each["name"] == name)


def note(result: dict, name: str) -> str:
    return next(each["text"] for each in result["notes"] if each["name"] == name)


def as_in_vqa_rad() -> list[Row]:
    """As many questions of each kind as the test split has: 272 closed by its field, 21 of them
    without yes or no, and 179 open. Closed: 200 of 251 yes/no right, and 10 of the 21 others."""
    rows: list[Row] = [("CLOSED", "yes", "yes" if n < 200 else "no") for n in range(251)]
    rows += [("CLOSED", "left", "left" if n < 10 else "right") for n in range(21)]
    return rows + [("OPEN", "lung", "lung") for _ in range(179)]


def test_two_ways_to_type_questions_are_two_denominators_and_both_numbers_are_found() -> None:
    rows = answered(as_in_vqa_rad())
    by_field = explain(rows, "77.2")
    assert by_field["conclusion"].startswith("77.2 is, to its rounding, strict/closed")
    by_answer = explain(rows, "79.7")
    assert "medevalkit/closed (closed accuracy: 79.68 of 251 questions)" in by_answer["conclusion"]
    found = explain(rows, between=("exgra-med/closed", "medevalkit/closed"))
    (step,) = found["differences"][0]["steps"]
    assert (step["cause"], len(step["questions"])) == ("denominator", 21)
    assert step["points"] == pytest.approx(100 * 200 / 251 - 100 * 210 / 272)
    assert {each["after"] for each in step["questions"]} == {None}
    assert "179/272" in note(found, "denominators")
    assert "200/251" in note(found, "denominators")
    assert "“left”" in note(found, "denominators")


def test_a_no_inside_another_word_is_named_with_the_word() -> None:
    rows: list[Row] = [
        ("CLOSED", "no", "The lung is normal."),
        ("CLOSED", "no", "Not seen"),
        ("CLOSED", "no", "No"),
        ("CLOSED", "yes", "Yes, it is normal"),
        ("CLOSED", "yes", "Yes"),
    ]
    result = explain(answered(rows))
    assert value_of(result, "exgra-med/closed")["value"] == 100
    assert value_of(result, "strict/closed")["value"] == 60
    # The other evaluator finds "no" in "normal" too, and calls a right "yes" wrong for it.
    assert value_of(result, "medevalkit/closed")["value"] == 80
    assert "“normal” (2), “not” (1)" in note(result, "substring")
    each = next(d for d in result["differences"] if d["second"] == "exgra-med/closed")
    (step,) = each["steps"]
    assert step["cause"] == "answer reading"
    assert [(q["reference"], q["words"]) for q in step["questions"]] == [
        ("no", ["normal"]), ("no", ["not"]),
    ]  # fmt: skip


def test_dropped_wrong_answers_are_named_with_their_points() -> None:
    rows: list[Row] = [("CLOSED", "yes", "yes")] * 2 + [("CLOSED", "no", "yes")] * 3
    rows.append(("CLOSED", "no", "I cannot tell"))
    result = explain(answered(rows, "pathvqa"), "100")
    assert "llava-med-pathvqa/closed" in result["conclusion"]
    result = explain(
        answered(rows, "pathvqa"), between=("exgra-med/closed", "llava-med-pathvqa/closed")
    )
    (step,) = result["differences"][0]["steps"]
    assert step["cause"] == "dropped answers"
    assert (step["before"], step["after"], len(step["questions"])) == (50, 100, 3)
    assert "3 questions leave the denominator of llava-med-pathvqa/closed" in note(
        result, "dropped"
    )


def test_what_is_dropped_is_a_step_of_its_own_in_both_directions() -> None:
    rows: list[Row] = [("CLOSED", "yes", "yes")] * 2 + [("CLOSED", "no", "yes")] * 3
    rows += [("CLOSED", "no", "normal")] * 2
    names = ("llava-med-pathvqa/closed", "strict/closed")
    (away,) = explain(answered(rows, "pathvqa"), between=names)["differences"]
    (back,) = explain(answered(rows, "pathvqa"), between=names[::-1])["differences"]
    expected = [("dropped answers", 3), ("answer reading", 2)]
    assert [(each["cause"], len(each["questions"])) for each in away["steps"]] == expected
    assert [(each["cause"], len(each["questions"])) for each in back["steps"]] == expected[::-1]


def test_a_number_over_the_answered_questions_alone_is_found_as_one_changed_part() -> None:
    rows: list[Row] = [("CLOSED", "yes", "yes")] * 7 + [("CLOSED", "yes", "no")] * 2
    rows += [("CLOSED", "yes", None), ("CLOSED", "yes", "")]
    result = explain(answered(rows), "77.8")
    assert "No protocol for vqa-rad gives 77.8" in result["conclusion"]
    assert "leave the denominator" in result["conclusion"]
    assert {each["count"] for each in result["variants"]} == {9}


def test_steps_add_up_and_a_mean_of_means_is_a_step_of_its_own() -> None:
    rows = [*as_in_vqa_rad(), ("OPEN", "left lung", "lung"), ("CLOSED", "no", "normal")]
    names = ("exgra-med/average", "medevalkit/total")
    (found,) = explain(answered(rows), between=names)["differences"]
    assert [each["cause"] for each in found["steps"]] == [
        "denominator", "answer reading", "averaging",
    ]  # fmt: skip
    for pair_of in (names, names[::-1], ("medgemma/f1", "exgra-med/average")):
        (found,) = explain(answered(rows), between=pair_of)["differences"]
        assert sum(each["points"] for each in found["steps"]) == pytest.approx(found["value"])
        assert {each["cause"] for each in found["steps"]} <= set(CAUSES)
        before = [each["before"] for each in found["steps"]]
        assert before[1:] == [each["after"] for each in found["steps"]][:-1]


def test_a_list_of_candidates_is_a_cause_of_its_own() -> None:
    from exgra_med.evaluation.measures import Candidates

    rows: list[Row] = [("OPEN", "right lung", "in the right lung"), ("OPEN", "liver", "liver")]
    known = answered(rows, candidates=Candidates.of(["right", "right lung", "liver"]))
    (found,) = explain(known, between=("exgra-med/open_recall", "exgra-med/open_accuracy"))[
        "differences"
    ]
    (step,) = found["steps"]
    assert (step["cause"], step["before"], step["after"]) == ("candidate list", 100, 50)
    with pytest.raises(ScoreError, match="needs a list of known answers"):
        explain(answered(rows), between=("exgra-med/open_recall", "exgra-med/open_accuracy"))


def test_two_judges_that_disagree_are_a_cause_of_their_own() -> None:
    rows: list[Row] = [("OPEN", "left lung", "the lung on the left"), ("OPEN", "liver", "liver")]
    first, second = (f"pathvqa/test/{row}" for row in range(2))
    verdicts = {"medevalkit": {first: 1.0, second: 1.0}, "vlmevalkit": {first: 0.0, second: 1.0}}
    names = ("medevalkit-pathvqa/open_judged", "vlmevalkit/open")
    (found,) = explain(answered(rows, "pathvqa", verdicts=verdicts), between=names)["differences"]
    assert [(each["cause"], each["points"]) for each in found["steps"]] == [("judge", -50)]


def test_a_split_is_a_cause_of_its_own() -> None:
    questions = [
        Question(
            f"slake/test/{n}",
            "?",
            "yes",
            "CLOSED",
            images=(f"{n}.png",),
            meta={"language": language},
        )
        for n, language in enumerate(("en", "en", "zh"))
    ]
    said = [Prediction(each.id, "yes" if n < 2 else "no") for n, each in enumerate(questions)]
    (found,) = explain(
        Answered.of(pair(said, questions)), between=("medevalkit-slake/total", "lmms-eval/accuracy")
    )["differences"]
    assert [(s["cause"], len(s["questions"])) for s in found["steps"]] == [("split", 1)]


@pytest.mark.parametrize(
    ("text", "digits", "rounding"),
    [
        ("81.4", "81.4", 0.05),
        ("81.40", "81.40", 0.005),
        ("81,42 %", "81.42", 0.005),
        ("0.814", "81.4", 0.05),
        ("0.8140", "81.40", 0.005),
        ("81", "81", 0.5),
    ],
)
def test_a_claim_is_read_as_it_is_written(text: str, digits: str, rounding: float) -> None:
    claim = ClaimedNumber.of(text)
    value = float(digits)
    assert (str(claim.digits), claim.value) == (digits, value)
    assert claim.is_met_by(value + rounding) and not claim.is_met_by(value + 1.1 * rounding)


@pytest.mark.parametrize("text", ["", "nan", "-1", "1e2", "900", "81.4.2", "eighty"])
def test_what_is_no_score_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ScoreError, match="is no score"):
        ClaimedNumber.of(text)


def test_a_name_that_is_no_number_lists_those_that_are() -> None:
    with pytest.raises(ScoreError, match="Known: strict/average"):
        explain(answered([("CLOSED", "yes", "yes")]), between=("strict/closed", "mine"))


def test_a_word_is_hidden_only_where_it_is_part_of_another() -> None:
    assert hidden_in("no, nothing", "no") == ["nothing"]
    assert hidden_in("the leftmost", "left") == ["leftmost"]
    assert hidden_in("left", "left") == []
    assert sign_of("", "no") == "empty answer"
    assert sign_of("It is the left lung", "left lung") == "more words around the reference"


def test_the_verb_tells_a_person_and_a_machine(tmp_path: Path) -> None:
    reference, answers = tmp_path / "test.json", tmp_path / "answers.jsonl"
    rows = as_in_vqa_rad()
    reference.write_text(
        json.dumps(
            [
                {"id": n, "image": f"{n % 50}.png", "answer_type": kind,
                 "conversations": [{"value": f"question {n}?"}, {"value": right}]}
                for n, (kind, right, _) in enumerate(rows)
            ]
        )
    )  # fmt: skip
    answers.write_text(
        "".join(json.dumps({"id": n, "text": said}) + "\n" for n, (*_, said) in enumerate(rows))
    )
    verb = ["evaluate", "explain", str(answers), str(reference)]
    told = CliRunner().invoke(app, [*verb, "--claimed", "79.7"])
    assert told.exit_code == 0, told.output
    assert "medevalkit/closed" in told.stdout and "is it 79.7?" in told.stdout
    assert "Open/closed denominators: 179/272" in told.stdout
    listed = CliRunner().invoke(app, [*verb, "--between", "exgra-med/closed", "medevalkit/closed"])
    assert "Denominator: +2.5 points, 21 questions" in listed.stdout
    assert "13 more are in --json" in listed.stdout
    printed = CliRunner().invoke(app, [*verb, "--json"])
    result = json.loads(printed.stdout)
    assert result["num_questions"] == 451 and len(result["answers_sha256"]) == 64
    assert isinstance(CliRunner().invoke(app, [*verb, "--claimed", "x"]).exception, ScoreError)


def test_a_file_of_another_tool_is_explained_as_it_is(tmp_path: Path) -> None:
    """MedEvalKit stores its answers beside question and reference, without an id."""
    rows = [("yes", "Yes, normal"), ("no", "no"), ("left lung", "left lung")]
    records = [
        {
            "id": f"vqa-rad/test/{n}",
            "image": f"{n}.png",
            "answer_type": "OPEN" if right == "left lung" else "CLOSED",
            "turns": [{"role": "user", "text": f"What of {n}?"}, {"role": "assistant",
                                                                 "text": right}],
        }
        for n, (right, _) in enumerate(rows)
    ]  # fmt: skip
    reference, answers = tmp_path / "test.jsonl", tmp_path / "results.json"
    reference.write_text("".join(json.dumps(each) + "\n" for each in records))
    answers.write_text(
        json.dumps(
            [
                {"question": f"What of {n}?", "answer": right, "response": said}
                for n, (right, said) in enumerate(rows)
            ]
        )
    )
    verb = ["evaluate", "explain", str(answers), str(reference)]
    told = CliRunner().invoke(app, verb)
    assert told.exit_code == 0, (told.output, told.exception)
    assert "Read as a file of MedEvalKit" in told.stdout
    result = json.loads(CliRunner().invoke(app, [*verb, "--json"]).stdout)
    assert value_of(result, "medevalkit/total")["value"] == pytest.approx(200 / 3)
    assert value_of(result, "strict/average")["value"] == 100
