"""Every control of the studies runs in a stage of a recipe, from the recipe alone."""

import json
from pathlib import Path

import pytest

from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import Run, start_run
from exgra_med.terminal import Silent
from exgra_med.training.preflight import check_before_training
from exgra_med.training.stages import train_run

SHORT = [
    "stages.connector.max_steps=1",
    "stages.aligned.max_steps=1",
    "stages.aligned.num_held_out_batches=1",
    "stages.vqa=null",
]


def train(folder: Path, *assignments: str) -> tuple[Run, list[dict]]:
    recipe = load_recipe("debug/tiny", [*SHORT, *assignments]).recipe
    check_before_training(recipe, folder)
    run = start_run(folder, recipe, resume=False)
    train_run(run, Silent())
    return run, [json.loads(line) for line in run.log.read_text().splitlines()]


@pytest.mark.parametrize(
    "control",
    [
        "stages.aligned.alignment.num_layers=0",
        pytest.param("stages.aligned.alignment.objective=pairwise", marks=pytest.mark.slow),
        pytest.param("stages.aligned.alignment.objective=infonce", marks=pytest.mark.slow),
        pytest.param("stages.aligned.alignment.objective=siglip", marks=pytest.mark.slow),
        pytest.param(
            "stages.aligned.alignment.objective=optimal-transport", marks=pytest.mark.slow
        ),
        pytest.param("stages.aligned.alignment.views=image-answer", marks=pytest.mark.slow),
        pytest.param("stages.aligned.answers=both", marks=pytest.mark.slow),
        "stages.aligned.answers=extended",
        "stages.connector.alignment.weight=1.0",
    ],
)
def test_a_control_trains(tmp_path: Path, control: str) -> None:
    run, log = train(tmp_path / "run", control)
    assert run.final("aligned").is_dir()
    last = [each for each in log if each["kind"] == "held_out"][-1]
    assert 0 <= last["image_answer_accuracy"] <= 1
    if "connector.alignment" in control:
        assert (run.final("connector") / "alignment.safetensors").is_file()


@pytest.mark.slow
def test_a_baseline_has_the_curves_of_the_views_where_it_asks(tmp_path: Path) -> None:
    _, log = train(
        tmp_path / "run", "stages.aligned.alignment=null", "stages.aligned.measure_views=true"
    )
    views = [each for each in log if each["kind"] == "views"]
    assert [each["step"] for each in views] == [0, 1]
    assert {each["stage"] for each in views} == {"aligned"}
    assert set(views[0]["histograms"]) == {"image_answer", "image_extended", "answer_extended"}
    assert not any("alignment_loss" in each for each in log)
