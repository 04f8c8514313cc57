"""Runs in training, studies that are not finished, and several runs side by side."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from exgra_med import files
from exgra_med.errors import RunError
from exgra_med.lab.studies.report import read_study_results
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.training.log import TrainingLog
from exgra_med.web.live import LiveStage, Pace, curves_svg, live_html, read_stages
from exgra_med.web.run_view import Views, read_answers
from exgra_med.web.study_view import counted, study_rows

STUDY = Path(__file__).parents[3] / "benchmarks" / "results" / "studies" / "data-efficiency"
HOLD = """
import sys, exgra_med.files as files
from pathlib import Path
with files.sole_writer(Path(sys.argv[1]), "a run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def written_by_another(run: Path) -> Iterator[None]:
    """While another process is the writer of a run, as `train` is."""
    command = [sys.executable, "-c", HOLD, str(run / files.LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A run folder whose second of three stages is going on."""
    run = start_run(tmp_path / "runs" / "now", load_recipe("debug/tiny", ()).recipe, resume=False)
    log = TrainingLog(run.log)
    for stage, steps, total in (("connector", 4, 4), ("aligned", 12, 40)):
        log.write(kind="stage", stage=stage, event="start", step=0, total_steps=total)
        for step in range(1, steps + 1):
            figures = {"language_loss": 5.0 - step / 10, "alignment_loss": 9.0 - step / 4}
            log.write(kind="train", stage=stage, step=step, tokens_per_second=1500.0, **figures)
        log.write(kind="held_out", stage=stage, step=steps, language_loss=4.5)
        if steps == total:
            log.write(kind="stage", stage=stage, event="end", step=steps, total_steps=total)
    return run.path


def test_a_run_in_training_shows_stage_losses_and_what_is_left(training: Path) -> None:
    views = Views([training.parent])
    assert views.live("runs/now") == "", "nobody writes it"
    with written_by_another(training):
        html = views.live("runs/now")
        assert views.overview("runs/now") == ""
    assert "running" in html and "Stage aligned (2 of 3), step 12 of 40." in html
    tiles = dict(re.findall(r'label">([^<]+)</span><span class="number">([^<]+)', html))
    assert tiles == {
        "Loss": "3.800",
        "Alignment loss": "6.000",
        "Steps per second": "…",
        "Left in this stage": "…",
    }
    assert "held out 4.500 at step 12" in html and "28 steps" in html and "1,500 tokens/s" in html
    assert html.count("<figure") == 4
    assert html.index("aligned: ") < html.index("connector: "), "what goes on comes first"


def test_speed_and_time_left_come_from_how_the_log_grows(training: Path) -> None:
    pace, log = Pace(), training / "log.jsonl"

    def seen(last: int, written: int) -> str:
        first = read_stages(log)[1].step + 1
        for step in range(first, last + 1):
            TrainingLog(log).write(kind="train", stage="aligned", step=step, language_loss=3.0)
        os.utime(log, (written, written))
        return live_html(training, "now", pace)

    with written_by_another(training):
        assert "known once" in seen(12, 1000)
        assert "known once" in seen(14, 90_000), "before that it was stopped for a day"
        html = seen(24, 90_040)
    assert '<span class="number">0.25</span>' in html
    assert '<span class="number">1 min 4 s</span><span class="detail">16 steps' in html
    assert pace.steps_per_second(log, "aligned", 3, 2000.0, 2001.0) is None, "begun again"
    assert pace.steps_per_second(log, "aligned", 5, 2004.0, 2005.0) == 0.5


def test_half_a_line_is_left_out_until_it_is_whole(training: Path) -> None:
    log = training / "log.jsonl"
    whole = log.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for cut in range(1, len(last)):
        log.write_bytes(whole[:-cut])
        assert [stage.step for stage in read_stages(log)] == [4, 12]
        assert not read_stages(log)[1].points("held_out", "language_loss")
    log.write_bytes(whole)
    assert read_stages(log)[1].points("held_out", "language_loss") == [(12, 4.5)]


def test_a_log_that_is_not_what_was_written_is_a_sentence_without_a_path(training: Path) -> None:
    log = training / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"4.9", b"1.9", 1))
    with written_by_another(training):
        html = Views([training.parent]).live("runs/now")
    assert "cannot be read just now" in html and str(training.parent) not in html


def test_a_run_that_has_just_begun_has_no_curves(training: Path) -> None:
    (training / "log.jsonl").unlink()
    with written_by_another(training):
        assert "no step yet" in Views([training.parent]).live("runs/now")


def test_runs_in_training_come_first(training: Path, runs: Path) -> None:
    other = training.parent / "a-first-by-name"
    shutil.copytree(runs / "demo", other)
    views = Views([training.parent])
    assert views.names() == ["runs/a-first-by-name", "runs/now"]
    with written_by_another(training):
        assert views.names() == ["runs/now", "runs/a-first-by-name"]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = [(step, float(step)) for step in range(10_000)]
    svg = curves_svg({"train": points}, 1.0, "<b>")
    drawn = re.search(r'points="([^"]+)"', svg)
    assert drawn is not None and len(drawn[1].split()) <= 300
    assert "train 0 to 1e+04, steps 0 to 9,999" in svg and "<b>" not in svg
    flat = curves_svg({"train": [(1, 0.0)]}, 1.0, "one point")
    assert "nan" not in flat and "<circle" in flat


def test_what_a_resume_has_run_again_counts_once(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    for loss in (2.0, 1.0):
        log.write(kind="train", stage="a", step=1, language_loss=loss)
    log.write(kind="train", stage="a", step=2, language_loss=float("nan"))
    (stage,) = read_stages(log.path)
    assert isinstance(stage, LiveStage) and stage.points("train", "language_loss") == [(1, 1.0)]


def test_a_study_without_its_run_folders_counts_what_its_results_hold() -> None:
    rows = study_rows(STUDY, [], read_study_results(STUDY), lambda run: False)
    assert counted(rows) == "18 runs: 18 results kept"
    assert rows[0]["name"] == "cells/instruct/0.1/seed-0" and not rows[0]["is_here"]
    assert rows[0]["scores"]["average"].text == "50.4"


def test_a_study_says_what_is_done_running_and_failed(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exgra_med.lab.studies.folder import Attempt
    from exgra_med.web import study_view

    here = ["cells/aligned/1.0/seed-0", "cells/plain/1.0/seed-0"]
    failed = Attempt("failed", sentence="Out of memory.")
    planned = {here[0]: Attempt("finished"), "cells/plain/1.0/seed-1": failed}
    planned |= {"cells/plain/1.0/seed-2": Attempt("waiting")}
    monkeypatch.setattr(study_view, "_attempts", lambda folder: planned)
    kept = {"folder": "cells/gone/1.0/seed-0", "value": 41.5, "seed": 3}
    results = {"cells": [kept], "metric": "vqa.strict.average, scorer 1"}
    rows = study_rows(runs / "study", here, results, lambda run: "plain" in run.parts)
    assert [(row["name"].split("/", 1)[1], row["state"]) for row in rows] == [
        ("aligned/1.0/seed-0", "finished"),
        ("plain/1.0/seed-1", "failed"),
        ("plain/1.0/seed-2", "waiting"),
        ("gone/1.0/seed-0", "results kept"),
        ("plain/1.0/seed-0", "running"),
    ]
    assert rows[1]["note"] == "Out of memory." and rows[3]["scores"]["average"].text == "41.5"
    assert counted(rows) == ("5 runs: 1 results kept, 1 finished, 1 running, 1 failed, 1 waiting")
    assert counted([]) == "No run has begun"


def test_a_planned_study_says_how_far_it_is(tmp_path: Path) -> None:
    from exgra_med.lab.studies.folder import start_study
    from exgra_med.lab.studies.schema import load_study

    start_study(tmp_path / "s", load_study("controls"))
    html = Views([tmp_path / "s"]).overview("s")
    assert re.search(r"\d+ runs: \d+ waiting", html)


def test_runs_of_a_study_are_opened_from_its_table(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "study", tmp_path / "runs" / "study")
    (tmp_path / "runs" / "study" / "results.json").unlink()  # whose figures take a while
    views = Views([tmp_path / "runs"])
    html = views.overview("runs/study")
    named = re.findall(r'data-run="([^"]+)"', html)
    assert len(named) == 2 and set(named) <= set(views.names("run"))
    assert "2 finished" in html


def test_runs_side_by_side_say_what_differs(runs: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2), ("new", 3)):
        shutil.copytree(runs / "demo", tmp_path / "runs" / name)
        recipe = yaml.safe_load((tmp_path / "runs" / name / "recipe.yaml").read_text())
        recipe |= {"seed": seed, "name": name}
        (tmp_path / "runs" / name / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    views = Views([tmp_path / "runs"])
    html = views.compared(["runs/one", "runs/two"])
    assert "2 runs side by side" in html and "do not compare" not in html
    table = html.partition("What differs")[2]
    assert re.findall(r'scope="row">([^<]+)<', table) == ["seed"]
    assert "runs/one" in table and re.search(r">1</td>.*>2</td>", table, re.DOTALL)
    assert len(re.findall(r"<small>\d+\.\d to \d+\.\d</small>", html)) >= 2

    (tmp_path / "runs" / "new" / "results.json").unlink()
    results = tmp_path / "runs" / "two" / "results.json"
    changed = json.loads(results.read_text())
    changed.pop("sha256", None)
    changed["results"][0]["data_fingerprint"] = "other"
    results.write_text(json.dumps(changed))
    html = views.compared(["runs/one", "runs/two", "runs/new"])
    assert "different questions" in html and "runs/new has no scores yet." in html
    with pytest.raises(RunError, match="no such run"):
        views.compared(["runs/one", "../etc"])


def test_the_first_page_of_answers_shows_many_images(runs: Path) -> None:
    rows = read_answers(runs / "demo").rows
    images: list[Any] = [tuple(row.question.images) for row in rows]
    different = len(set(images))
    assert different > 1 and len(set(images[:different])) == different
