"""Where a checkpoint answers, and which process of a launch scores and speaks."""

import pytest
import torch

from exgra_med.evaluation import engines
from exgra_med.evaluation.engines import Place, Processes, best_place, told_once
from exgra_med.progress import Silent


def test_without_an_accelerator_the_cpu_answers_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert best_place() == Place("cpu", "float32")


def test_an_accelerator_answers_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert best_place() == Place("cuda", "bfloat16")


def test_only_the_first_process_of_a_launch_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = Silent()
    assert told_once(speaker) is speaker
    monkeypatch.setattr(engines, "launched_processes", lambda: Processes(1, 2))
    assert told_once(speaker) is not speaker
