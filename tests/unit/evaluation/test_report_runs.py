"""Several runs on one page."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import file_sha256
from exgra_med.evaluation.report import write_comparison

RIGHT = "made-up/test/10-1"
"""A closed question that the made-up run answers rightly, by no."""


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


def test_missing_answers_are_said_before_any_number(runs: list[Path], tmp_path: Path) -> None:
    """One file of answers is cut to 10 of 30 lines; terminal and page say so first."""
    (file,) = (runs[1] / "predictions").rglob("test.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:10]))
    done = CliRunner().invoke(app, ["evaluate", "compare", *map(str, runs[:2])])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("first has no usable answer to 1 of 30 questions.\n")
    assert "second has no usable answer to 20 of 30 questions.\n" in done.stdout
    assert "Compared are the 10 that both answered.\n" in done.stdout
    assert "second, 30 questions: 10 answered, 20 missing" in done.stdout
    assert f"sha256 {file_sha256(file)[:12]}" in done.stdout
    assert done.stdout.index("20 missing") < done.stdout.index("p (Holm)")
    assert "seed: 0 in first, 1 in second" in done.stdout
    page = write_comparison(runs[:2], tmp_path / "c.html").read_text(encoding="utf-8")
    header = page.split("<main>")[0]
    assert "second has no usable answer to 20 of 30 questions." in header
    assert "of second were changed after they were scored" in header
    assert "second, 30 questions: 10 answered, 20 missing" in page


def test_a_disagreement_has_its_picture_and_both_answers(runs: list[Path], tmp_path: Path) -> None:
    (file,) = (runs[1] / "predictions").rglob("test.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    right = next(each for each in lines if each["id"] == RIGHT)
    assert right["text"] == "no"
    right["text"] = "yes <b>it is</b>"
    for each in lines:
        each.pop("sha256", None)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_comparison(runs[:2], tmp_path / "c.html").read_text(encoding="utf-8")
    (section,) = re.findall(r"<details open>.*?</details>", page, re.DOTALL)
    assert "Where they score differently: 1 question<" in section
    assert section.count("<article") == section.count("<img") == 1
    said = re.findall(r'<dt>(\w+)</dt><dd class="said">(.*?)</dd>', section)
    assert said == [("first", "no"), ("second", "yes &lt;b&gt;it is&lt;/b&gt;")]
    marks = re.findall(r"</span> (right|wrong)", section)
    assert marks == ["right", "wrong"]
