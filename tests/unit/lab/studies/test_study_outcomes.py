"""Further outcomes of a study: other tests, and what scores lose with other pictures."""

import json
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
from fake_study import DATA, events, write_study
from made_up_run import SayingEngine, made_up_session

from exgra_med.data.prepare import prepare
from exgra_med.data.records import open_prepared, write_records
from exgra_med.errors import DataError, RecipeError, ScoreError
from exgra_med.evaluation.statistics import holm
from exgra_med.evaluation.tasks import reliance
from exgra_med.lab.studies.folder import is_finished, start_study
from exgra_med.lab.studies.node import run_node
from exgra_med.lab.studies.report import write_outcome, write_results
from exgra_med.lab.studies.schema import load_study
from exgra_med.lab.studies.table import blocks, comparison_rows
from exgra_med.recipe.run_folder import start_run
from exgra_med.terminal import Silent

STUDY = """
name: outcomes
recipe: debug/tiny
methods:
  instruct: {title: Plain, set: {stages.aligned.alignment: null}}
  exgra-med: {title: ExGra-Med}
fractions: [0.1]
seeds: [0, 1]
baseline: instruct
evaluation: {num_bootstrap_samples: 200, also: [OTHER], conditions: [shuffled]}
"""
# Right with its own picture, right with another one, by test and method.
SKILL = {
    (DATA, "instruct"): (0.4, 0.4),
    (DATA, "exgra-med"): (0.9, 0.4),
    ("other", "instruct"): (0.95, 0.1),
    ("other", "exgra-med"): (0.1, 0.1),
}


def _answer(
    folder: Path, node, data: str, own: list, skill: tuple[float, float], silent: str = ""
) -> None:
    run = start_run(folder / node.id, node.recipe, resume=True)
    luck = dict(zip([r.id for r in own], np.random.default_rng(0).random(len(own)), strict=True))
    shown = {record.id: record.images for record in own}

    def say(record) -> str | None:
        if record.id == silent and record.images != shown[record.id]:
            return None
        chance = skill[record.images != shown[record.id]]
        answers = {each.id: each.answer for each in own}
        return answers[record.id] if luck[record.id] < chance else "nothing of that"

    session = made_up_session(run.path, data, SayingEngine(say), num_bootstrap_samples=20)
    reliance.evaluate(session, ["shuffled"])
    run.log.write_text("".join(json.dumps(event) + "\n" for event in events(node.cell)))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _prepared(tmp_path_factory.mktemp("data"), 30)


def _is_seen(picture: str) -> bool:
    return picture in ("synpic31248.jpg", "synpic32108.jpg")


def _prepared(place: Path, count: int) -> str:
    sample = open_prepared(DATA)
    copytree(sample.path / "images", place / "source" / "images")
    records = [
        record.model_copy(
            update={"meta": record.meta | {"seen_look_alike": _is_seen(record.images[0])}}
        )
        for record in sample.records("test")[:count]
    ]
    write_records(place / "source" / "test.jsonl", records)
    prepare("custom", place / "source", place / "other", overwrite=True, dataset_name="other")
    return str(place / "other")


def _study(place: Path, other: str, finish: bool = True, silent: str = ""):
    study = load_study(str(write_study(place, STUDY.replace("OTHER", other))))
    folder = place / "study"
    nodes = start_study(folder, study)
    for node in (node for node in nodes if node.cell is not None):
        for data in (other, DATA) if finish else (DATA,):
            own = list(open_prepared(data).records("test"))
            name = DATA if data == DATA else "other"
            method = node.cell.method
            quiet = silent if method == "exgra-med" else ""
            _answer(folder, node, data, own, SKILL[name, method], quiet)
    return folder, study, nodes


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, other: str):
    folder, _, _ = _study(tmp_path_factory.mktemp("study"), other)
    return write_outcome(folder)


def test_every_outcome_has_its_own_numbers(results):
    lost = "lost with exchanged pictures"
    assert list(results["outcomes"]) == [lost, "other", f"other: {lost}"]
    value = {
        name: outcome["comparisons"][0]["value"] for name, outcome in results["outcomes"].items()
    }
    main = results["comparisons"][0]["value"]
    assert main > 30 and value["other"] < -30
    # The blind scores of both methods are equal, so what is lost differs as the scores do.
    assert value[lost] == pytest.approx(main)
    assert value[f"other: {lost}"] == pytest.approx(value["other"])
    points = results["outcomes"][lost]["arms"]["instruct"]["points"]
    assert points[0]["value"] == pytest.approx(0)


def test_pictures_without_a_look_alike_are_reported_and_not_tested(results, other):
    assert list(results["parts"]) == ["other without look-alikes"]
    part = results["parts"]["other without look-alikes"]
    records = list(open_prepared(other).records("test"))
    kept = [record for record in records if not _is_seen(record.images[0])]
    assert 0 < len(kept) < len(records) and part["num_questions"] == len(kept)
    assert part["num_images"] == len({record.images[0] for record in kept})
    assert "comparisons" not in part
    # The good method has its share of right answers there too.
    assert part["arms"]["instruct"]["points"][0]["value"] > 85
    (block,) = [each for each in blocks(results) if "without look-alikes" in each.caption]
    assert f"{len(kept)} questions" in block.caption and "not tested" in block.caption


def test_p_values_are_adjusted_over_all_outcomes(results):
    rows = [*results["comparisons"]]
    for outcome in results["outcomes"].values():
        rows += outcome["comparisons"]
    assert [row["p_holm"] for row in rows] == holm([row["p"] for row in rows])
    assert len(rows) == 4


def test_words_and_tables_name_the_outcome(results):
    text = " ".join(results["conclusion"])
    assert "ExGra-Med is better than Plain" in text
    assert "other: ExGra-Med is worse than Plain" in text
    assert "lost with exchanged pictures: ExGra-Med is better than Plain" in text
    captions = [block.caption for block in blocks(results)]
    assert ["other" in each for each in captions] == [False, False, True, True, True]
    assert ["other" in row[0] for row in comparison_rows(results)] == [False, False, True, True]


def test_further_tests_may_ask_the_model_of_an_earlier_stage(tmp_path, monkeypatch, other):
    text = STUDY.replace("OTHER", other)
    own = text.replace("conditions", "also_after: connector, conditions")
    study = load_study(str(write_study(tmp_path, own)))
    folder = tmp_path / "study"
    node = next(each for each in start_study(folder, study) if each.cell is not None)
    asked = []

    def trained(run, *_):
        for stage in run.recipe.stages:
            run.final(stage).mkdir(parents=True)

    def ask(session, conditions):
        asked.append((session.dataset, Path(session.engine.options.model).parent.name))

    monkeypatch.setattr("exgra_med.lab.studies.node.train_run", trained)
    monkeypatch.setattr("exgra_med.lab.studies.node.reliance.evaluate", ask)
    run_node(folder, node.id, Silent())
    last = list(study.recipe.stages)[-1]
    assert asked == [("other", "connector"), (DATA.split(":")[1], last)] and last != "connector"
    with pytest.raises(RecipeError, match="also_after"):
        load_study(str(write_study(tmp_path, own.replace("after: connector", "after: nothing"))))


def test_a_cell_is_finished_with_all_its_outcomes(tmp_path, other):
    folder, study, nodes = _study(tmp_path, other, finish=False)
    cells = [node for node in nodes if node.cell is not None]
    assert not any(is_finished(folder, node, study) for node in cells)
    assert write_results(folder)["missing"] == [node.id for node in cells]


def test_a_test_that_was_changed_is_refused(tmp_path, other):
    folder, _, _ = _study(tmp_path, _prepared(tmp_path / "mine", 12))
    rmtree(tmp_path / "mine" / "source")
    _prepared(tmp_path / "mine", 11)
    with pytest.raises(ScoreError, match="is not the data"):
        write_results(folder)


def test_answers_that_are_missing_with_other_pictures_leave_no_verdict(tmp_path, other):
    silent = open_prepared(other).records("test")[0].id
    folder, _, _ = _study(tmp_path, other, silent=silent)
    told = write_results(folder)["conclusion"]
    # Two seeds; the question stands in both tests.
    assert told[0].startswith("4 questions have no answer in runs of ExGra-Med")
    assert not any("better" in each or "worse" in each for each in told)


def test_a_test_that_is_not_there_is_said_before_training(tmp_path):
    study = load_study(str(write_study(tmp_path, STUDY.replace("OTHER", "data/gone"))))
    node = next(each for each in start_study(tmp_path / "study", study) if each.cell)
    with pytest.raises(DataError, match="data/gone"):
        run_node(tmp_path / "study", node.id, Silent())
    assert not (tmp_path / "study" / node.id).exists()
