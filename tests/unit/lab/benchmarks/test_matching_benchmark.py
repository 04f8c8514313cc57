"""The benchmark runs, and its tables say what its rows say."""

import json
from pathlib import Path

import pytest
import torch

from exgra_med.alignment import MatchingError, MultiGraphAlignment
from exgra_med.lab.benchmarks.matching import (
    REGIMES,
    benchmark_matching,
    make_problems,
    make_views,
    markdown_tables,
    write_result,
)


@pytest.fixture(scope="module")
def result() -> dict:
    return benchmark_matching((4,), transition_size=None, dim=32, num_steps=1, repetitions=1)


def test_every_contender_is_measured_in_every_place(result: dict, tmp_path: Path) -> None:
    rows = result["rows"]
    assert len(rows) == len(REGIMES) * 2 * len({(row["solver"], row["effort"]) for row in rows})
    assert len(rows) >= len(REGIMES) * 2 * 4
    assert all(row["gap_percent_mean"] >= 0 and row["milliseconds"][1] > 0 for row in rows)
    exact = [row for row in rows if row["solver"] in ("exhaustive", "anneal")]
    assert all(row["gap_percent_worst"] < 1e-4 and row["certified_share"] == 1 for row in exact)
    write_result(result, tmp_path / "new" / "matching.json")
    assert json.loads((tmp_path / "new" / "matching.json").read_text()) == result


def test_tables_hold_the_rows(result: dict) -> None:
    text = markdown_tables(result)
    assert text.count("| 4 | aniso |") == 3
    forward, perturbed = (
        next(
            row["processor_milliseconds"][1]
            for row in result["rows"]
            if (row["regime"], row["phase"], row["solver"]) == ("random", phase, "local-search")
        )
        for phase in ("forward", "perturbed")
    )
    assert f"| 4 | random | {forward + perturbed:.3g} |" in text


def test_views_of_the_regimes() -> None:
    near = make_views("aligned@0.1", 6, 64, seed=0)
    assert (near[0] - near[1]).norm() < 0.2 * near[0].norm()
    far = make_views("aniso", 6, 64, seed=0)
    assert far[0].mean(0).norm() > 2 * (far[0] - far[0].mean(0)).norm(dim=1).mean()
    with pytest.raises(MatchingError, match="No regime"):
        make_views("nowhere", 6, 64, seed=0)


def test_perturbed_costs_differ_by_the_slope() -> None:
    problems = make_problems(MultiGraphAlignment(32), "random", 4, seed=0)
    shift = problems.perturbed - problems.unary
    assert torch.allclose(shift.diagonal(dim1=1, dim2=2), torch.tensor(-80 / 24))
    assert torch.allclose(shift[:, 0, 1:], torch.tensor(80 / 24))


def test_the_committed_result_is_whole() -> None:
    path = Path(__file__).parents[4] / "benchmarks" / "results" / "matching.json"
    stored = json.loads(path.read_text())
    assert {row["nodes"] for row in stored["rows"]} >= {8, 16, 32, 64, 128, 256, 512}
    page = path.parents[2] / "docs" / "explanation" / "matching-solvers.md"
    assert markdown_tables(stored) in page.read_text(encoding="utf-8")


def test_the_committed_comparison_is_no_worse_in_any_place() -> None:
    path = Path(__file__).parents[4] / "benchmarks" / "results" / "matching_versions.json"
    rows = json.loads(path.read_text())["rows"]
    assert {row["nodes"] for row in rows} >= {8, 16, 32, 64, 128, 256}
    for row in rows:
        assert row["after"]["gap_percent_mean"] <= row["before"]["gap_percent_mean"], row
