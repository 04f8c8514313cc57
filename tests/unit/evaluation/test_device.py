"""Where a checkpoint answers, and which process of a launch scores and speaks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_run import SayingEngine, made_up_session, make_data

from exgra_med.evaluation import session
from exgra_med.evaluation.engines import Place, Processes, best_place
from exgra_med.evaluation.tasks import vqa


def test_without_an_accelerator_the_cpu_answers_in_what_the_recipe_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert best_place() == Place("cpu", "float32")
    assert best_place("bfloat16") == Place("cpu", "bfloat16")


def test_an_accelerator_answers_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert best_place() == Place("cuda", "bfloat16")


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def start(
        self, title: str, total: int | None, done: int, unit: str, patient: bool = False
    ) -> None:
        """See `Reporter`."""
        self.told.append((title, total, done, unit))

    def advance(self, done: int, note: str, left: float | None = None) -> None:
        """See `Reporter`."""
        self.told.append(done)

    def finish(self) -> None:
        """See `Reporter`."""
        self.told.append("finished")


@pytest.mark.parametrize(
    ("processes", "told"),
    [
        (
            Processes(),
            [("answers to made-up/test", 30, 0, "questions"), 6, 12, 18, 24, 30, "finished"],
        ),
        (Processes(1, 2), []),
    ],
)
def test_only_the_first_process_of_a_launch_speaks_and_scores(
    processes: Processes, told: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter, engine = Told(), SayingEngine(lambda _: "yes")
    asked = made_up_session(tmp_path / "run", make_data(tmp_path / "data"), engine)
    monkeypatch.setattr(session, "launched_processes", lambda: processes)
    entry = vqa.evaluate(replace(asked, reporter=reporter))
    assert reporter.told == told
    assert (entry is not None) == (tmp_path / "run" / "results.json").exists() == processes.is_first
    assert sum(map(len, engine.asked)) == 30
