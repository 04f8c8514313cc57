"""Trackers get the figures of the log and the settings of the stage, and nothing of a record."""

import json
from pathlib import Path
from typing import Any, ClassVar

import accelerate.tracking
import pytest
from accelerate.utils import LoggerType

from exgra_med.data.records import Prepared
from exgra_med.errors import MissingExtraError, RecipeError
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.terminal import Silent
from exgra_med.training.log import read_log
from exgra_med.training.preflight import check_before_training
from exgra_med.training.stages import train_run

SHORT = (
    "stages={connector: null, vqa: null}",
    "stages.aligned={max_steps: 2, save_every_steps: null, evaluate_every_steps: 1}",
    "stages.aligned.num_held_out_batches=1",
)


class Fake(accelerate.tracking.GeneralTracker):
    """Keeps what it is handed."""

    name = "trackio"
    requires_logging_directory = False
    made: ClassVar[list["Fake"]] = []

    def __init__(self, run_name: str, **settings: Any) -> None:
        super().__init__()
        self.run_name, self.settings = run_name, settings
        self.config: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False
        Fake.made.append(self)

    @property
    def tracker(self) -> "Fake":
        return self

    def start(self) -> None:
        pass

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **more: Any) -> None:
        self.logged.append((step or 0, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[Fake]:
    tracking = accelerate.tracking
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", Fake)
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType.TRACKIO])
    monkeypatch.setattr("exgra_med.training.log.util.find_spec", lambda name: name)
    monkeypatch.setattr(Fake, "made", [])
    return Fake.made


def test_it_gets_every_figure_of_the_log_and_no_word_of_a_record(
    fake: list[Fake], sample: Prepared, tmp_path: Path
) -> None:
    run = start_run(
        tmp_path / "run", load_recipe("debug/tiny", [*SHORT, "trackers=[trackio]"]).recipe, False
    )
    train_run(run, Silent())
    (tracker,) = fake
    assert tracker.finished
    events = [event for event in read_log(run.log) if event["kind"] != "stage"]
    expected = [
        (
            event["step"],
            {
                f"{event['kind']}/{name}": value
                for name, value in event.items()
                if name not in ("kind", "stage", "step")
            },
        )
        for event in events
    ]
    assert tracker.logged == expected
    assert len(expected) == 5
    assert tracker.config["learning_rate"] == run.recipe.stages["aligned"].learning_rate
    assert tracker.config["alignment.neighbours"] == 5
    everything = json.dumps([tracker.config, tracker.logged, tracker.settings])
    assert all(
        isinstance(value, int | float) for _, each in tracker.logged for value in each.values()
    )
    for record in sample.records("train") + sample.records("validation"):
        assert record.id not in everything and record.question not in everything
    assert "vqa-rad" not in everything and str(tmp_path) not in everything


def test_none_is_the_default(fake: list[Fake], tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", load_recipe("debug/tiny", SHORT).recipe, False)
    train_run(run, Silent())
    assert fake == []


@pytest.mark.parametrize(
    ("name", "extra"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("trackio", "track")]
)
def test_a_missing_package_is_said_before_training(
    name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exgra_med.training.log.util.find_spec", lambda name: None)
    recipe = load_recipe("debug/tiny", [f"trackers=[{name}]"]).recipe
    with pytest.raises(MissingExtraError, match=rf"{name}.*exgra-med\[{extra}\]"):
        check_before_training(recipe, tmp_path / "run")


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(RecipeError, match="trackers"):
        load_recipe("debug/tiny", ["trackers=[notebook]"])


@pytest.mark.slow
def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra [tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = load_recipe("debug/tiny", [*SHORT, "trackers=[tensorboard]"]).recipe
    run = start_run(tmp_path / "run", recipe, False)
    train_run(run, Silent())
    events = EventAccumulator(str(run.path / "tensorboard" / "aligned" / "exgra-med"))
    events.Reload()
    losses = [event["loss"] for event in read_log(run.log) if event["kind"] == "train"]
    seen = [scalar.value for scalar in events.Scalars("train/loss")]
    assert seen == pytest.approx(losses)
