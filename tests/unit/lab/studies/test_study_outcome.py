"""From finished cells to words, table, figures and page."""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import pytest
from fake_study import STUDY, fake_cell, fake_study
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import file_sha256
from exgra_med.digests import read_document, write_document
from exgra_med.errors import (
    DamagedFileError,
    ExgraMedError,
    RecipeError,
    RunError,
    ScoreError,
)
from exgra_med.evaluation.answers import Question
from exgra_med.evaluation.published import published_curve
from exgra_med.evaluation.results import Score, put_result, read_results
from exgra_med.lab.studies.collect import check_comparable, collect
from exgra_med.lab.studies.conclude import conclude
from exgra_med.lab.studies.differing import Differing, Shown, find_differing
from exgra_med.lab.studies.figures import difference_figure, questions_figure
from exgra_med.lab.studies.folder import Attempt, log_path, open_study, start_study, write_attempt
from exgra_med.lab.studies.plan import plan_study
from exgra_med.lab.studies.report import limits, write_outcome, write_results
from exgra_med.lab.studies.schema import load_study, read_study
from exgra_med.lab.studies.table import blocks, comparison_rows, one_block, render
from exgra_med.web.run_view import FoundRun, run_html

SKILL = {
    "instruct": {0.1: 0.2, 1.0: 0.5},
    "exgra-med": {0.1: 0.7, 1.0: 0.9},
    "equal-tokens": {0.1: 0.2, 1.0: 0.5},
}
SMALL = STUDY.replace("[0.1, 0.4, 1.0]", "[0.1, 1.0]").replace("[0, 1, 2]", "[0, 1]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_study(tmp_path_factory.mktemp("studies"), SKILL, SMALL)


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return write_outcome(folder)


def test_the_numbers_are_those_of_the_runs(folder: Path, results: dict[str, Any]) -> None:
    assert len(results["cells"]) == 12 and results["missing"] == []
    for cell in results["cells"]:
        own = json.loads((folder / cell["folder"] / "results.json").read_text())
        assert cell["value"] == own["results"][0]["scores"]["strict"]["average"]["value"]
        assert (folder / cell["predictions"]).is_file()
    point = results["arms"]["exgra-med"]["points"][0]
    values = [
        cell["value"]
        for cell in results["cells"]
        if cell["arm"] == "exgra-med" and cell["fraction"] == 0.1
    ]
    assert point["each"] == pytest.approx(values)
    assert point["value"] == pytest.approx(sum(values) / 2)
    assert point["interval"][0] < min(values) and max(values) < point["interval"][1]


def test_equal_answers_differ_by_nothing(results: dict[str, Any]) -> None:
    rows = [row for row in results["comparisons"] if row["arm"] == "equal-tokens"]
    assert len(rows) == 3
    assert all(row["value"] == 0 and row["p_holm"] == 1 for row in rows)


def test_holm_runs_over_the_whole_table(results: dict[str, Any]) -> None:
    rows = results["comparisons"]
    smallest = min(row["p"] for row in rows)
    assert min(row["p_holm"] for row in rows) == pytest.approx(len(rows) * smallest)
    assert all(row["p_holm"] >= row["p"] for row in rows)


def test_the_conclusion_says_what_the_numbers_say(results: dict[str, Any]) -> None:
    text = "\n".join(results["conclusion"])
    first = results["conclusion"][0]
    assert re.fullmatch(
        r"ExGra-Med is better than LLaVA-Med objective by [\d.]+ to [\d.]+ points over all "
        r"fractions \(p = [\d.]+\)\.",
        first,
    ), first
    same = "have the same score for every question at 10 %: this study can tell nothing"
    assert f"Equal tokens and LLaVA-Med objective {same}" in text
    saved = "has the very scores of LLaVA-Med objective at 100 %: this study can tell nothing"
    assert f"Equal tokens with 100 % of the data {saved} about the data that it saves" in text
    assert "ExGra-Med reaches LLaVA-Med objective at 100 % with 10 % of the data" in text


def row(
    value: float,
    p: float,
    detectable: float = 1.0,
    fraction: float = 0.1,
    alone: float | None = None,
    seeds: Sequence[int] = (0, 1),
) -> dict[str, Any]:
    return {
        "p": p if alone is None else alone,
        "arm": "exgra-med", "baseline": "instruct", "fraction": fraction, "value": value,
        "interval": (value - 2, value + 2), "p_holm": p, "detectable": detectable,
        "same_scores": False, "seeds": seeds,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "p", "alone", "apart"),
    [(5, 0.01, 0.01, "yes"), (1, 0.01, 0.01, "no"), (3, 0.06, 0.03, "no"), (1, 0.4, 0.4, "no")],
)
def test_words_table_and_figure_tell_apart_by_one_rule(
    folder: Path, value: float, p: float, alone: float, apart: str
) -> None:
    """An interval that holds 0, or a p-value above 0.05, is enough against it, everywhere."""
    one = row(value, p, alone=alone) | {"each": [value], "p_images": p}
    arms = {name: {"title": name, "points": []} for name in ("instruct", "exgra-med")}
    results = {"comparisons": [one], "arms": arms, "baseline": "instruct"}
    assert comparison_rows(results)[0][-1] == apart
    assert (" is better than " in said(folder, one)) == (apart == "yes")
    drawing = difference_figure(results)
    assert drawing is not None
    filled = "fill: var(--arm-1); stroke: var(--arm-1); stroke-linejoin: miter"
    assert (filled in drawing.inline) == (apart == "yes")


def said(
    folder: Path,
    *rows: dict[str, Any],
    seeds: int = 3,
    missing: int = 0,
    floor: float = 30.0,
    gain: float | None = None,
) -> str:
    study = read_study(folder)
    points = [{"seeds": list(range(seeds)), "interval": (40.0, 60.0), "fraction": 0.1, "value": 50}]
    arms = {name: {"title": name, "points": points} for name in ("instruct", "exgra-med")}
    statistics = {"arms": arms, "comparisons": list(rows), "efficiency": None}
    if gain is not None:
        edges = (gain - 2, gain + 2)
        fractions = {"fractions": [0.1, 1.0], "arm": "instruct"}
        statistics["rise"] = {"value": gain, "interval": edges} | fractions
    return "\n".join(conclude(study, statistics, [""] * missing, floor))


def test_every_branch_of_the_conclusion(folder: Path) -> None:
    assert said(folder, row(5, 0.01)) == (
        "exgra-med is better than instruct by 3.0 to 7.0 points at 10 % (p = 0.01)."
    )
    assert said(folder, row(-5, 0.01)) == (
        "exgra-med is worse than instruct by 3.0 to 7.0 points at 10 % (p = 0.01)."
    )
    # Told apart is what the adjusted test and the interval both say.
    assert said(folder, row(1, 0.01)) == (
        "No difference was found between exgra-med and instruct at 10 % "
        "(+1.0 points, the interval is −1.0 to +3.0; p = 0.01)."
    )
    assert said(folder, row(1, 0.4)) == (
        "No difference was found between exgra-med and instruct at 10 % "
        "(+1.0 points, the interval is −1.0 to +3.0; p = 0.4)."
    )
    assert said(folder, row(3, 0.06, alone=0.03)) == (
        "The difference between exgra-med and instruct at 10 % does not stand up to the correction "
        "for 1 comparisons (+3.0 points, the interval is +1.0 to +5.0; p = 0.06)."
    )
    # The paper's gain at 10 % is 72.5 - 52.4.
    assert "too small to find the paper's gain of 20.1 points (it could find 25.0)" in said(
        folder, row(1, 0.4, detectable=25.0)
    )
    assert "too small" not in said(folder, row(1, 0.4, detectable=19.0))
    assert "too small" not in said(folder, row(1, 0.01, detectable=25.0))
    assert "too small" not in said(folder, row(1, 0.4, detectable=25.0, fraction=0.2))
    assert "rest on one seed" in said(folder, row(1, 0.4), seeds=1)
    assert "; one seed, p = 0.4)" in said(folder, row(1, 0.4, seeds=[0]))
    assert "(one seed, p = 0.01)" in said(folder, row(5, 0.01, seeds=[0]))
    assert "one seed" not in said(folder, row(5, 0.01))
    assert "4 runs of the study are not finished" in said(folder, row(1, 0.4), missing=4)
    assert "nothing to compare" in said(folder)
    assert said(folder, row(5, 0.01), floor=41.0).endswith(
        "Not surely above the 41.0 % of the strongest baseline that sees no picture, at any share "
        "of the data: instruct, exgra-med."
    )
    assert (
        "instruct does not surely rise from 10 % to 100 % of the data (+1.0 points, the interval "
        "is −1.0 to +3.0): where more data"
    ) in said(folder, row(1, 0.4), gain=1.0)
    assert said(folder, row(5, 0.01), gain=5.0).endswith(
        "instruct rises from 10 % to 100 % of the data by 3.0 to 7.0 points."
    )
    assert "rise" not in said(folder, row(1, 0.4))
    assert said(folder, row(1, 0.4), row(5, 0.01, fraction=1.0), row(1, 0.2, fraction=0.4)) == (
        "exgra-med is better than instruct by 3.0 to 7.0 points at 100 % (p = 0.01).\n"
        "No difference was found between exgra-med and instruct at 10 % (+1.0 points, the interval "
        "is −1.0 to +3.0; p = 0.4), at 40 % (+1.0 points, the interval is −1.0 to +3.0; p = 0.2)."
    )
    nothing = {"arms": {}, "comparisons": [], "efficiency": None}
    assert conclude(read_study(folder), nothing, []) == [
        "No run is finished, so there is nothing to conclude."
    ]


def test_answers_that_never_differ_tell_nothing(tmp_path: Path) -> None:
    flat = {method: {0.1: 0.5, 1.0: 0.5} for method in SKILL}
    folder = fake_study(tmp_path, flat, SMALL.replace("seeds: [0, 1]", "seeds: [0]"))
    results = write_results(folder)
    text = "\n".join(results["conclusion"])
    assert "can tell nothing about a difference" in text
    assert "reaches" not in text and "could find" not in text and "No difference" not in text
    assert all(line.rstrip(" |").endswith("– | no") for line in _comparison_lines(results))


def _comparison_lines(results: dict[str, Any]) -> list[str]:
    lines = render(results, "markdown").splitlines()
    start = next(number for number, line in enumerate(lines) if "could find" in line) + 2
    return [line for line in lines[start:] if line.startswith("|")][: len(results["comparisons"])]


@pytest.mark.slow
def test_half_a_study_is_concluded_as_half_a_study(tmp_path: Path) -> None:
    folder = fake_study(tmp_path, {"instruct": {0.1: 0.3}}, SMALL)
    results = write_outcome(folder)
    assert len(results["missing"]) == 10
    assert results["conclusion"][0].startswith("There is nothing to compare with LLaVA-Med")
    assert (folder / "report.html").is_file()
    place = tmp_path / "empty"
    place.mkdir()
    empty = fake_study(place, {}, SMALL)
    assert write_outcome(empty)["conclusion"] == [
        "No run is finished, so there is nothing to conclude."
    ]


def edited(folder: Path, cell: str, change: Any) -> None:
    path = folder / cell / "results.json"
    results = read_document(path)
    change(results["results"][0])
    write_document(path, results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda vqa: vqa["details"]["scorers"]["strict"].update(scorer_version=99),
            "have different scores",
        ),
        (lambda vqa: vqa.update(dataset="another"), "have different test questions"),
        (lambda vqa: vqa.update(data_fingerprint="f" * 64), "have different test questions"),
        (
            lambda vqa: vqa["scores"]["strict"]["average"].update(value=99.0),
            "its results say 99.0000",
        ),
    ],
)
def test_numbers_that_do_not_belong_together_are_refused(
    tmp_path: Path, change: Any, message: str
) -> None:
    folder = fake_study(tmp_path, {"instruct": {0.1: 0.3}}, SMALL)
    edited(folder, "cells/instruct/0.1/seed-1", change)
    with pytest.raises(ScoreError, match=message) as raised:
        write_results(folder)
    assert "\n" not in str(raised.value)


def test_other_splits_of_a_cell_are_told_and_other_data_sets_left_alone(tmp_path: Path) -> None:
    folder = fake_study(tmp_path, {"instruct": {0.1: 0.3}}, SMALL)
    cell = folder / "cells/instruct/0.1/seed-1"
    before = write_results(folder)
    (entry,) = read_results(cell).results
    scores = {"strict": {"average": Score(value=7.0)}}
    put_result(cell, entry.model_copy(update={"split": "validation", "scores": scores}))
    for split in ("test", "validation"):
        asked = {"dataset": "another", "split": split, "scores": scores}
        put_result(cell, entry.model_copy(update=asked))
    after = write_results(folder)
    changed = [
        (old, new) for old, new in zip(before["cells"], after["cells"], strict=True) if old != new
    ]
    ((old, new),) = changed
    assert new == old | {"splits": {"validation": 7.0}}


def test_a_cell_that_was_scored_on_another_split_alone_is_missing(tmp_path: Path) -> None:
    folder, cell = (
        fake_study(tmp_path, {"instruct": {0.1: 0.3}}, SMALL),
        "cells/instruct/0.1/seed-1",
    )
    assert cell not in write_results(folder)["missing"]
    edited(folder, cell, lambda vqa: vqa.update(split="validation"))
    (folder / "results.json").unlink()
    assert cell in write_results(folder)["missing"]


def test_comparable_scores_pass(folder: Path) -> None:
    from exgra_med.lab.studies.collect import collect
    from exgra_med.lab.studies.folder import open_study

    check_comparable(collect(folder, *open_study(folder)).scores)


def test_the_rise_of_the_baseline_is_paired(results: dict[str, Any]) -> None:
    rise, points = results["rise"], results["arms"]["instruct"]["points"]
    assert rise["fractions"] == [0.1, 1.0] and rise["seeds"] == [0, 1]
    gains = [more - less for less, more in zip(points[0]["each"], points[1]["each"], strict=True)]
    assert rise["each"] == pytest.approx(gains)
    # Of the same questions: narrower than the two intervals apart would have it.
    low, high = rise["interval"]
    assert 0 < low < rise["value"] < high
    widths = [point["interval"][1] - point["interval"][0] for point in points]
    assert high - low < sum(widths)
    assert any("rises from 10 % to 100 %" in each for each in results["conclusion"])


def test_published_numbers_stand_apart(results: dict[str, Any]) -> None:
    own, published = blocks(results)
    assert [row.title for row in published.rows] == ["ExGra-Med (paper)", "LLaVA-Med (paper)"]
    assert [cell.value for cell in published.rows[0].cells] == [72.5, 73.7, 74.6, 74.9]
    assert published.metric != own.metric and "not comparable" in published.caption
    with pytest.raises(ScoreError, match="not the published one"):
        one_block(results)
    assert published_curve("vqa-rad", "llava-med")[0.1] == 52.4
    assert published_curve("slake", "llava-med")[0.1] == 80.62
    assert published_curve("pathvqa", "llava-med") == published_curve("slake", "other") == {}
    unknown = results | {"published": results["published"] | {"dataset": "pathvqa"}}
    assert len(blocks(unknown)) == 1 and one_block(unknown).rows == own.rows
    assert any("published" in sentence for sentence in limits(results))
    assert not any("published" in sentence for sentence in limits(unknown))


def test_published_numbers_join_only_the_same_score_of_the_same_data(
    results: dict[str, Any],
) -> None:
    metric = "vqa.legacy.average, scorer published, normaliser published"
    same = results | {"metric": metric, "questions": results["questions"] | {"dataset": "vqa-rad"}}
    assert len(one_block(same).rows) == 5
    with pytest.raises(ScoreError, match="not the published one"):
        one_block(results | {"metric": metric})


def test_the_table_has_three_forms(results: dict[str, Any]) -> None:
    markdown = render(results, "markdown")
    assert "| method | 10 % | 100 % |" in markdown
    latex = render(results, "latex")
    assert latex.count(r"\begin{tabular}{lcc}") == 1 and r"10 \%" in latex
    table = render(results, "csv").splitlines()
    assert len(table) == 1 + 6 + 8
    assert table[1].startswith('LLaVA-Med objective,"vqa.strict.average')
    with pytest.raises(ScoreError, match="no table format"):
        render(results, "word")


def test_titles_cannot_break_out_of_table_or_page(tmp_path: Path) -> None:
    text = SMALL.replace("title: ExGra-Med}", 'title: "<script>a|b</script> & $x_1$"}')
    folder = fake_study(tmp_path, {"exgra-med": {0.1: 0.5}}, text)
    results = write_outcome(folder)
    page = (folder / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert r"\<script\>a\|b\</script\>" in (folder / "table.md").read_text()
    assert r"\& \$x\_1\$" in render(results, "latex")


def test_the_page_is_whole_by_itself(folder: Path, results: dict[str, Any]) -> None:
    page = (folder / "report.html").read_text()
    assert "Research use only" in page and "What this does not show" in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page)
    assert page.count("<figure tabindex") == 5
    assert "7 steps instead of 4" in page
    assert "another scale" in page
    for sentence in results["conclusion"]:
        assert sentence.replace("'", "&#39;") in page
    others = ("differences", "questions", "along-training", "cosines")
    for name in ("figure.svg", *(f"figure-{each}.svg" for each in others)):
        ElementTree.fromstring((folder / name).read_text())
    assert "best without the picture" in (folder / "figure.svg").read_text()


@pytest.mark.slow
def test_the_verbs(folder: Path) -> None:
    def invoke(*words: str) -> str:
        shown = CliRunner().invoke(app, ["study", *words])
        assert shown.exit_code == 0, shown.output
        return shown.stdout

    counts = json.loads(invoke("status", str(folder), "--json"))["counts"]
    assert counts == {"finished": 12, "waiting": 2}
    assert "12 finished" in invoke("status", str(folder))
    assert invoke("report", str(folder), "--format", "csv").startswith("method,metric")
    written = invoke("report", str(folder), "--format", "svg")
    assert "figure.svg" in written and "figure-questions.svg" in written
    assert "report.html" in invoke("report", str(folder))
    assert "data-efficiency" in invoke("list")
    assert "fraction_stage: instruct" in invoke("show", "data-efficiency")


COMMITTED = Path(__file__).parents[4] / "benchmarks" / "results" / "studies" / "data-efficiency"


def test_results_are_never_overwritten_by_fewer(tmp_path: Path) -> None:
    """A copy of a study without its run folders; a table of it keeps its numbers."""
    folder = fake_study(tmp_path, {"instruct": {0.1: 0.3}}, SMALL)
    write_results(folder)
    before = (folder / "results.json").read_bytes()
    rmtree(folder / "cells")
    done = CliRunner().invoke(app, ["study", "report", str(folder), "--format", "csv"])
    assert done.exit_code == 0, done.output
    assert "2 of 2 runs of results.json are not in this folder" in done.stderr
    assert "56" in done.stdout
    assert (folder / "results.json").read_bytes() == before


def test_a_study_of_another_version_is_told_from_its_results(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    copytree(COMMITTED, folder)
    before = (folder / "results.json").read_bytes()
    done = CliRunner().invoke(app, ["study", "report", str(folder), "--format", "csv"])
    assert done.exit_code == 0, done.output
    assert "study.yaml cannot be read by this version" in done.stderr
    assert len(done.stdout.splitlines()) > 6
    assert (folder / "results.json").read_bytes() == before
    (folder / "results.json").unlink()
    done = CliRunner().invoke(app, ["study", "report", str(folder), "--format", "csv"])
    assert isinstance(done.exception, RecipeError)


NUMBER = re.compile(r'("value": \d+\.)\d*')


@pytest.mark.parametrize(
    ("name", "change", "hint"),
    [
        (
            "results.json",
            lambda text: NUMBER.sub(r"\g<1>77", text, count=1),
            "Remove it: exgra-med",
        ),
        ("results.json", lambda text: text[: len(text) // 2], "Remove it: exgra-med"),
        ("results.json", lambda text: "[1]", "Remove it: exgra-med"),
        ("results.json", lambda text: '{"schema_version": 1}', "Remove it: exgra-med"),
        ("study.yaml", lambda text: text.replace("- 0\n", "- 9\n", 1), "Write it anew: exgra-med"),
    ],
)
def test_a_damaged_file_of_a_study_is_named(
    small: Path, tmp_path: Path, name: str, change: Any, hint: str
) -> None:
    folder = tmp_path / "study"
    copytree(small, folder)
    path = folder / name
    text = path.read_text("utf-8")
    path.write_text(change(text), "utf-8")
    before = path.read_bytes()
    assert before != text.encode()
    done = CliRunner().invoke(app, ["study", "report", str(folder), "--format", "csv"])
    error = done.exception
    assert isinstance(error, ExgraMedError) and error.exit_code == 2, done.output
    assert str(path) in error.message and hint in error.hint
    assert path.read_bytes() == before


def test_a_damaged_report_of_an_attempt_is_named_and_can_be_removed(
    small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    copytree(small, folder)
    node = open_study(folder)[1][-1].id
    write_attempt(folder, node, Attempt("failed", sentence="A disk is full."))
    assert "A disk is full." in CliRunner().invoke(app, ["study", "status", str(folder)]).stdout
    path = log_path(folder, node).with_suffix(".json")
    path.write_text(path.read_text().replace("full", "slow"))
    done = CliRunner().invoke(app, ["study", "status", str(folder)])
    assert isinstance(done.exception, DamagedFileError) and "Remove it" in done.exception.hint
    path.unlink()
    assert CliRunner().invoke(app, ["study", "status", str(folder)]).exit_code == 0


def test_the_page_says_that_results_are_damaged(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    copytree(small, folder)
    results = folder / "results.json"
    results.write_text(NUMBER.sub(r"\g<1>77", results.read_text("utf-8"), count=1), "utf-8")
    page = run_html(FoundRun("study", folder, "study"))
    assert "Its results.json is not what was written" in page and str(tmp_path) not in page


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two finished runs, with its results."""
    folder = fake_study(tmp_path_factory.mktemp("small"), {"instruct": {0.1: 0.3}}, SMALL)
    write_results(folder)
    return folder


@pytest.mark.slow  # draws every figure twice
def test_a_page_of_kept_results_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    copytree(COMMITTED, folder)
    before = (folder / "results.json").read_bytes()
    done = CliRunner().invoke(app, ["study", "report", str(folder)])
    assert done.exit_code == 0, done.output
    assert "all this is of the numbers in results.json" in done.stdout
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "all this is of the numbers in results.json" in page
    assert "not kept" in page  # how many questions each run answered
    assert (folder / "results.json").read_bytes() == before


def test_of_two_sets_of_runs_none_replaces_the_other(tmp_path: Path) -> None:
    folder = fake_study(tmp_path, {"instruct": {0.1: 0.3}}, SMALL)
    write_results(folder)
    before = (folder / "results.json").read_bytes()
    rmtree(folder / "cells")
    study = read_study(folder)
    for node in start_study(folder, study):
        if node.cell is not None and node.cell.fraction == 1.0 and node.cell.method == "instruct":
            fake_cell(folder, study, node, 0.5)
    with pytest.raises(RunError, match="would lose numbers"):
        write_results(folder)
    assert (folder / "results.json").read_bytes() == before


def test_what_stands_behind_each_run_is_told(folder: Path, results: dict[str, Any]) -> None:
    for cell in results["cells"]:
        file = folder / cell["predictions"]
        assert cell["basis"]["sha256"] == file_sha256(file)
        assert (cell["basis"]["questions"], cell["basis"]["missing"]) == (56, 0)
        text = f"56 of 56 answered, {cell['basis']['unparsed']} unparsed, sha256 "
        if cell["basis"]["unparsed"]:
            assert text + file_sha256(file)[:12] in (folder / "report.html").read_text("utf-8")
    row = render(results, "csv").splitlines()[1].split(",")
    assert row[-6:-3] == ["112", "112", "0"]  # two seeds
    assert "12 runs with 672 questions, 672 answered, 0 missing" in render(results, "markdown")


def test_the_page_says_how_a_run_is_repeated(folder: Path, results: dict[str, Any]) -> None:
    name = results["cells"][0]["folder"]
    command = f"exgra-med study run FOLDER/study.yaml --out again --only {name}"
    assert f"<code>{command}</code>" in (folder / "report.html").read_text("utf-8")
    # The file is a study as it stands: the same nodes, with what --set and a scale had changed.
    again = load_study(str(folder / "study.yaml"))
    assert [each.id for each in plan_study(again, folder)] == [
        each.id for each in plan_study(read_study(folder), folder)
    ]


def test_nothing_is_concluded_of_runs_that_lack_answers(tmp_path: Path) -> None:
    skill = {"instruct": {0.1: 0.3}, "exgra-med": {0.1: 0.9}}
    folder = fake_study(tmp_path, skill, SMALL)
    assert "ExGra-Med is better" in "\n".join(write_results(folder)["conclusion"])
    study = read_study(folder)
    for node in start_study(folder, study):
        if node.id == "cells/exgra-med/0.1/seed-1":
            rmtree(folder / node.id)
            fake_cell(folder, study, node, 0.9, num_missing=26)
    found = write_results(folder)["conclusion"]
    assert found[0] == (
        "26 questions have no answer in runs of ExGra-Med, over all tests and kinds of "
        "pictures: no verdict on it until they are answered."
    )
    assert "is better" not in "\n".join(found) and "reaches" not in "\n".join(found)


def test_answers_that_an_arm_changes_stand_beside_those_of_another_seed(
    folder: Path, results: dict[str, Any]
) -> None:
    study, nodes = open_study(folder)
    collected = collect(folder, study, nodes)
    right = {
        (cell.arm, cell.seed): np.nansum(own, axis=1) == 1
        for cell, own in collected.values.items()
        if cell.fraction == 0.1
    }
    pairs = [(right["instruct", seed], right["exgra-med", seed]) for seed in (0, 1)]
    counts = results["differing"]
    assert (counts["arm"], counts["fraction"], counts["num_pairs"]) == ("exgra-med", 0.1, 2)
    assert counts["only_arm"] == np.mean([(b & ~a).sum() for a, b in pairs]) > 0
    assert counts["only_baseline"] == np.mean([(a & ~b).sum() for a, b in pairs]) == 0
    assert counts["other_seed"] == (right["instruct", 0] != right["instruct", 1]).sum() > 0
    (told,) = [each for each in results["conclusion"] if "between two seeds" in each]
    assert f"{counts['only_arm']:.0f} of {len(collected.questions)} questions" in told
    found = find_differing(folder, study, collected)
    assert found is not None and found.alone == (0, counts["only_arm"])
    assert found.shown[0] == [] and len(found.shown[1]) == 4
    assert len({each.question.cluster for each in found.shown[1]}) == 4
    for each in found.shown[1]:
        assert each.picture is not None and set(each.answers[0]) != {each.question.answer}
    svg = (folder / "figure-questions.svg").read_text()
    assert "Right only with ExGra-Med" in svg and "Right only with LLaVA-Med" not in svg
    assert svg.count("<image") == 4
    # Results can be published: they hold no text and no picture of the data.
    assert found.shown[1][0].question.text not in (folder / "results.json").read_text()


@pytest.mark.filterwarnings("error")
def test_any_text_of_data_and_models_can_be_drawn(results: dict[str, Any]) -> None:
    text = "$a_{b$ <b>5</b> & 6\x00 \u8d28 1.23456 cm " + 60 * "x"
    question = Question("1", text, "", "OPEN")
    shown = Shown(question, None, ([text, ""], [text, text]))
    found = Differing(("instruct", "exgra-med"), 0.1, 2, 1, (1, 0), 1, ([shown], []))
    drawing = questions_figure(results, found)
    assert drawing is not None
    words = "".join(ElementTree.fromstring(drawing.alone).itertext())
    assert "$a_{b$ <b>5</b> & 6\ufffd \u8d28" in words
    assert "1.23456 cm" in drawing.inline and "(no picture)" in drawing.inline
    assert questions_figure(results, replace(found, shown=([], []))) is None


def test_one_pair_of_runs_says_nothing_about_changed_answers(tmp_path: Path) -> None:
    text = SMALL.replace("[0, 1]", "[0]").replace("[0.1, 1.0]", "[0.1]")
    folder = fake_study(tmp_path, SKILL, text)
    assert write_results(folder)["differing"] is None
