"""Every notebook of the documentation runs from its first cell to its last."""

from pathlib import Path

import matplotlib
import pytest
import torch
from blocks import PROJECT
from notebooks import cells, run_cells
from transformers import AutoModelForImageTextToText

from exgra_med.model.convert.checkpoint import import_checkpoint
from families import make

NOTEBOOKS = PROJECT / "docs" / "notebooks"
MODEL = PROJECT / "tests" / "golden" / "data" / "model"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    torch.manual_seed(0)


def test_a_model_is_aligned(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    name = "llava-hf/llava-interleave-qwen-0.5b-hf"
    for part in make("llava"):
        part.save_pretrained(tmp_path / name)
    names = run_cells(NOTEBOOKS / "align-your-own-model.ipynb", {})
    told = capsys.readouterr().out
    assert "chance" in told and "InfoNCE" in told
    trained = AutoModelForImageTextToText.from_pretrained("aligned").state_dict()
    before = names["model"].state_dict()
    assert trained.keys() == before.keys()
    assert any(not torch.equal(trained[key], before[key]) for key in trained)


@pytest.mark.slow
def test_a_checkpoint_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    import_checkpoint(str(MODEL / "checkpoint_dci"), str(MODEL / "clip_tiny"), tmp_path / "mine")
    run_cells(NOTEBOOKS / "evaluate-a-checkpoint.ipynb", {'"small"': '"mine"'})
    assert "56 questions" in capsys.readouterr().out
    assert (tmp_path / "runs" / "checked" / "report.html").is_file()


@pytest.mark.slow
def test_own_data_become_a_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_cells(NOTEBOOKS / "own-data.ipynb", {})
    assert "24 questions" in capsys.readouterr().out
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()
    manifest = (tmp_path / "data" / "split" / "train.jsonl").read_text(encoding="utf-8")
    assert "P000" not in manifest and "-05-17" not in manifest


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_says_what_its_outputs_are(path: Path) -> None:
    assert cells(path, "markdown")[0].startswith("# ")
    assert "outputs shown here" in cells(path, "markdown")[0]
