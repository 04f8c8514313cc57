"""Several runs on one page."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from exgra_med.evaluation.report import write_comparison


@pytest.fixture
def runs(demo_run: Path, tmp_path: Path) -> list[Path]:
    folders = []
    for seed, name in enumerate(("first", "second", "<b>third")):
        run = tmp_path / name
        shutil.copytree(demo_run, run)
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"seed": seed}))
        folders.append(run)
    return folders


def test_runs_are_listed_compared_and_gathered_by_seed(runs: list[Path], tmp_path: Path) -> None:
    out = write_comparison(runs, tmp_path / "comparison.html")
    html = out.read_text(encoding="utf-8")
    assert html.count("cannot be told apart") == 6
    assert "<b>third" not in html
    assert "&lt;b&gt;third" in html
    assert "default-src 'none'" in html
    assert html.count("Research use only.") == 2
    (seeds,) = re.findall(r'<section id="seeds">.*?</section>', html, re.DOTALL)
    (_, row) = re.findall(r"<tr.*?</tr>", seeds, re.DOTALL)
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
    assert cells[0] == "first, second, &lt;b&gt;third" and cells[2] == "0.0"
    assert len(cells[3].split(", ")) == 3
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["comparison.html"]


def test_runs_that_cannot_be_compared_say_why(runs: list[Path], tmp_path: Path) -> None:
    (runs[1] / "results.json").unlink()
    html = write_comparison(runs[:2], tmp_path / "c.html").read_text(encoding="utf-8")
    assert "first and second were not compared: The runs have 0 scored splits in common" in html


def test_one_recipe_and_one_seed_make_no_spread(runs: list[Path], tmp_path: Path) -> None:
    html = write_comparison([runs[0], runs[0]], tmp_path / "c.html").read_text()
    assert '<section id="seeds">' not in html
