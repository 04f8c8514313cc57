"""`results.json` is whole at every moment, reads its first schema, and refuses what it is not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_up_run import SayingEngine, made_up_session, make_data

from exgra_med.data.records import open_prepared
from exgra_med.errors import RunError, WriteError
from exgra_med.evaluation.results import (
    Entry,
    Results,
    Score,
    from_schema_1,
    parse_results,
    put_result,
    read_results,
)
from exgra_med.evaluation.session import answers_file
from exgra_med.evaluation.tasks import reliance, vqa

COMMITTED = Path(__file__).with_name("results_of_schema_1.json")
"""Of a run of version 0.1."""


def an_entry(value: float | None = 1.0, **fields: Any) -> Entry:
    """A small entry of a task on a split of a data set."""
    common: dict[str, Any] = {"dataset": "world", "split": "test", "task": "vqa", "engine": {}}
    scores = {"strict": {"average": Score(value=value)}}
    return Entry(**common | {"scores": scores} | fields)


def test_an_entry_replaces_the_one_of_its_task_data_set_and_split(tmp_path: Path) -> None:
    run = tmp_path / "run"
    others = [
        an_entry(2.0, split="odd"), an_entry(3.0, dataset="moon"), an_entry(4.0, task="reliance"),
    ]  # fmt: skip
    for entry in (an_entry(1.0), *others):
        put_result(run, entry)
    found = put_result(run, an_entry(5.0))
    assert found == read_results(run) == Results(results=[an_entry(5.0), *others])
    assert read_results(run).find("vqa") == [an_entry(5.0), *others[:2]]
    assert read_results(run).find("vqa", "world") == [an_entry(5.0), others[0]]
    assert read_results(run).find("vqa", split="test") == [an_entry(5.0), others[1]]
    assert read_results(run).find("vqa", "world", "odd") == [others[0]]
    assert read_results(run).find("chat") == []
    assert sorted(path.name for path in run.iterdir()) == [".writer", "results.json"]


def test_scores_of_earlier_judges_of_the_same_chat_answers_stay(tmp_path: Path) -> None:
    for judge, value in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        scores = {judge: {"win_rate": Score(value=value)}}
        details = {"judges": {judge: {"date": value}}}
        put_result(tmp_path, an_entry(task="chat", scores=scores, details=details))
    (entry,) = read_results(tmp_path).results
    assert {name: entry.score(name, "win_rate").value for name in "ab"} == {"a": 3.0, "b": 2.0}
    assert entry.details == {"judges": {"a": {"date": 3.0}, "b": {"date": 2.0}}}


def test_scores_of_a_judge_of_other_chat_answers_go(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    for judge, text in (("a", "yes"), ("b", "yes"), ("c", "no")):
        answers.write_text(text)
        scores = {judge: {"win_rate": Score(value=1.0)}}
        kept = an_entry(task="chat", scores=scores, answers={"questions": answers.name})
        put_result(tmp_path, kept.model_copy(update={"details": {"judges": {judge: {}}}}))
        (entry,) = read_results(tmp_path).results
        assert list(entry.scores) == list(entry.details["judges"])
        assert list(entry.scores) == {"a": ["a"], "b": ["a", "b"], "c": ["c"]}[judge]


def test_splits_and_data_sets_lie_side_by_side(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    for split, text in (("test", "yes"), ("train", "nothing")):
        vqa.evaluate(
            made_up_session(tmp_path / "run", data, SayingEngine(lambda _, t=text: t), split)
        )
    test, train = read_results(tmp_path / "run").results
    records = open_prepared(data).records("test")
    share = sum(each.answer == "yes" for each in records if each.answer_type == "CLOSED") / 18
    assert (test.label, train.label) == ("made-up, test", "made-up, train")
    assert test.score("strict", "closed_accuracy").value == pytest.approx(100 * share)
    assert test.score("strict", "closed_accuracy") != train.score("strict", "closed_accuracy")
    assert test.score("strict", "closed_accuracy").count == 18
    assert test.answers == {"questions": "predictions/vqa/made-up/test.jsonl"}
    for entry in (test, train):
        assert answers_file(tmp_path / "run", entry).is_file()
        assert entry.engine == {"name": "saying"} and entry.template == "exgra"
        assert entry.data_folder == str(data)
        assert entry.data_fingerprint == open_prepared(data).fingerprint


def test_a_score_that_was_not_measured_has_no_value() -> None:
    assert an_entry().score("strict", "closed_accuracy") == Score(value=None)
    assert an_entry().score("legacy", "average") == Score(value=None)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_result(tmp_path, an_entry(1.0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        put_result(tmp_path, an_entry(2.0))
    assert read_results(tmp_path).results == [an_entry(1.0)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writer", "results.json"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not valid JSON"),
        ("[]", "is no JSON object"),
        (json.dumps({"schema_version": 9}), "schema version 9 is not 2"),
        (json.dumps({"schema_version": 2, "results": {}}), "not what exgra-med writes"),
        (json.dumps({"schema_version": 2, "results": [{"task": "vqa"}]}), "not what exgra-med"),
        (json.dumps({"schema_version": 2, "vqa": {}}), "not what exgra-med"),
        (json.dumps({"schema_version": 1, "vqa": [1]}), "not what exgra-med"),
        (json.dumps({"schema_version": 1, "vqa": {"strict": 1}}), "not what exgra-med"),
        (json.dumps({"schema_version": 1, "chat": {"d": {"j": 1}}}), "not what exgra-med"),
    ],
)
def test_an_unknown_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(RunError, match=sentence):
        read_results(tmp_path)


def test_a_file_outside_the_run_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "secret.jsonl").write_text('{"id": "1", "text": "yes"}\n')
    names = (
        "../secret.jsonl",
        "predictions/../../secret.jsonl",
        str(tmp_path / "secret.jsonl"),
        "",
    )
    for name in names:
        put_result(run, an_entry(answers={"questions": name}))
        (entry,) = read_results(run).results
        with pytest.raises(RunError, match="names no file of answers for world, test"):
            answers_file(run, entry)
    with pytest.raises(RunError, match="names no file"):
        answers_file(run, an_entry())
    inside = an_entry(answers={"questions": "predictions/a.jsonl"})
    assert answers_file(run, inside) == run / "predictions" / "a.jsonl"


# Schema 1: one data set at the top, others and further splits below it, sections for each task.


def old_scorer(value: float, scorer: str = "strict") -> dict[str, Any]:
    """What schema 1 kept of a scorer."""
    return {
        "open_recall": value, "open_f1": 1.0, "bleu": 0.0, "closed_accuracy": 60.0, "average": 61.0,
        "open_accuracy": None,
        "intervals": {
            "open_recall": [40.0, 60.0], "open_f1": None, "bleu": [0.0, 0.0],
            "closed_accuracy": [50.0, 70.0], "average": [51.0, 71.0], "open_accuracy": None,
        },
        "schema_version": 1, "scorer": scorer, "scorer_version": "1", "normaliser_version": "1",
        "num_open": 4, "num_closed": 6, "num_images": 5,
        "denominators": {
            "recall": 4, "f1": 4, "bleu": 4, "closed_accuracy": 6, "open_accuracy": 0,
        },
        "pairing": {"questions": 10, "missing": 1}, "oddities": {}, "left_out_by_published_rule": 0,
        "bootstrap": {"samples": 20, "seed": 0, "unit": "image"},
        "closed_answers": {"macro_f1": 55.0},
        "groups": {
            "organ": {
                "CHEST": {
                    "recall": 20.0, "recall_interval": [10.0, 30.0], "closed_accuracy": None,
                    "closed_accuracy_interval": None, "num_open": 2, "num_closed": 0,
                    "num_images": 2,
                }
            }
        },
    }  # fmt: skip


def old_vqa(dataset: str, split: str, value: float) -> dict[str, Any]:
    """A section `vqa` of schema 1."""
    return {
        "dataset": dataset, "split": split, "num_train_questions": 7, "data_fingerprint": "abc",
        "data_folder": f"data/{dataset}", "template": "exgra", "strict": old_scorer(value),
        "legacy": old_scorer(value + 1, "legacy"),
    }  # fmt: skip


OLD: dict[str, Any] = {
    "schema_version": 1,
    "alignment": {"stage": "aligned", "loss": {"start": 2.0, "end": 1.0}},
    "vqa": old_vqa("world", "test", 50.0),
    "floors": {
        "majority": {
            "strict": {"average": 30.0, "intervals": {"average": [20.0, 40.0]}},
            "legacy": {"average": 31.0, "intervals": {"average": [21.0, 41.0]}},
            "model_minus_floor": {"average": 31.5, "intervals": {"average": [-1.0, 64.0]}},
        }
    },
    "leaks": {
        "num_questions": 10,
        "counts": {"image": 2, "question_text": 3, "image_and_question": 1},
        "clean": {
            "average": 44.0, "recall": 40.0, "closed_accuracy": 48.0, "num_open": 3,
            "num_closed": 5, "num_images": 4,
            "intervals": {"average": [1.0, 2.0], "recall": [3.0, 4.0], "closed_accuracy": None},
        },
    },
    "visual_reliance": {
        "blank": {
            "average": 5.0, "open_recall": 4.0, "same_answer": 70.0,
            "intervals": {"average": [1.0, 9.0], "open_recall": [0.0, 8.0]},
        },
        "mirrored": {"num": 4, "follows": 25.0},
    },
    "other_splits": {"odd": {"vqa": old_vqa("world", "odd", 51.0)}},
    "other_datasets": {
        "moon": {
            "vqa": old_vqa("moon", "test", 52.0),
            "leaks": {"num_questions": 1, "counts": {"image": 1}, "clean": None},
            "other_splits": {"odd": {"vqa": old_vqa("moon", "odd", 53.0)}},
        }
    },
    "multiple_choice": {
        "omni": {
            "templates": {"likelihood": "exgra"},
            "generation_strict": {
                "accuracy": 40.0, "interval": [30.0, 50.0], "macro_accuracy": 41.0,
                "balanced_accuracy": 39.0, "unreadable": 7.5, "guessing": 37.5,
                "num_questions": 93, "num": 93, "groups": {"modality": {"CT": {"accuracy": 40.0}}},
            },
            "text_only_floor": {
                "accuracy": 33.0, "interval": None, "macro_accuracy": 33.0,
                "balanced_accuracy": 33.0, "guessing": 37.5, "num_questions": 93, "num": 93,
            },
            "calibration": {"num": 93, "brier": 0.2},
            "num_without_options": 7,
        }
    },
    "chat": {
        "talk": {
            "gpt": {
                "relative_score": 50.0, "relative_score_published_order": 51.0, "win_rate": 10.0,
                "intervals": {
                    "relative_score": [40.0, 60.0], "relative_score_published_order": None,
                    "win_rate": [5.0, 15.0],
                },
                "num": 11, "num_questions": 12, "num_unjudged": 1, "date": "2025-01-01",
                "by_type": {"conversation": {"relative_score": 52.0, "num": 8, "intervals": {}}},
                "by_domain": {},
            }
        }
    },
}  # fmt: skip


def test_every_section_of_schema_1_becomes_entries() -> None:
    found = parse_results(OLD, "results.json")
    assert found == from_schema_1(OLD)
    assert [(each.task, each.dataset, each.split) for each in found.results] == [
        ("vqa", "world", "test"), ("reliance", "world", "test"), ("vqa", "world", "odd"),
        ("vqa", "moon", "test"), ("vqa", "moon", "odd"), ("multiple-choice", "omni", "test"),
        ("chat", "talk", "test"),
    ]  # fmt: skip
    headline, reliance, _, moon, _, choices, chat = found.results
    assert headline.scores["strict"] == {
        "open_recall": Score(value=50.0, interval=[40.0, 60.0], count=4),
        "open_f1": Score(value=1.0, count=4),
        "bleu": Score(value=0.0, interval=[0.0, 0.0], count=4),
        "closed_accuracy": Score(value=60.0, interval=[50.0, 70.0], count=6),
        "average": Score(value=61.0, interval=[51.0, 71.0], count=10),
        "open_accuracy": Score(value=None, count=0),
    }
    assert headline.score("legacy", "open_recall").value == 51.0
    assert (headline.data_folder, headline.data_fingerprint) == ("data/world", "abc")
    assert headline.template == "exgra" and headline.details["num_train_questions"] == 7
    scorer = headline.details["scorers"]["strict"]
    assert scorer["scorer_version"] == scorer["normaliser_version"] == "1"
    assert (scorer["num_open"], scorer["num_closed"], scorer["num_images"]) == (4, 6, 5)
    assert scorer["pairing"] == {"questions": 10, "missing": 1}
    assert scorer["closed_answers"] == {"macro_f1": 55.0}
    assert not scorer.keys() & {"open_recall", "intervals", "denominators", "schema_version"}
    chest = headline.details["groups"]["organ"]["CHEST"]
    assert chest["scores"]["open_recall"]["value"] == 20.0
    assert chest["scores"]["open_recall"]["interval"] == [10.0, 30.0]
    assert chest["scores"]["closed_accuracy"]["value"] is None
    assert (chest["num_open"], chest["num_closed"], chest["num_images"]) == (2, 0, 2)
    majority = headline.details["baselines"]["majority"]
    assert majority["scores"]["strict"]["average"]["value"] == 30.0
    assert majority["scores"]["legacy"]["average"]["interval"] == [21.0, 41.0]
    assert majority["difference"]["average"]["value"] == 31.5
    leaks = headline.details["leaks"]
    assert leaks["counts"]["image"] == 2 and leaks["num_questions"] == 10
    assert leaks["clean"]["scores"]["open_recall"]["interval"] == [3.0, 4.0]
    assert leaks["clean"]["scores"]["average"]["value"] == 44.0
    assert leaks["clean"]["num_open"] == 3
    assert reliance.scores == {
        "blank": {
            "average": Score(value=5.0, interval=[1.0, 9.0]),
            "open_recall": Score(value=4.0, interval=[0.0, 8.0]),
            "same_answer": Score(value=70.0),
        }
    }
    assert reliance.details["mirrored"] == {"num": 4, "follows": 25.0}
    assert moon.details["leaks"]["clean"] is None and moon.details["baselines"] == {}
    assert choices.scores["generation_strict"]["accuracy"] == Score(
        value=40.0, interval=[30.0, 50.0], count=93
    )
    assert choices.score("generation_strict", "unreadable").value == 7.5
    assert choices.score("text_only_baseline", "macro_accuracy").value == 33.0
    assert choices.score("guessing", "accuracy").value == 37.5
    assert choices.details["calibration"] == {"num": 93, "brier": 0.2}
    assert choices.details["num_without_options"] == 7
    assert chat.scores["gpt"]["relative_score"] == Score(
        value=50.0, interval=[40.0, 60.0], count=11
    )
    assert chat.score("gpt", "win_rate").value == 10.0
    judged = chat.details["judges"]["gpt"]
    assert judged["num_unjudged"] == 1 and judged["date"] == "2025-01-01"
    assert judged["groups"]["question type"]["conversation"]["relative_score"]["value"] == 52.0


def test_answers_of_schema_1_are_found_where_they_lie() -> None:
    found = [each for each in from_schema_1(OLD).results if each.answers]
    assert {(each.task, each.label): each.answers["questions"] for each in found} == {
        ("vqa", "world, test"): "predictions/world.jsonl",
        ("vqa", "world, odd"): "predictions/world/split-odd.jsonl",
        ("vqa", "moon, test"): "predictions/moon.jsonl",
        ("vqa", "moon, odd"): "predictions/moon/split-odd.jsonl",
        ("chat", "talk, test"): "predictions/talk/answers.jsonl",
    }


def test_a_run_of_schema_1_is_scored_further_and_kept(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(OLD))
    put_result(tmp_path, an_entry(9.0))
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["schema_version"] == 2
    found = read_results(tmp_path)
    assert found.find("vqa", "world", "test") == [an_entry(9.0)]
    before = from_schema_1(OLD).results
    assert [each for each in found.results if each.key != an_entry().key] == before[1:]


def test_a_committed_file_of_schema_1_is_read() -> None:
    values = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert values["schema_version"] == 1
    (entry,) = parse_results(values, COMMITTED.name).results
    for scorer in ("strict", "legacy"):
        old = values["vqa"][scorer]
        assert entry.scores[scorer].keys() == old["intervals"].keys()
        for name, score in entry.scores[scorer].items():
            assert (score.value, score.interval) == (old[name], old["intervals"][name])
            kinds = {"closed_accuracy": 34, "average": 56}
            assert score.count == kinds.get(name, 22)
    assert entry.details["baselines"].keys() == {"majority", "text_nearest"}
    assert entry.details["leaks"]["counts"] == values["leaks"]["counts"]


def test_scores_are_not_overwritten_by_those_of_fewer_answers(tmp_path: Path) -> None:
    """Whether the answers were removed, or another service answers fewer of them."""
    data, run = make_data(tmp_path / "data"), tmp_path / "run"
    vqa.evaluate(made_up_session(run, data, SayingEngine(lambda record: record.answer)))
    before = (run / "results.json").read_bytes()
    shutil.rmtree(run / "predictions")
    lazy = SayingEngine(lambda record: record.answer if record.answer_type == "OPEN" else None)
    with pytest.raises(
        RunError, match=r"has scores of 30 answers to made-up, test .* 12 are there"
    ):
        vqa.evaluate(made_up_session(run, data, lazy))
    assert (run / "results.json").read_bytes() == before
    # The rest is answered, and then it is scored.
    vqa.evaluate(made_up_session(run, data, SayingEngine(lambda _: "no")))
    (entry,) = read_results(run).results
    assert entry.counts() == {**(entry.counts() or {}), "questions": 30, "missing": 0}


def test_pictures_that_are_not_shown_again_keep_their_scores(tmp_path: Path) -> None:
    data, run = make_data(tmp_path / "data"), tmp_path / "run"
    session = made_up_session(run, data, SayingEngine(lambda record: record.answer))
    full = reliance.evaluate(session)
    again = reliance.evaluate(session, ["shuffled"])
    assert full is not None and again is not None
    assert again.scores.keys() == full.scores.keys() and again.answers == full.answers
    assert again.details == full.details and again.answers_sha256 == full.answers_sha256
    (run / full.answers["blank"]).unlink()
    with pytest.raises(RunError, match=r"not in the run as they were: .*reliance/blank"):
        reliance.evaluate(session, ["shuffled"])
    assert again in read_results(run).results
