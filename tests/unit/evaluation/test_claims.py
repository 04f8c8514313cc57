"""Scores beside what is claimed: pass, fail, cannot be told apart, not compared."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import CheckpointError, CommandError, DataError
from exgra_med.evaluation.claims import (
    CLAIM_RULE,
    claim_sentences,
    claims_of,
    claims_of_model,
    judge_claims,
)
from exgra_med.evaluation.results import Entry, Score
from exgra_med.evaluation.tasks.vqa import TASK, _claims
from exgra_med.model.bundle import local_folder
from exgra_med.model.published import PUBLISHED_CHECKPOINTS, PublishedScore, published_checkpoint

CLAIM = PublishedScore("vqa-rad", "legacy", "average", "75.2", "a paper", questions=451)
SCORES = {"legacy": {"average": {"value": 75.2, "interval": [71.0, 79.0], "count": 451}}}


def verdict(claim: PublishedScore = CLAIM, scores: Any = SCORES, **about: Any) -> tuple[str, str]:
    asked: dict[str, Any] = {"dataset": "vqa-rad", "split": "test", **about}
    (found,) = judge_claims([claim], scores, **asked)
    return found["verdict"], found["why"]


def scored(value: float | None, interval: list[float] | None) -> dict[str, Any]:
    return {"legacy": {"average": {"value": value, "interval": interval, "count": 451}}}


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (75.2, [71.0, 79.0], "pass"),
        (75.15, [71.0, 79.0], "pass"),
        (75.25, [71.0, 79.0], "pass"),
        (75.26, [71.0, 79.0], "cannot be told apart"),
        (75.14, [71.0, 79.0], "cannot be told apart"),
        # The interval reaches what rounds to the claim, though not the claim.
        (72.0, [69.0, 75.15], "cannot be told apart"),
        (72.0, [69.0, 75.14], "fail"),
        (80.0, [75.26, 84.0], "fail"),
        (75.2, None, "pass"),
    ],
)
def test_the_rounding_of_the_claim_and_the_interval_decide(
    value: float, interval: list[float] | None, expected: str
) -> None:
    assert verdict(scores=scored(value, interval)) == (expected, "")


def test_a_claim_below_one_percent_is_one_where_the_score_is() -> None:
    tiny = replace(CLAIM, value="0.7")
    assert verdict(tiny, scored(0.68, [0.0, 1.5]))[0] == "pass"
    assert verdict(tiny, scored(3.0, [2.0, 4.5]))[0] == "fail"
    assert (
        verdict(replace(CLAIM, value="0.01"), scored(0.7, [0.0, 2.0]))[0] == "cannot be told apart"
    )
    assert verdict(replace(CLAIM, value="0.60"))[0] == "fail"


def test_a_claim_with_more_decimals_is_held_more_strictly() -> None:
    assert verdict(replace(CLAIM, value="75.20"))[0] == "pass"
    assert verdict(replace(CLAIM, value="75.21"))[0] == "cannot be told apart"
    assert verdict(replace(CLAIM, value="75"))[0] == "pass"


@pytest.mark.parametrize(
    ("claim", "about", "why"),
    [
        (replace(CLAIM, dataset="slake"), {}, "claimed on slake/test, asked on vqa-rad/test"),
        (CLAIM, {"split": "train"}, "claimed on vqa-rad/test, asked on vqa-rad/train"),
        (replace(CLAIM, protocol="medgemma"), {}, "claimed under medgemma, scored under legacy"),
        (replace(CLAIM, measure="blue"), {}, "legacy has no measure blue"),
        (CLAIM, {"scores": scored(None, None)}, "average has no value here"),
        (replace(CLAIM, questions=2248), {}, "claimed of 2248 questions, scored 451"),
        (CLAIM, {"num_unanswered": 3}, "3 questions have no answer"),
        (CLAIM, {"scores": scored(70.0, None)}, "too few pictures for an interval"),
        (replace(CLAIM, value="0.752"), {}, "0.752 reads as a fraction; in percent it is 75.2"),
        (replace(CLAIM, value="0.73"), {}, "0.73 reads as a fraction; in percent it is 73"),
    ],
)
def test_a_claim_under_another_protocol_is_told_and_not_compared(
    claim: PublishedScore, about: dict[str, Any], why: str
) -> None:
    assert verdict(claim, **about) == ("not compared", why)


def test_a_reference_that_names_no_data_set_is_taken_at_its_word() -> None:
    assert verdict(dataset=None, split=None) == ("pass", "")


def test_each_verdict_is_a_sentence_and_the_rule_stands_behind_them() -> None:
    judged = judge_claims(
        [CLAIM, replace(CLAIM, dataset="slake")], SCORES, dataset="vqa-rad", split="test"
    )
    said = claim_sentences(judged)
    assert said[0].endswith("a paper). Measured: 75.2 (71.0 to 79.0). Pass.")
    assert said[1].endswith("Not compared: claimed on slake/test, asked on vqa-rad/test.")
    assert said[2] == CLAIM_RULE
    assert claim_sentences(judged[1:]) == said[1:2]


def test_a_file_of_claims_is_read(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(
        'claims:\n- {dataset: slake, protocol: strict, measure: average, value: "80.0", '
        "source: me}\n- {dataset: slake, protocol: strict, measure: average, value: 81, "
        "source: me, split: train, questions: 5}\n",
        encoding="utf-8",
    )
    assert claims_of(str(path)) == (
        PublishedScore("slake", "strict", "average", "80.0", "me"),
        PublishedScore("slake", "strict", "average", "81", "me", split="train", questions=5),
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("75.20", "75.20"),
        ('"75.20"', "75.20"),
        ("75.0", "75.0"),
        ("75", "75"),
        ("-0.30", "-0.30"),
        ("0.1000000000000000055", None),
        ("75.", None),
        ("7.5e1", None),
        ("1e999999999", None),
        ("'1e999999'", None),
        (".nan", None),
        ("nan", None),
        ("true", None),
        ("[75.2]", None),
        ("'75,2'", None),
    ],
)
def test_the_digits_of_a_claim_are_those_that_are_written(
    tmp_path: Path, written: str, value: str | None
) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(
        f"claims: [{{dataset: vqa-rad, protocol: legacy, measure: average, value: {written}, "
        "source: 2410.02610}]\n",
        encoding="utf-8",
    )
    if value is None:
        with pytest.raises(DataError, match=r"claims\.0\.value: not a number such as 75\.25"):
            claims_of(str(path))
        return
    (claim,) = claims_of(str(path))
    assert (claim.value, claim.source) == (value, "2410.02610")


def test_a_zero_at_the_end_of_an_unquoted_claim_decides(tmp_path: Path) -> None:
    found = []
    for written in ("75.2", "75.20"):
        path = tmp_path / f"{written}.yaml"
        path.write_text(
            "claims: [{dataset: vqa-rad, protocol: legacy, measure: average, source: me, "
            f"value: {written}}}]\n",
            encoding="utf-8",
        )
        found.append(verdict(claims_of(str(path))[0], scored(75.24, [71.0, 79.0]))[0])
    assert found == ["pass", "cannot be told apart"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "no list of claims"),
        ("claims: []\n", "claims: list should have at least 1"),
        ("claims: [{dataset: a}]\n", r"claims\.0\.protocol: field required"),
        (
            "claims: [{dataset: a, protocol: b, measure: c, value: much, source: d}]\n",
            "not a number such as 75.25: 'much'",
        ),
        (
            "claims: [{dataset: a, protocol: b, measure: c, value: 1, source: d, sauce: e}]\n",
            "sauce: unknown key",
        ),
        (
            "claims: [{dataset: a, protocol: b, measure: c, value: 7520, source: d}]\n",
            r"claims\.0\.value: 7520 is no score: scores are in percent",
        ),
        ("claims: [\n", "not valid YAML|YAML"),
    ],
)
def test_a_file_that_is_none_of_claims_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        claims_of(str(path))


def test_the_registry_has_twenty_checkpoints_each_with_a_claim_or_a_reason() -> None:
    assert len({each.name for each in PUBLISHED_CHECKPOINTS}) == 20
    assert all(bool(each.claims) != bool(each.no_claims) for each in PUBLISHED_CHECKPOINTS)
    (claim,) = claims_of("MERGE-Group/exgra-med-dci-vqa-rad")
    assert (claim.value, claim.questions) == ("75.25", 451)
    found = published_checkpoint("leduckhai/S-Chain/exgra-med-gpt-schain")
    assert found is not None
    assert found.folder == "exgra-med-gpt-schain"
    for name, message in (("exgra-med-base", "was not read"), ("nobody", "neither a YAML file")):
        with pytest.raises(CommandError, match=message):
            claims_of(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exgra-med-dci", "original's layout.*checkpoint import exgra-med-dci"),
        ("exgra-med-base", r"original's layout.*--include 'exgra-med-base/\*'"),
        ("microsoft/llava-med-v1.5-mistral-7b", "a layout of its own.*evaluate score"),
    ],
)
def test_a_published_name_says_what_to_do_with_it(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        local_folder(name)


def test_an_imported_checkpoint_is_known_by_where_it_came_from(tmp_path: Path) -> None:
    assert claims_of_model(tmp_path) == ()
    (tmp_path / "import.json").write_text(
        json.dumps({"source": "exgra-med-dci-slake"}), encoding="utf-8"
    )
    assert claims_of_model(tmp_path)[0].dataset == "slake"
    assert claims_of_model(None, "MERGE-Group/exgra-med-dci-pathvqa")[0].value == "64.82"
    assert claims_of_model(None, "qwen2.5-vl") == ()
    run = SimpleNamespace(recipe=None, last_checkpoint=tmp_path)
    assert _claims(SimpleNamespace(run=run))[0].dataset == "slake"  # pyrefly: ignore


def test_the_report_has_a_table_of_verdicts() -> None:
    judged = judge_claims([CLAIM], SCORES, dataset="vqa-rad", split="test")
    scores = {"legacy": {"average": Score(**SCORES["legacy"]["average"])}}
    entry = Entry(
        dataset="vqa-rad", split="test", task="vqa", engine={}, scores=scores,
        details={"claims": judged},
    )  # fmt: skip
    block = TASK.further(entry)[0]
    assert block.title == "Beside what is claimed"
    (row,) = block.table.rows
    assert (row.cells[0], row.cells[2], row.cells[3]) == ("75.2", "pass", "a paper")
    assert block.under == CLAIM_RULE


def test_score_and_vqa_take_what_is_expected(tmp_path: Path) -> None:
    asked = {
        "id": "d/test/1", "turns": [{"role": "user", "text": "Is it?"},
        {"role": "assistant", "text": "yes"}], "answer_type": "CLOSED",
    }  # fmt: skip
    (tmp_path / "test.jsonl").write_text(json.dumps(asked) + "\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"id": "d/test/1", "text": "yes"}\n', encoding="utf-8")
    (tmp_path / "c.yaml").write_text(
        "claims: [{dataset: d, protocol: strict, measure: closed_accuracy, value: 100, "
        "source: me}]\n",
        encoding="utf-8",
    )
    words = ["evaluate", "score", f"{tmp_path}/a.jsonl", f"{tmp_path}/test.jsonl"]
    shown = CliRunner().invoke(app, [*words, "--expect", f"{tmp_path}/c.yaml"])
    assert shown.exit_code == 0
    assert "Measured: 100. Pass." in " ".join(shown.output.split())
    for verb in (words, ["evaluate", "vqa", "no-such-run"]):
        refused = CliRunner().invoke(app, [*verb, "--expect", "nobody"])
        assert isinstance(refused.exception, CommandError) or "nobody" in refused.output
