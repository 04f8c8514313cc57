"""One object holds the settings, and solvers of other packages are names like ours."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from exgra_med.alignment import AlignmentSettings, MatchingError, MultiGraphAlignment
from exgra_med.alignment.solvers import SOLVERS
from exgra_med.errors import RecipeError
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.schema import StageAlignment
from exgra_med.training.preflight import check_plan

SOLVER = """
import torch
from exgra_med.alignment.solvers.protocol import Solution, takes_at_most

calls = []

@takes_at_most(6)
def match_nobody(problems):
    calls.append(problems)
    assignment = torch.full(problems.unary.shape[:2], -1)
    return Solution(assignment=assignment, certified=torch.zeros(len(assignment), dtype=torch.bool))
"""


def test_the_module_takes_the_object_changes_or_both() -> None:
    settings = AlignmentSettings(neighbours=3, dropout=0.5)
    assert MultiGraphAlignment(8, settings).settings == settings
    assert MultiGraphAlignment(8, neighbours=3, dropout=0.5).settings == settings
    changed = MultiGraphAlignment(8, settings, dropout=0.0).settings
    assert (changed.neighbours, changed.dropout) == (3, 0.0)


def test_a_stages_settings_are_those_of_the_module_and_two_of_its_own() -> None:
    stage = StageAlignment(weight=2.0, pooling="padded", num_layers=1)
    assert MultiGraphAlignment(8, stage).settings == AlignmentSettings(num_layers=1)
    own = set(StageAlignment.model_fields) - set(AlignmentSettings.model_fields)
    assert own == {"weight", "pooling"}


def test_changes_are_checked_together_with_what_they_change() -> None:
    several = AlignmentSettings(estimator="imle", noise_samples=4)
    with pytest.raises(MatchingError, match="`noise_samples: 4` needs `estimator: imle`"):
        MultiGraphAlignment(8, several, estimator="blackbox")


def test_settings_come_without_torch() -> None:
    code = "import sys, exgra_med.alignment.settings as s; s.AlignmentSettings()"
    code += "; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def install(folder: Path, name: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip leaves behind of a package that adds a solver."""
    info = folder / f"{name}_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[exgra_med.solvers]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_a_solver_of_another_package_is_a_name_in_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = "stages.aligned.alignment.solver=nobody"
    with pytest.raises(RecipeError, match=r"local-search, exhaustive\. Got 'nobody'"):
        load_recipe("debug/tiny", [chosen])
    (tmp_path / "nobody_solver.py").write_text(SOLVER)
    install(tmp_path, "nobody", "nobody_solver:match_nobody", monkeypatch)
    recipe = load_recipe("debug/tiny", [chosen]).recipe
    check_plan(recipe, num_processes=1)
    align = MultiGraphAlignment(8, recipe.stages["aligned"].alignment)
    with torch.no_grad():
        assert align(*(torch.randn(5, 8) for _ in range(3)), generator=0).share_unmatched == 1.0
    assert len(sys.modules["nobody_solver"].calls) == 1
    larger = load_recipe("debug/tiny", [chosen, "stages.aligned.batch_size=7"]).recipe
    with pytest.raises(RecipeError, match=r"'nobody' takes graphs of at most 6 nodes, .* 7"):
        check_plan(larger, num_processes=1)


def test_a_solver_whose_package_is_not_whole_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_solver.py").write_text("import a_package_that_is_not_there")
    install(tmp_path, "broken", "broken_solver:solve", monkeypatch)
    recipe = load_recipe("debug/tiny", ["stages.aligned.alignment.solver=broken"]).recipe
    with pytest.raises(MatchingError, match="'broken' of the package broken-package cannot be lo"):
        check_plan(recipe, num_processes=1)
    with pytest.raises(MatchingError, match="a_package_that_is_not_there"):
        SOLVERS.find("broken")
