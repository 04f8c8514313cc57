"""A measure is one entry; an engine is one function; whatever either raises is one sentence."""

import json
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from chat_server import ChatServer
from made_up_run import SayingEngine, made_up_session, make_data
from typer.testing import CliRunner

from exgra_med import plugins
from exgra_med.cli.main import app
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.errors import RunError, ScoreError
from exgra_med.evaluation import measures
from exgra_med.evaluation.compare import compare_stored
from exgra_med.evaluation.engines import Answer, EngineOptions
from exgra_med.evaluation.measures import MEASURES, Case, Measure
from exgra_med.evaluation.report import write_report
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.score import score_vqa
from exgra_med.evaluation.session import answers_file, open_session
from exgra_med.evaluation.tasks import vqa
from exgra_med.llm.service import ServiceSettings
from exgra_med.terminal import Silent
from exgra_med.web.run_view import find_runs, run_html

RECIPE = {"name": "made-up", "model": {"start": "made-up"}, "stages": {}}
WIDE = {"COLUMNS": "200"}


def one_word(case: Case) -> float:
    """1 for an answer of one word."""
    return float(len(case.answer.split()) == 1)


ONE_WORD = Measure("one_word", "answers of one word", "all", strict=one_word)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install an entry point of an invented package for the time of a test."""

    def install(group: str, name: str, value: Any) -> None:
        module = ModuleType("another_package")
        vars(module)["thing"] = value
        monkeypatch.setitem(__import__("sys").modules, "another_package", module)
        point = metadata.EntryPoint(name, "another_package:thing", group)

        def found(**wanted: str) -> list[metadata.EntryPoint]:
            return [point] if wanted == {"group": group} else []

        monkeypatch.setattr("exgra_med.plugins.entry_points", found)
        forget()

    def forget() -> None:
        measures._plugged_in.cache_clear()
        plugins._plugins.cache_clear()

    yield install
    monkeypatch.undo()
    forget()


def run_of(folder: Path, data: Path, engine: Any) -> Path:
    """A scored run folder without training."""
    folder.mkdir(parents=True)
    recipe = RECIPE | {"data": {"folder": str(data)}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (folder / "record.json").write_text("{}", encoding="utf-8")
    vqa.evaluate(made_up_session(folder, data, engine, num_bootstrap_samples=20))
    return folder


def shown_everywhere(measure: Measure, root: Path, data: Path) -> None:
    """Sees one measure in every place that shows measures."""
    first = run_of(root / "runs" / "first", data, SayingEngine(lambda _: "yes"))
    second = run_of(
        root / "runs" / "second",
        data,
        SayingEngine(lambda record: "left lung" if "Where" in record.question else "yes"),
    )
    # results.json
    (entry,) = read_results(second).find("vqa")
    share = 100 * sum("Where" not in each.question for each in
                      made_up_session(first, data, SayingEngine(str)).records) / 30  # fmt: skip
    scored = entry.score("strict", measure.name)
    assert scored.value == pytest.approx(share) and scored.count == 30
    assert scored.interval is not None
    for baseline in entry.details["baselines"].values():
        assert measure.name in baseline["scores"]["strict"]
    # The terminal.
    done = CliRunner().invoke(
        app, ["evaluate", "score", str(answers_file(second, entry)), str(data / "test.jsonl")],
        env=WIDE,
    )  # fmt: skip
    assert re.search(rf"Answers of one word +{share:.1f}", done.stdout), done.output
    # compare, for a person and for a machine
    rows = {each["measure"]: each for each in compare_stored(first, second)["rows"]}
    assert rows[measure.name]["first"] == 100.0
    assert rows[measure.name]["second"] == pytest.approx(share)
    done = CliRunner().invoke(app, ["evaluate", "compare", str(first), str(second)], env=WIDE)
    assert "answers of one word" in done.stdout
    # report.html and scores.csv
    html = write_report(second).read_text(encoding="utf-8")
    assert '<th scope="row">Answers of one word</th>' in html
    assert '<th scope="col" class="n">Answers of one word</th>' in html, "beside the baselines"
    csv = (second / "scores.csv").read_text(encoding="utf-8").splitlines()
    start = f"made-up,test,vqa,strict,{measure.name},{scored.value},"
    assert sum(row.startswith(start) for row in csv) == 1
    # The page: a run, and the runs of a study.
    places = find_runs([root / "runs"])
    assert "Answers of one word" in run_html(places["runs/second"])
    (root / "runs" / "study.yaml").write_text("name: made-up", encoding="utf-8")
    study = find_runs([root / "runs"])["runs"]
    page = run_html(study)
    assert "one word" in page.lower() and f"{share:.1f}" in page


def test_a_new_measure_is_one_entry(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ONE_WORD.name not in score_vqa(*self_answered())["scores"]
    monkeypatch.setattr(measures, "MEASURES", (*MEASURES, ONE_WORD))
    shown_everywhere(ONE_WORD, tmp_path, data)


def test_a_measure_of_another_package_is_shown_as_ours_are(
    data: Path, tmp_path: Path, extension: Any
) -> None:
    extension("exgra_med.measures", "one_word", ONE_WORD)
    shown_everywhere(ONE_WORD, tmp_path, data)


def test_a_run_is_shown_when_the_package_of_its_measure_is_gone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(measures, "MEASURES", (*MEASURES, ONE_WORD))
        run = run_of(tmp_path / "run", data, SayingEngine(lambda _: "yes"))
    assert "One word" in write_report(run).read_text(encoding="utf-8")
    assert "made-up,test,vqa,strict,one_word,100.0," in (run / "scores.csv").read_text("utf-8")


def self_answered() -> tuple[list[Any], list[Any]]:
    """One question with its answer."""
    from exgra_med.evaluation.answers import Prediction, Question

    return [Prediction("1", "yes")], [Question("1", "Is it?", "yes", "CLOSED")]


def fails(_: Case) -> float:
    raise ValueError("nothing\nhere")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "bad",
            Measure("bad", "bad", "all", strict=fails),
            "The measure 'bad' of another package fails on the question '1': "
            "ValueError: nothing here.",
        ),
        (
            "bad",
            Measure("bad", "bad", "all", strict=lambda _: "much"),  # type: ignore[arg-type,return-value]
            "fails on the question '1': ValueError",
        ),
        ("bad", "a text", "is no Measure of that name"),
        ("bad", Measure("other", "other", "all"), "is no Measure of that name"),
        ("average", Measure("average", "average", "all"), "exgra-med has one of that name"),
    ],
)
def test_a_measure_of_another_package_that_fails_is_a_sentence(
    extension: Any, name: str, value: Any, sentence: str
) -> None:
    extension("exgra_med.measures", name, value)
    with pytest.raises(ScoreError) as caught:
        score_vqa(*self_answered())
    assert sentence in caught.value.message
    assert "package" in caught.value.hint or "Measure" in caught.value.hint


class AnotherEngine:
    """An engine as another package would write it; it fails from a question on."""

    __module__ = "another_package"
    batch_size = 5

    def __init__(self, options: EngineOptions) -> None:
        self.options, self.num_left = options, 10
        self.facts = {"name": "another", "model": options.model, "template": None}

    def begin(self, records: Sequence[Record]) -> None:
        """See `Engine`."""

    def answer(self, records: Sequence[Record], images: ImageFolder) -> Sequence[Answer | None]:
        """See `Engine`."""
        if self.num_left == 0:
            raise ZeroDivisionError("out of\nmemory")
        self.num_left -= len(records)
        return [Answer("yes") for _ in records]

    def end(self) -> str:
        """See `Engine`."""
        return ""


def test_an_engine_of_another_package_that_fails_is_a_sentence_and_goes_on(
    data: Path, tmp_path: Path, extension: Any
) -> None:
    extension("exgra_med.engines", "another", AnotherEngine)
    run = tmp_path / "run"
    call = ["evaluate", "vqa", "m", "--engine", "another", "--data", str(data), "--out", str(run)]
    for num_answered in (10, 20):
        error = CliRunner().invoke(app, call).exception
        assert isinstance(error, RunError)
        assert error.message == (
            "The engine another_package.AnotherEngine failed: ZeroDivisionError: out of memory."
        )
        assert error.hint == "What was answered is kept; the same call goes on."
        (answers,) = run.rglob("*.jsonl")
        assert len(answers.read_text("utf-8").splitlines()) == num_answered
    # The third call answers the last ten, and is scored.
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, (done.output, done.exception)
    (entry,) = read_results(run).results
    assert entry.engine == {"name": "another", "model": "m"}
    assert entry.score("strict", "closed_accuracy").count == 18


def test_local_and_served_answers_of_the_same_texts_are_one_entry_but_for_the_engine(
    data: Path, tmp_path: Path
) -> None:
    def say(question: str) -> str:
        return "left" if "left" in question else "no"

    with ChatServer(lambda body: say(body["messages"][0]["content"][-1]["text"])) as server:
        service = ServiceSettings(model="m", base_url=server.url)
        served = open_session(
            "m", Silent(), data=str(data), out=tmp_path / "served", engine="openai",
            service=service,
        )  # fmt: skip
        vqa.evaluate(served)
    samples = served.settings.num_bootstrap_samples
    local = made_up_session(
        tmp_path / "local", data, SayingEngine(lambda record: say(record.question)),
        num_bootstrap_samples=samples,
    )  # fmt: skip
    vqa.evaluate(local)
    (one,), (other,) = (read_results(each.run.path).results for each in (served, local))
    about_service = {"host": "127.0.0.1", "decoding": {"max_tokens": 1024}}
    assert one.engine == {"name": "openai", "model": "m", **about_service}
    assert other.engine == {"name": "saying"}
    # Of a server nothing says how an answer ended, so that the files differ.
    as_served = other.model_copy(
        update={
            "engine": one.engine, "template": one.template, "answers_sha256": one.answers_sha256,
        }
    )  # fmt: skip
    assert json.loads(as_served.model_dump_json()) == json.loads(one.model_dump_json())
    recipe = served.run.recipe
    assert served.images.max_pixels == recipe.data.max_pixels == local.images.max_pixels
    assert samples == 2000
    assert one.details["scorers"]["strict"]["bootstrap"]["samples"] == samples


def test_a_served_recipe_decides_pixels_and_resamples(data: Path, tmp_path: Path) -> None:
    """A folder of answers goes on as its recipe says, as that of a checkpoint does."""
    out, service = tmp_path / "served", ServiceSettings(model="m", base_url="http://127.0.0.1:9/v1")
    arguments: dict[str, Any] = {"out": out, "engine": "openai", "service": service}
    open_session("m", Silent(), data=str(data), **arguments)
    recipe = yaml.safe_load((out / "recipe.yaml").read_text("utf-8"))
    recipe["data"]["max_pixels"] = 1234
    recipe["evaluation"]["num_bootstrap_samples"] = 77
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    session = open_session("m", Silent(), **arguments)
    assert session.images.max_pixels == 1234
    assert session.settings.num_bootstrap_samples == 77
    assert session.data_folder == str(data)
