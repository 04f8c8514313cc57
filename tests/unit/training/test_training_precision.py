"""`precision: auto` is what was measured here, and stays what it was when a run began."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from exgra_med.cli.doctor import examine
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import open_run
from exgra_med.recipe.schema import Recipe
from exgra_med.training import precision
from exgra_med.training.stages import begin_run

AUTO = ("stages.aligned.precision=auto", "stages.vqa=null")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def slowed(monkeypatch: pytest.MonkeyPatch, whole: float, half: float) -> list[bool]:
    """A machine whose linear layer takes so many seconds; lists in which precision it ran."""
    ran: list[bool] = []
    linear, clock = F.linear, [0.0]

    def slow(*args: Any) -> torch.Tensor:
        ran.append(torch.is_autocast_enabled("cpu"))
        clock[0] += half if ran[-1] else whole
        return linear(*(each[:4, :4] for each in args))

    monkeypatch.setattr(F, "linear", slow)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    return ran


@pytest.mark.parametrize(
    ("whole", "half", "means"),
    [(4.0, 1.0, "bfloat16"), (1.0, 4.0, "float32"), (1.05, 1.0, "float32")],
)
def test_it_is_the_faster_of_pairs_and_measured_once(
    whole: float, half: float, means: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = slowed(monkeypatch, whole, half)
    assert precision.faster_precision() == means
    assert ran == [False, True] * (len(ran) // 2)
    assert precision.bfloat16_speedup() == pytest.approx(whole / half, abs=0.01)
    assert len(ran) == 22
    (kept,) = (tmp_path / "cache" / "exgra-med" / precision.SPEED).glob("*.json")
    kept.write_text("{")
    precision.faster_precision()
    assert len(ran) == 44
    kept.write_text(kept.read_text().replace('"bfloat16_speedup": ', '"bfloat16_speedup": 9'))
    assert precision.faster_precision() == means and len(ran) == 66


def test_a_run_says_what_it_means_and_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = load_recipe("debug/tiny", [*AUTO, "evaluation.precision=auto"]).recipe
    monkeypatch.setattr(precision, "faster_precision", lambda: "bfloat16")
    begin_run(tmp_path / "run", recipe, resume=False)

    def of_stages(recipe: Recipe) -> list[str]:
        return [stage.precision for stage in recipe.stages.values()]

    assert of_stages(open_run(tmp_path / "run").recipe) == ["float32", "bfloat16"]
    monkeypatch.setattr(precision, "faster_precision", lambda: "float32")
    resumed = begin_run(tmp_path / "run", recipe, resume=True)
    assert of_stages(resumed.recipe) == ["float32", "bfloat16"]
    assert resumed.recipe.evaluation.precision == "bfloat16"
    assert of_stages(begin_run(tmp_path / "new", recipe, False).recipe) == ["float32", "float32"]


def test_doctor_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_measured", lambda: 1.74)
    findings = json.loads(json.dumps(examine()))
    assert (findings["bfloat16_speedup"], findings["precision_auto"]) == (1.74, "bfloat16")
