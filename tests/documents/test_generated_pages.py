"""The pages that are made from the code say what the code says; the whole site builds."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import exgra_med
from exgra_med.lab.studies.report import read_study_results
from exgra_med.lab.studies.table import render
from exgra_med.recipe.schema import Architecture, StageSettings

PROJECT = Path(__file__).resolve().parents[2]
RESULTS = PROJECT / "benchmarks" / "results"
sys.path.insert(0, str(PROJECT / "docs" / "_ext"))
sys.path.insert(0, str(PROJECT / "tools"))

from architecture_picture import (  # noqa: E402
    EVERYWHERE,
    architecture_svg,
    imported_folders,
    layers,
)
from benchmark_pages import TABLES, benchmark_page  # noqa: E402
from command_page import command_pages, command_table, commands, shown  # noqa: E402
from keep_results import recipe_digest  # noqa: E402
from model_page import model_page  # noqa: E402
from peers_page import WAYS, peers_page  # noqa: E402
from picture_page import CASES, picture_page  # noqa: E402
from recipe_page import recipe_page, sections  # noqa: E402
from result_pages import result_page  # noqa: E402


def test_every_command_and_option_is_on_the_page() -> None:
    pages, table = command_pages(), command_table()
    for name, command in commands():
        verb = name.split()[1]
        assert f"[`{name}`](commands/{verb}.md#{name.replace(' ', '-')})" in table
        part = pages[verb].split(f"## `{name}`\n")[1].split("\n## ")[0]
        for each in command.params:
            name = each.opts[0] if each.param_type_name == "option" else shown(each)
            assert f"`{name}`" in part


def test_every_field_of_a_recipe_is_on_the_page() -> None:
    page = recipe_page()
    assert {Architecture, StageSettings} < set(sections())
    for section in sections():
        part = page.split(f"## {section.__name__}\n")[1].split("\n## ")[0]
        for name, field in section.model_fields.items():
            assert f"| `{name}` |" in part
            assert field.description, f"{section.__name__}.{name} says nothing"
            assert " ".join(field.description.split()) in part
    assert "| `learning_rate` | number, above 0.0, at most 1000000000.0 | needed |" in page


def test_the_picture_counts_imports_and_marks_a_forbidden_one() -> None:
    counts = imported_folders(Path(exgra_med.__file__).parent)
    assert counts["cli", "evaluation"] > 3
    assert {other for one, other in counts if one == "alignment"} <= EVERYWHERE
    order = layers()
    assert all(order.index(importer) > order.index(other) for importer, other in counts)
    assert "#d62839" not in architecture_svg(counts)
    assert "#d62839" in architecture_svg(Counter({("data", "model"): 1}))


def test_every_benchmark_with_results_has_its_figures() -> None:
    page = benchmark_page(RESULTS)
    for name, (title, _, _) in TABLES.items():
        assert (RESULTS / f"{name}.json").is_file()
        assert f"## {title}\n" in page


def test_every_way_beside_ours_has_its_ratio_with_its_spread() -> None:
    page = peers_page(RESULTS)
    rows = json.loads((RESULTS / "peers.json").read_text(encoding="utf-8"))["rows"]
    assert set(rows) == {"training", "evaluation", "matching"}
    for ways in rows.values():
        for way, found in ways.items():
            middle, *ends = (found.get(each) for each in ("ours_over_it", "lowest", "highest"))
            spread = f"{middle} ({ends[0]} to {ends[1]})"
            told = "1" if way == "ours" else found.get("message", spread)
            lines = [each for each in page.splitlines() if each.startswith(f"| {WAYS[way]} |")]
            assert any(told in each for each in lines), way


def test_every_model_that_went_the_road_has_its_row() -> None:
    page = model_page(RESULTS)
    for row in json.loads((RESULTS / "models.json").read_text(encoding="utf-8")).values():
        assert f"| `{row['family']}` | `{row['class']}` |" in page
    assert "`gemma3`" in page and "| packed | padded |" in page


def test_results_are_shown_with_their_intervals(tmp_path: Path) -> None:
    page = result_page(RESULTS)
    results = json.loads((RESULTS / "run-demo.json").read_text(encoding="utf-8"))["results"][0]
    score = results["scores"]["strict"]["average"]
    low, high = score["interval"]
    assert f"| average | {score['value']:.1f} | {low:.1f} to {high:.1f} |" in page
    assert "56 questions: 56 answered, 0 missing" in page and "Made with exgra-med" in page
    assert "No run has committed results" in result_page(tmp_path)


def test_the_committed_demo_is_of_the_recipe_that_is_shipped() -> None:
    """A change of the recipe asks for a new run: `tools/keep_results.py` keeps its numbers."""
    results = json.loads((RESULTS / "run-demo.json").read_text(encoding="utf-8"))["results"][0]
    assert results["details"]["made_with"]["recipe_sha256"] == recipe_digest("demo")


@pytest.mark.parametrize("folder", sorted((RESULTS / "studies").iterdir()), ids=lambda e: e.name)
def test_the_committed_table_of_a_study_is_of_its_committed_numbers(folder: Path) -> None:
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert table == render(read_study_results(folder), "markdown")


def test_every_kind_of_picture_that_is_tested_is_in_the_table() -> None:
    page = picture_page()
    for case in CASES:
        part = page.split(f"### {case.group}\n")[1].split("\n### ")[0]
        assert f"| {case.row or case.what} | {case.how} |" in part
        assert case.how.startswith("refused") == bool(case.refused)
    assert "```{include} ../generated/pictures.md" in (
        PROJECT / "docs" / "reference" / "images.md"
    ).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for name in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(name, reason="the extra [docs] is not installed")
    for builder in ("html", "doctest"):
        arguments = ["-b", builder, "-W", "--keep-going", "-n", "-q", "docs", str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", *arguments],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
