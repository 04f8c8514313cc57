"""The log survives kills: torn lines go, and what came after the checkpoint is written again."""

from pathlib import Path

import pytest

from exgra_med.errors import DamagedFileError
from exgra_med.training.log import TrainingLog, read_log


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    log.write(stage="a", step=1)
    with log.path.open("a") as stream:
        stream.write('{"stage": "a", "st')
    assert read_log(log.path) == [{"stage": "a", "step": 1}]


def test_cutting_back_drops_only_later_steps_of_that_stage(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    for stage, step in [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)]:
        log.write(stage=stage, step=step)
    log.cut_back("b", 1)
    assert [(event["stage"], event["step"]) for event in read_log(log.path)] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
    ]


def test_a_stage_that_begins_anew_leaves_nothing_of_its_first_try(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    log.write(stage="a", step=4)
    log.write(stage="b", step=0)
    log.cut_back("b", 0)
    assert read_log(log.path) == [{"stage": "a", "step": 4}]


def test_what_was_lost_is_said_from_then_on(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    for step in range(3):
        log.write(kind="train", stage="a", step=step)
    log.cut_back("a", 2, num_events=3)
    assert len(read_log(log.path)) == 3
    log.path.unlink()
    log.cut_back("a", 2, num_events=3)
    lost = {"kind": "stage", "stage": "a", "event": "lost", "step": 2}
    assert read_log(log.path) == [lost]
    log.write(kind="train", stage="a", step=3)
    assert read_log(log.path)[0] == lost and len(read_log(log.path)) == 2


def test_a_changed_line_is_an_error_and_lines_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"stage": "a", "step": 1}\n')
    log = TrainingLog(path)
    log.write(stage="a", step=2)
    assert [each["step"] for each in read_log(path)] == [1, 2]
    path.write_text(path.read_text().replace('"step": 1', '"step": 3'))
    with pytest.raises(DamagedFileError, match=r"log\.jsonl holds a line 2 that is not"):
        read_log(path)
