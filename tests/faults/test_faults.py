"""Damaged run folders and killed commands; `python -m tests.faults` tries as many as are wanted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from damage import (
    DAMAGES,
    SMALL,
    STAGE,
    Case,
    Grid,
    acts,
    acts_beside,
    command,
    damage_all,
    make_beside,
    make_run,
    unfinished,
)
from kills import kill_at_random

from exgra_med.recipe.run_folder import open_run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """A run of four steps, made once."""
    place = tmp_path_factory.mktemp("damage")
    make_run(place / "whole", *SMALL)
    return Grid(place / "whole", place, acts(SMALL))


@pytest.fixture(scope="module")
def beside(small: Grid) -> Grid:
    """What lies beside that run."""
    place = small.work / "others"
    place.mkdir()
    make_beside(small.whole, place / "whole")
    return Grid(place / "whole", place, acts_beside())


FINAL, STEP = "checkpoints/vqa/final", "checkpoints/vqa/step-000002"
ANSWERS = "predictions/vqa/vqa-rad-sample/test"
KINDS = [
    ("resume a finished run", f"{FINAL}/model.safetensors", "flipped late"),
    ("resume a finished run", f"{FINAL}/config.json", "gone"),
    ("resume a finished run", f"{FINAL}/digests.json", "cut"),
    ("resume a finished run", f"{FINAL}/digests.json", "gone"),
    ("resume a finished run", "recipe.yaml", "gone"),
    ("resume a finished run", "recipe.yaml", "folder"),
    ("resume a finished run", "recipe.yaml", "digit"),
    ("resume a finished run", "recipe.yaml", "cut"),
    ("resume a finished run", "record.json", "not UTF-8"),
    ("resume an unfinished run", f"{STEP}/progress.json", "digit"),
    ("resume an unfinished run", f"{STEP}/progress.json", "folder"),
    ("resume an unfinished run", f"{STEP}/parameters.safetensors", "flipped late"),
    ("resume an unfinished run", f"{STEP}/optimizer.safetensors", "flipped early"),
    ("resume an unfinished run", f"{STEP}/optimizer.safetensors", "empty"),
    ("resume an unfinished run", "recipe.yaml", "not UTF-8"),
    ("resume an unfinished run", "record.json", "folder"),
    ("resume an unfinished run", "log.jsonl", "digit"),
    ("resume an unfinished run", "log.jsonl", "not UTF-8"),
    ("resume an unfinished run", "log.jsonl", "gone"),
    ("evaluate", "results.json", "other type"),
    ("evaluate", f"{ANSWERS}.jsonl", "digit"),
    ("evaluate", f"{ANSWERS}.jsonl", "cut"),
    ("evaluate", f"{ANSWERS}.about.json", "digit"),
    ("evaluate", f"{FINAL}/model.safetensors", "digit"),
    ("evaluate", f"{FINAL}/processor_config.json", "gone"),
    ("report", "results.json", "digit"),
    ("report", "results.json", "gone"),
    ("report", "record.json", "gone"),
    ("report", "log.jsonl", "cut"),
    ("report", "log.jsonl", "empty"),
    ("report", f"{ANSWERS}.jsonl", "gone"),
    ("report", f"{ANSWERS}.jsonl", "flipped early"),
    ("report", f"{ANSWERS}.about.json", "folder"),
    ("export", f"{FINAL}/model.safetensors", "flipped late"),
]


@pytest.mark.parametrize(("act", "file", "damage"), KINDS)
def test_damage_is_named_or_changes_nothing(small: Grid, act: str, file: str, damage: str) -> None:
    found = {each.name: each for each in acts(SMALL)}[act]
    assert not small.problem(Case(found, file, damage))


def test_a_step_that_was_changed_is_named(small: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_step(path: Path) -> None:
        text = path.read_text("utf-8")
        assert text.count('"step": 2') == 1
        path.write_text(text.replace('"step": 2', '"step": 3'), "utf-8")

    monkeypatch.setitem(DAMAGES, "another step", another_step)
    found = {each.name: each for each in acts(SMALL)}["resume an unfinished run"]
    assert not small.problem(Case(found, f"{STEP}/progress.json", "another step"))


def test_a_card_names_a_record_that_is_not_utf_8(small: Grid, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small.whole, run)
    DAMAGES["not UTF-8"](run / "record.json")
    found = command("evaluate", "card", str(run))
    assert found.code == 2 and f"{run / 'record.json'}: not UTF-8" in found.said


KINDS_BESIDE = [
    ("train on prepared data", "data/train.jsonl", "digit"),
    ("train on prepared data", "data/manifest.json", "digit"),
    ("train on prepared data", "data/manifest.json", "folder"),
    ("merge captions", "data/test.jsonl", "empty"),
    ("merge captions", "long.jsonl", "digit"),
    ("merge captions", "long.jsonl", "cut"),
    ("verify an export", "export/processor_config.json", "digit"),
    ("judge again", "judged/predictions/chat/questions/test.jsonl", "digit"),
    ("judge again", "judged/results.json", "other type"),
    ("report of a study", "study/study.yaml", "digit"),
    ("report of a study", "study/results.json", "digit"),
    ("report of a study", "study/cells/one/1/seed-0/log.jsonl", "gone"),
    ("report of a study", "study/cells/one/1/seed-0/record.json", "not UTF-8"),
]


@pytest.mark.parametrize(("act", "file", "damage"), KINDS_BESIDE)
def test_damage_beside_runs_is_named_or_changes_nothing(
    beside: Grid, act: str, file: str, damage: str
) -> None:
    found = {each.name: each for each in beside.acts}[act]
    assert (beside.whole / file).is_file()
    assert not beside.problem(Case(found, file, damage))


def test_a_stage_does_not_go_on_with_other_data(small: Grid, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small.whole, run)
    unfinished(run)
    opened = open_run(run)
    data = opened.record()["data"]
    data[STAGE]["fingerprint"] = 64 * "0"  # as if it had been prepared anew since
    opened.add_to_record("data", data)
    words = {each.name: each.words(run) for each in acts(SMALL)}["resume an unfinished run"]
    found = command(*words)
    said = " ".join(found.said.split())
    assert found.code == 2 and f"The stage '{STAGE}' of {run} began with other data" in said
    assert not opened.final(STAGE).exists()


HOLD = (
    "import sys, time; from pathlib import Path; from exgra_med import files\n"
    "with files.sole_writer(Path(sys.argv[1]) / files.LOCK, 'it'):\n"
    "    print('held', flush=True); time.sleep(60)"
)


def test_only_readers_come_beside_a_writer(small: Grid, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small.whole, run)
    log = (run / "log.jsonl").read_bytes()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    words = {each.name: each.words(run) for each in acts(SMALL)}
    for name in ("resume a finished run", "evaluate"):
        found = command(*words[name])
        assert found.code == 2 and f"is being written by process {holder.pid} on" in found.said
    assert command(*words["report"]).code == 0
    holder.kill()
    holder.communicate()
    assert command(*words["resume a finished run"]).code == 0
    assert (run / "log.jsonl").read_bytes() == log


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of the size of files there")
def test_answers_that_no_longer_fit_end_in_a_sentence_and_go_on(
    small: Grid, tmp_path: Path
) -> None:
    """A file may not grow beyond 4 kB, as if the disk were full; then it may."""
    import resource

    run = tmp_path / "run"
    shutil.copytree(small.whole, run)
    answers = run / f"{ANSWERS}.jsonl"
    for path in (answers, run / f"{ANSWERS}.about.json", run / "results.json"):
        path.unlink()
    words = next(each.words(run) for each in acts(SMALL) if each.name == "evaluate")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        found = command(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert found.code == 1 and f"{answers}: cannot be written (File too large)." in found.said
    assert answers.stat().st_size <= 4096
    command(*words)
    whole = small.whole / f"{ANSWERS}.jsonl"
    assert answers.read_text("utf-8") == whole.read_text("utf-8")


@pytest.mark.slow
def test_damage_to_any_file_is_named_or_changes_nothing(tmp_path: Path) -> None:
    found = list(damage_all(tmp_path, None, 0, None))
    wrong = [f"{case}: {problem}" for case, problem in found if problem]
    assert len(found) > 500 and not wrong


@pytest.mark.slow
def test_a_kill_at_any_moment_costs_nothing_but_time(tmp_path: Path) -> None:
    found = list(kill_at_random(tmp_path, 7))
    assert len(found) == 7
    assert not [f"{case}: {problem}" for case, problem in found if problem]
