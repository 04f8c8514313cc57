"""The report: self-contained, escaped, honest about toys, and readable without pictures."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from exgra_med.data.records import file_sha256
from exgra_med.errors import MissingExtraError, RunError
from exgra_med.evaluation.report.page import (
    NOTICE,
    gather,
    read_log,
    render_html,
    training_figures,
    write_report,
)
from exgra_med.evaluation.results import Score, put_result, read_results
from exgra_med.recipe.run_folder import is_toy


@pytest.fixture(scope="module")
def html(demo_run: Path) -> str:
    return render_html(gather(demo_run))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    return parser.found


class Words(HTMLParser):
    """What a person reads, a line for each row, heading or paragraph."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = [""]
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("svg", "style")
        if tag in ("a", "td", "th", "dd", "small", "span"):
            self.lines[-1] += " | " if self.lines[-1].strip() else ""
        elif tag in ("tr", "p", "li", "dt", "h1", "h2", "h3", "summary", "figcaption", "div"):
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("svg", "style")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.lines[-1] += re.sub(r"\s+", " ", data)


def test_the_words_are_as_before(html: str, snapshot: object) -> None:
    parser = Words()
    parser.feed(html.split("<body>")[1])
    text = "\n".join(line.strip() for line in parser.lines if line.strip())
    # The hash of the made-up data changes whenever the data do.
    text = re.sub(r"sha256 [0-9a-f]{12}\b", "sha256 <first 12>", text)
    assert re.sub(r"[0-9a-f]{64}", "<sha256>", text) == snapshot


def test_the_page_loads_nothing_from_anywhere(html: str) -> None:
    for tag, attributes in tags(html):
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:image/jpeg;base64,"))
    styles = re.findall(r"<style>.*?</style>|style=\"[^\"]*\"", html, re.DOTALL)
    assert styles
    assert not any("http" in style or "@import" in style for style in styles)
    assert "default-src 'none'" in html


def test_what_a_model_says_is_text(html: str) -> None:
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_every_part_is_there(html: str) -> None:
    for part in ("part-1", "part-2", "part-3", "training", "limits", "made"):
        assert f'<section id="{part}">' in html and f'<a href="#{part}">' in html
    headings = re.findall(r"<h2>([^<]*): made-up, test</h2>", html)
    assert headings == ["Visual question answering", "Reliance on the image", "Multiple choice"]
    for title in ("Beside the baselines", "Closed answers", "By organ", "Answers"):
        assert f"<h3>{title}</h3>" in html
    assert "<summary>Details: Is a finding there?, Closed answers, By organ" in html
    found = tags(html)
    assert sum(tag == "figure" for tag, _ in found) == 4
    assert sum(tag == "img" for tag, _ in found) == 24
    assert html.count(NOTICE) == 1
    assert "toy model" in html
    assert "chance 12.5 %" in html
    ids = [attributes["id"] for _, attributes in found if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_files_are_written_and_equal_when_written_again(demo_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "demo"
    shutil.copytree(demo_run, run)
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert {path.name for path in run.iterdir()} >= {"report.html", "scores.csv"}
    rows = (run / "scores.csv").read_text().splitlines()
    assert rows[0] == (
        "dataset,split,task,variant,measure,value,low,high,questions,"
        "asked,answered,missing,empty,unparsed,answers,sha256"
    )
    assert rows[1].startswith("made-up,test,vqa,strict,average,")
    entries = read_results(run).results
    (vqa,) = read_results(run).find("vqa")
    file = vqa.answers["questions"]
    behind = f"30,29,1,0,5,{file},{file_sha256(run / file)}"
    assert rows[1].endswith(f",{behind}")
    for entry in entries:
        for variant, scores in entry.scores.items():
            basis = behind if entry.task == "vqa" else ",,,,,,"
            for name, score in scores.items():
                low, high = score.interval or ("", "")
                value = "" if score.value is None else score.value
                count = "" if score.count is None else score.count
                named = f"{entry.dataset},{entry.split},{entry.task},{variant},{name}"
                assert f"{named},{value},{low},{high},{count},{basis}" in rows
    baselines = read_results(run).find("vqa")[0].details["baselines"]
    number = sum(len(each) for entry in entries for each in entry.scores.values())
    number += sum(
        len(each) for baseline in baselines.values() for each in baseline["scores"].values()
    )
    strict = read_results(run).find("vqa")[0].details["scorers"]["strict"]
    # Whether findings are claimed that are not there, and whether answers change with the picture.
    number += sum(len(part["scores"]) for part in strict["existence"].values()) + 1
    assert sum(',"strict, existence, all",false_claims,' in row for row in rows) == 1
    assert len(baselines) == 2 and len(rows) == 1 + number


def test_what_is_made_from_a_toy_is_a_toy(demo_run: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((demo_run / "recipe.yaml").read_text())
    start = demo_run
    for name in ("second", "third"):
        run = tmp_path / name
        run.mkdir()
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"model": {"start": str(start)}}))
        content = gather(run)
        assert content.is_toy and "The model is a toy" in " ".join(content.limits)
        start = run
    # A chain that leads back to itself, or to what cannot be read, says nothing.
    for text in (yaml.safe_dump(recipe | {"model": {"start": str(run)}}), "{"):
        (tmp_path / "second" / "recipe.yaml").write_text(text)
        assert not is_toy(run)


def test_a_run_from_a_checkpoint_is_no_toy_and_gaps_are_said(
    demo_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "bare"
    run.mkdir()
    recipe = yaml.safe_load((demo_run / "recipe.yaml").read_text())
    recipe["model"] = {"start": "some/checkpoint"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    content = gather(run)
    assert not content.is_toy
    assert content.parts == [] and content.tiles == []
    html = render_html(content)
    assert "toy" not in re.sub(
        r"<style>.*?</style>|A toy model, trained", "", html, flags=re.DOTALL
    )
    assert "has not been scored" in html
    (entry,) = read_results(demo_run).find("vqa")
    put_result(run, entry)
    content = gather(run)
    assert content.parts[0].examples is None
    assert "no stored answers" in render_html(content)


def test_closed_questions_alone_are_told_by_their_accuracy(demo_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "closed"
    run.mkdir()
    shutil.copy(demo_run / "recipe.yaml", run)
    (entry,) = read_results(demo_run).find("vqa")
    scores = {
        scorer: each | {name: Score(value=None) for name in ("average", "open_recall")}
        for scorer, each in entry.scores.items()
    }
    put_result(run, entry.model_copy(update={"scores": scores}))
    content = gather(run)
    assert content.findings[1].answer.startswith("The strict closed accuracy is ")
    assert [tile.label for tile in content.tiles] == [
        "strict closed accuracy",
        "legacy closed accuracy",
    ]


def test_the_notice_cannot_be_taken_away_by_a_recipe(demo_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "demo"
    shutil.copytree(demo_run, run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe |= {"notice": "", "description": "</p></header><!--"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    html = render_html(gather(run))
    assert "Research use only." in html.split("<main>")[0]
    assert NOTICE in html.split("<footer>")[1]
    assert "<!--" not in html


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("recipe.yaml", "a: [", "YAML"),
        ("recipe.yaml", "just text", "not a recipe"),
        ("results.json", "{", "not valid JSON"),
    ],
)
def test_a_broken_file_is_named(
    demo_run: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    run = tmp_path / "demo"
    shutil.copytree(demo_run, run)
    (run / name).write_text(text)
    with pytest.raises(RunError, match=message):
        gather(run)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("record.json", "{", "record.json: not valid JSON"),
        ("record.json", None, "record.json: no such file."),
        ("log.jsonl", "{\n{}\n", "log.jsonl:1: not a JSON object."),
        ("predictions/vqa/made-up/test.jsonl", None, "predictions/vqa/made-up/test.jsonl: cannot "),
        ("predictions/vqa/made-up/test.jsonl", '{"id": "1", "text": "x"}\n', "has other answers"),
        ("predictions/vqa/made-up/test.about.json", "[1]", "test.about.json is damaged"),
        ("results.json", None, "results.json is not there, and answers are"),
    ],
)
def test_a_report_of_a_run_that_is_not_whole_says_what_is_not(
    demo_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str | None,
    problem: str,
) -> None:
    run = tmp_path / "demo"
    shutil.copytree(demo_run, run)
    assert gather(run).problems == []
    (run / name).unlink() if text is None else (run / name).write_text(text)
    write_report(run)
    assert problem in capsys.readouterr().err
    page = (run / "report.html").read_text("utf-8")
    assert problem in page and str(tmp_path / "demo") not in page


def test_a_log_without_the_end_of_a_finished_stage_is_said(demo_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "demo"
    shutil.copytree(demo_run, run)
    (run / "checkpoints" / "aligned" / "final").mkdir(parents=True)
    assert gather(run).problems == []
    lines = (run / "log.jsonl").read_text("utf-8").splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(lines[:-1]))
    (problem,) = gather(run).problems
    assert problem == "log.jsonl does not hold all that was logged of stage aligned."


def test_a_run_of_an_earlier_version_is_said_to_be_unchecked(
    demo_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "demo"
    shutil.copytree(demo_run, run)
    (run / "record.json").write_text("{}")
    assert "demo was begun by an earlier version" in gather(run).problems[0]


@pytest.mark.parametrize("lost", ["results.json", "predictions"])
def test_a_report_is_not_written_over_by_one_that_says_less(
    demo_run: Path, tmp_path: Path, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a copy that was passed on without the answers."""
    run = tmp_path / "run"
    shutil.copytree(demo_run, run)
    write_report(run)
    before = {name: (run / name).read_bytes() for name in ("report.html", "scores.csv")}
    path = run / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_report(run)
    assert before == {name: (run / name).read_bytes() for name in before}
    assert "report.html was kept" in capsys.readouterr().err
    (run / "report.html").unlink()
    write_report(run)
    assert (run / "report.html").read_bytes() != before["report.html"]


def test_pictures_are_there_without_scrolling(html: str) -> None:
    assert html.count("<img ") > 3 and "lazy" not in html


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        gather(tmp_path)


def test_without_the_extra_the_error_says_what_to_install(
    demo_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = gather(demo_run)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"exgra-med\[report\]"):
        render_html(content)


def test_a_torn_log_and_steps_run_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [
        {"kind": "train", "stage": "a", "step": 1, "loss": 3.0},
        {"kind": "train", "stage": "a", "step": 2, "loss": 9.0},
        {"kind": "train", "stage": "a", "step": 2, "loss": 2.0, "matching_accuracy": None},
        {"kind": "train", "stage": "b", "step": 1, "language_loss": float("inf")},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + '\n{"kind": "tr')
    first, second = read_log(path)
    assert first.train["language_loss"].values == [3.0, 2.0]
    assert not first.has("matching_accuracy")
    assert not second.has("language_loss")
    assert read_log(tmp_path / "absent.jsonl") == []


def test_a_long_curve_stays_small_and_a_hostile_stage_name_harmless(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    stage = '"><script>'
    lines = [
        {"kind": "train", "stage": stage, "step": step, "language_loss": 1 / (1 + step)}
        for step in range(20_000)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    (figure,) = training_figures(read_log(path))
    assert len(figure.svg) < 60_000
    assert "<script" not in figure.svg
