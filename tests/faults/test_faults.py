"""Damaged run folders and killed commands; `python -m tests.faults` tries as many as are wanted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from damage import DAMAGES, SMALL, WHOLE, Case, Grid, acts, command, make_run
from kills import kill_at_random


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """A run of four steps, made once."""
    place = tmp_path_factory.mktemp("damage")
    make_run(place / "whole", *SMALL)
    return Grid(place / "whole", place, SMALL)


FINAL, STEP = "checkpoints/vqa/final", "checkpoints/vqa/step-000002"
ANSWERS = "predictions/vqa/vqa-rad-sample/test"
KINDS = [
    ("resume a finished run", f"{FINAL}/model.safetensors", "flipped late"),
    ("resume a finished run", f"{FINAL}/config.json", "gone"),
    ("resume a finished run", f"{FINAL}/digests.json", "cut"),
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
    make_run(tmp_path / "whole", *WHOLE)
    found = list(Grid(tmp_path / "whole", tmp_path, WHOLE).try_all())
    wrong = [f"{case}: {problem}" for case, problem in found if problem]
    assert len(found) > 500 and not wrong


@pytest.mark.slow
def test_a_kill_at_any_moment_costs_nothing_but_time(tmp_path: Path) -> None:
    found = list(kill_at_random(tmp_path, 7))
    assert len(found) == 7
    assert not [f"{case}: {problem}" for case, problem in found if problem]
