"""Runs and studies: what may be opened, what is selected, what is shown."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from exgra_med.errors import RunError
from exgra_med.evaluation.report.page import gather, render_html
from exgra_med.web.run_view import (
    ANY,
    MARKS,
    Views,
    answers_html,
    find_runs,
    num_pages,
    read_answers,
)

STUDY = "runs/study"
CELL = "runs/study/cells/aligned/1.0/seed-0"


def test_runs_and_studies_are_found_by_name(runs: Path) -> None:
    places = find_runs([runs])
    assert list(places) == ["runs/demo", STUDY, CELL, CELL.replace("aligned", "plain")]
    assert [place.kind for place in places.values()] == ["run", "study", "run", "run"]
    assert list(find_runs([runs / "demo"])) == ["demo"]
    assert find_runs([runs / "nothing"]) == {}


def test_links_and_checkpoints_are_not_followed(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(runs / "demo")
    copy = tmp_path / "inside" / "checkpoints" / "vqa"
    copy.mkdir(parents=True)
    for name in ("recipe.yaml", "record.json"):
        (copy / name).write_text("{}")
    assert find_runs([tmp_path / "inside"]) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_names_that_cannot_be_shown_are_left_out(runs: Path, tmp_path: Path) -> None:
    for name in (b"r\xe9n", b"a\nb", b"a\x1b[2Jb", "rén".encode()):
        shutil.copytree(runs / "demo", tmp_path / "all" / os.fsdecode(name))
    assert list(find_runs([tmp_path / "all"])) == ["all/rén"]


@pytest.mark.parametrize(
    "name", ["../runs/demo", "/etc", "runs/demo/../demo", "runs/demo/", "", "runs/other", "C:\\"]
)
def test_only_names_of_the_list_open_anything(runs: Path, name: str) -> None:
    views = Views([runs])
    for open_ in (views.overview, views.answers, views.stages):
        with pytest.raises(RunError, match="no such run"):
            open_(name)


def test_answers_are_selected_by_what_the_data_say(runs: Path) -> None:
    answers = read_answers(runs / "demo")
    assert len(answers.rows) == 30
    by_mark = {mark: len(answers.select(mark)) for mark in MARKS}
    assert by_mark[ANY] == 30 == by_mark["right"] + by_mark["not right"]
    assert by_mark["not right"] == by_mark["wrong"] + by_mark["partly right"]
    assert answers.choices("organ") == [ANY, "CHEST", "HEAD"]
    assert answers.choices("modality") == [ANY, "unknown"]
    assert answers.choices("type") == [ANY, "closed", "open"]
    chosen = answers.select("wrong", organ="HEAD", type="closed", modality=ANY)
    expected = [
        row
        for row in answers.rows
        if row.mark == "wrong"
        and row.question.meta["organ"] == "HEAD"
        and row.question.answer_type == "CLOSED"
    ]
    assert chosen == expected and 0 < len(chosen) < by_mark["wrong"]
    assert answers.rows[-1].judged == (0.0, "wrong", "no answer")


def test_pages_hold_every_answer_once(runs: Path) -> None:
    answers = read_answers(runs / "demo")
    assert num_pages(answers.rows) == 3 and num_pages([]) == 1
    shown = [card.id for page in range(3) for card in answers.cards(answers.rows, page)]
    assert shown == [row.question.id for row in answers.rows]
    html = answers_html(answers, answers.rows, 2)
    assert "30 of 30 answers, 25 to 30 shown" in html
    assert html.count("<img") == 6
    assert "0 of 30 answers." in answers_html(answers, [], 0)


def test_a_run_shows_scores_with_intervals_and_curves(runs: Path) -> None:
    html = Views([runs]).overview("runs/demo")
    assert "toy model" in html and "What this does not show" in html
    assert html.count("<figure") == 4
    assert re.search(r"<small>\d+\.\d to \d+\.\d</small>", html)


def test_a_run_begins_with_the_answers_of_its_report(runs: Path) -> None:
    shown = Views([runs]).overview("runs/demo")
    content = gather(runs / "demo")
    report = render_html(content)
    first, rest = shown.split("</dl>", 1)
    said = first[first.index('<dl class="findings">') :]
    assert said in report and said.count("<dt>") == len(content.findings) == 5
    assert "Better than without the picture?" in said and "What is missing?" in said
    # Nothing but name and description stands before them.
    assert "<table" not in first and "<table" in rest and 'class="tile"' in rest


def test_a_study_lists_its_runs(runs: Path) -> None:
    views = Views([runs])
    html = views.overview(STUDY)
    assert "2 finished" in html and "cells/plain/1.0/seed-0" in html and "toy models" in html
    assert html.count("<figure") >= 2 and "What this does not show" in html
    assert views.answers(STUDY) is None
    with pytest.raises(RunError, match="no graphs of its own"):
        views.stages(STUDY)


def test_a_study_without_results_lists_its_runs_all_the_same(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(runs / "study", folder)
    for content, problem in (
        (None, "no results to show yet"),
        ("{", "is not what was written"),
        ('{"schema_version": 0}', "no results to show yet"),
        ('{"schema_version": 1, "cells": []}', "is not what was written"),
        ('{"schema_version": 1, "cells": [{"folder": 1}], "is_toy": 1}', "is not what was written"),
    ):
        (folder / "results.json").unlink()
        if content is not None:
            (folder / "results.json").write_text(content, encoding="utf-8")
        html = Views([folder]).overview("study")
        assert problem in html and "2 runs" in html
        assert str(tmp_path) not in html
        (folder / "results.json").touch()


@pytest.mark.parametrize("name", ["runs/demo", STUDY])
def test_whatever_a_run_says_is_text(runs: Path, name: str) -> None:
    html = Views([runs]).overview(name)
    answers = read_answers(runs / "demo")
    html += "".join(answers_html(answers, answers.rows, page) for page in range(3))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert set(re.findall(r'(?:src|href)="([^"]{5})', html)) <= {"data:"} | {
        each for each in re.findall(r'href="([^"]{5})', html) if each.startswith("#")
    }


def test_views_are_made_once_and_again_when_the_run_goes_on(runs: Path) -> None:
    views = Views([runs])
    first = views.answers("runs/demo")
    assert views.answers("runs/demo") is first
    log = runs / "demo" / "log.jsonl"
    log.write_text(log.read_text())

    os.utime(log, ns=(1, 1))
    assert views.answers("runs/demo") is not first


def test_a_run_without_answers_is_a_sentence(tmp_path: Path) -> None:
    for name in ("recipe.yaml", "record.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RunError, match="no stored answers"):
        read_answers(tmp_path)
