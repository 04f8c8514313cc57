"""The same training by other mechanics ends with the same weights."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import Run, start_run
from exgra_med.terminal import Silent
from exgra_med.training.log import read_log
from exgra_med.training.stages import train_run

STAGES = ("connector", "aligned", "vqa")


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it may run, and nothing catches it."""


class KillAt(Silent):
    """Dies in the middle of a stage, after the step's log line and before the next step."""

    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step, self.title = stage, step, ""

    def start(
        self, title: str, total: int | None, done: int, unit: str, patient: bool = False
    ) -> None:
        self.title = title

    def advance(self, done: int, note: str, left: float | None = None) -> None:
        # Before a held-out measurement the step is not over.
        over = not note.startswith("measuring")
        if over and (self.title, done) == (self.stage, self.step):
            raise Killed


def train(folder: Path, *assignments: str, resume: bool = False, reporter: object = None) -> Run:
    run = start_run(folder, load_recipe("debug/tiny", assignments).recipe, resume)
    train_run(run, reporter or Silent())
    return run


def weights(run: Run, stage: str) -> dict[str, torch.Tensor]:
    files = sorted(run.final(stage).glob("*.safetensors"))
    return {
        f"{file.name}/{name}": value for file in files for name, value in load_file(file).items()
    }


def assert_equal_weights(one: Run, other: Run, stage: str) -> None:
    first, second = weights(one, stage), weights(other, stage)
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield train(tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.mark.slow
def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(
    undisturbed: Run, tmp_path: Path
) -> None:
    again = train(tmp_path / "again")
    for stage in STAGES:
        assert_equal_weights(undisturbed, again, stage)
    other = train(tmp_path / "other", "seed=1", "stages.aligned=null", "stages.vqa=null")
    assert any(
        not torch.equal(value, weights(other, "connector")[name])
        for name, value in weights(undisturbed, "connector").items()
    )


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        pytest.param("connector", 1, marks=pytest.mark.slow),
        ("aligned", 3),
        pytest.param("vqa", 3, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_to_the_same_weights_and_log(
    undisturbed: Run, tmp_path: Path, stage: str, step: int
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train(folder, reporter=KillAt(stage, step))
    resumed = train(folder, resume=True)
    for name in STAGES:
        assert_equal_weights(undisturbed, resumed, name)

    def story(run: Run) -> list[tuple[object, ...]]:
        keys = ("kind", "stage", "step", "loss", "matching_accuracy", "event")
        return [tuple(event.get(key) for key in keys) for event in read_log(run.log)]

    assert story(resumed) == story(undisturbed)


@pytest.mark.slow
def test_alignment_weight_zero_is_plain_language_model_training(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", "stages.vqa=null", "stages.aligned.alignment=null")
    zero = train(tmp_path / "zero", "stages.vqa=null", "stages.aligned.alignment.weight=0")
    model = "model.safetensors"
    one, other = (load_file(run.final("aligned") / model) for run in (plain, zero))
    assert all(torch.equal(one[name], other[name]) for name in one)
    held_out = [event for event in read_log(zero.log) if event["kind"] == "held_out"]
    assert any("matching_accuracy" in event for event in held_out)


@pytest.mark.slow
def test_accumulated_passes_equal_one_large_pass(tmp_path: Path) -> None:
    off = "stages.aligned={alignment: null, distinct_images: false}"
    only = ("stages.connector=null", "stages.vqa=null", off)
    large = train(tmp_path / "large", *only, "stages.aligned.batch_size=8")
    small = train(
        tmp_path / "small",
        *only,
        "stages.aligned.batch_size=2",
        "stages.aligned.gradient_accumulation_steps=4",
    )
    losses = [
        [event["loss"] for event in read_log(run.log) if event["kind"] == "train"]
        for run in (large, small)
    ]
    # Measured: 2e-7 relative, from the order of float32 sums.
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_stages_may_differ_in_precision(tmp_path: Path) -> None:
    short = "max_steps: 1, save_every_steps: null, num_held_out_batches: 1"
    stages = (
        "stages.aligned=null",
        f"stages.connector={{{short}, precision: float32}}",
        f"stages.vqa={{{short}, precision: bfloat16}}",
    )
    run = train(tmp_path / "mixed", *stages)
    plain = train(tmp_path / "plain", *stages, "stages.vqa.precision=float32")

    def loss(run: Run, stage: str) -> float:
        events = [event for event in read_log(run.log) if event["kind"] == "train"]
        return next(event["loss"] for event in events if event["stage"] == stage)

    assert loss(run, "connector") == loss(plain, "connector")
    assert loss(run, "vqa") == pytest.approx(loss(plain, "vqa"), rel=1e-2)
    assert loss(run, "vqa") != loss(plain, "vqa")


@pytest.mark.slow
def test_bounded_calls_and_grouped_lengths_resume_to_the_same_weights(tmp_path: Path) -> None:
    stage = (
        "stages={connector: null, vqa: null}",
        "stages.aligned={group_by_length: true, max_tokens_per_call: 512, tokens_per_row: 256}",
    )
    whole = train(tmp_path / "whole", *stage)
    with pytest.raises(Killed):
        train(tmp_path / "killed", *stage, reporter=KillAt("aligned", 3))
    assert_equal_weights(whole, train(tmp_path / "killed", *stage, resume=True), "aligned")
    one_call = train(tmp_path / "one", *stage, "stages.aligned.max_tokens_per_call=null")
    losses = [
        [event["language_loss"] for event in read_log(run.log) if event["kind"] == "train"]
        for run in (whole, one_call)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_a_rival_trains_beside_the_model_resumes_too(tmp_path: Path) -> None:
    stage = (
        "stages={connector: null, vqa: null}",
        "stages.aligned={alignment: null, auxiliary: {loss: viral}}",
    )
    whole = train(tmp_path / "whole", *stage)
    with pytest.raises(Killed):
        train(tmp_path / "killed", *stage, reporter=KillAt("aligned", 3))
    resumed = train(tmp_path / "killed", *stage, resume=True)
    assert_equal_weights(whole, resumed, "aligned")
    losses = [
        [event["auxiliary_loss"] for event in read_log(run.log) if event["kind"] == "train"]
        for run in (whole, resumed)
    ]
    assert losses[0] == losses[1]


def test_a_refactoring_leaves_the_loss_trajectory(undisturbed: Run) -> None:
    """The figures of `debug/tiny` as they were; other processors round otherwise in the last bits.

    A change that is meant to alter them writes the file anew and says so in the changelog.
    """
    path = Path(__file__).parent / "data" / "debug-tiny-trajectory.jsonl"
    before = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    now = read_log(undisturbed.log)
    assert len(now) == len(before)
    for event, expected in zip(now, before, strict=True):
        event.pop("tokens_per_second", None)
        assert event.keys() == expected.keys()
        for name, value in expected.items():
            known = pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
            assert event[name] == known, f"{name} of {expected}"
