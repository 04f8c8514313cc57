"""The log survives kills: torn lines go, and what came after the checkpoint is written again."""

from pathlib import Path

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
