"""The first screen of a report: each sentence, and what would have made it another one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up_run import SayingEngine, made_up_session, make_data

from exgra_med.data.records import Record, file_sha256
from exgra_med.evaluation.answer_spread import answer_spread, collapsed, spread_sentence
from exgra_med.evaluation.answers import Prediction, Question, pair
from exgra_med.evaluation.report.comparison import write_comparison
from exgra_med.evaluation.report.page import Content, Finding, gather, render_html
from exgra_med.evaluation.results import Entry, Score, put_result, read_results
from exgra_med.evaluation.tasks import vqa

BETTER, MISSING = "Better than without the picture?", "What is missing?"
LOOKS, COLLAPSED = "Does it look at the picture?", "Is it collapsed?"
TIED, LEARNS = "Are picture and answer tied?", "Still learning, or overfitting?"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("findings") / "data")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    recipe = {
        "name": "demo",
        "description": "Three stages on the bundled sample.",
        "model": {"architecture": {"connector": "none"}},
        "data": {"folder": str(data)},
        "stages": {"vqa": {}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def answer(run: Path, data: Path, say: Any) -> Entry | None:
    return vqa.evaluate(made_up_session(run, data, SayingEngine(say), num_bootstrap_samples=50))


def found(content: Content) -> dict[str, Finding]:
    return {each.question: each for each in content.findings}


def right(record: Record) -> str:
    return record.answer


def test_the_title_is_of_what_ran_and_not_of_the_recipe(run: Path, data: Path) -> None:
    """A recipe made to run on other data keeps its words, which then are of something else."""
    answer(run, data, right)
    log(run, vqa=[(0, 2.0), (40, 1.0)])
    content = gather(run)
    assert content.name == "mine"
    assert content.description == (
        "Trained on data, from a toy model with random weights: vqa (40 steps). Asked (vqa): 30 "
        "questions of made-up, test."
    )
    header = render_html(content).split("<main>")[0]
    assert "bundled sample" not in header and str(data) not in header
    assert ("the recipe's own words", "Three stages on the bundled sample.") in content.provenance


def test_a_run_of_another_model_is_told_by_that_model(run: Path, data: Path) -> None:
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["model"] = {"start": "/secret/place/some-model"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert gather(run).description == "Some-model, without a log of training."


@pytest.mark.parametrize(
    ("bounds", "state", "words"),
    [
        ([2.0, 18.0], "good", "It is above the 32.4 % of the strongest baseline that sees no"),
        ([-18.0, -2.0], "bad", "It is below the 32.4 % of the strongest baseline that sees no"),
        ([-2.0, 18.0], "bad", "It cannot be told apart from the 32.4 % of the strongest baseline"),
        (None, "open", "too few images to tell the two apart"),
    ],
)
def test_the_verdict_is_against_the_strongest_baseline_without_a_picture(
    run: Path, data: Path, bounds: list[float] | None, state: str, words: str
) -> None:
    answer(run, data, right)
    set_baselines(run, {"majority": 32.4, "text_nearest": 30.7}, bounds)
    verdict = found(gather(run))[BETTER]
    assert verdict.state == state and words in verdict.answer
    assert "(most frequent training answer)" in verdict.answer
    assert "30.7" not in verdict.answer
    assert "(30 of 30 questions answered" in verdict.answer


@pytest.mark.parametrize(
    ("accuracy", "bounds", "state", "words"),
    [
        (70.0, [55.0, 82.0], "good", "70.0 %, the most likely option without it gives 41.0 %. All"),
        (50.0, [35.0, 65.0], "bad", "The two cannot be told apart."),
        (20.0, [10.0, 30.0], "bad", "is below that"),
        (50.0, None, "open", "too few images"),
    ],
)
def test_chosen_options_stand_beside_guessing_and_the_text_alone(
    run: Path, accuracy: float, bounds: list[float] | None, state: str, words: str
) -> None:
    """A run that answered multiple choice alone was said not to have been scored."""
    scores = {
        "likelihood": {"accuracy": Score(value=accuracy, interval=bounds, count=40)},
        "text_only_baseline": {"accuracy": Score(value=41.0, count=40)},
        "guessing": {"accuracy": Score(value=25.0, count=40)},
    }
    given: dict[str, Any] = {"dataset": "made-up", "split": "test", "engine": {}}
    put_result(run, Entry(task="multiple-choice", scores=scores, **given))
    verdict = found(gather(run))[BETTER]
    assert verdict.state == state and words in verdict.answer


def test_what_knowing_the_picture_is_worth_is_told_where_it_is_more(run: Path, data: Path) -> None:
    answer(run, data, right)
    scores = {"majority": 20.0, "text_nearest": 30.7, "same_image_nearest": 63.5}
    set_baselines(run, scores, [2.0, 18.0])
    verdict = found(gather(run))[BETTER].answer
    assert "30.7 % of the strongest baseline that sees no picture (nearest training" in verdict
    assert "Knowing which picture it is, without looking, gives 63.5 %" in verdict
    set_baselines(run, scores | {"same_image_nearest": 10.0}, [2.0, 18.0])
    assert "Knowing" not in found(gather(run))[BETTER].answer


def set_baselines(run: Path, values: dict[str, float], bounds: list[float] | None) -> None:
    (entry,) = read_results(run).find("vqa")
    score = {"value": 10.0, "interval": bounds, "count": 30}
    baselines = {
        name: {
            "scores": {"strict": {"average": {"value": value, "interval": None, "count": 30}}},
            "difference": {"average": score},
        }
        for name, value in values.items()
    }
    details = entry.details | {"baselines": baselines}
    put_result(run, entry.model_copy(update={"details": details}))


def test_missing_answers_come_first_and_can_refuse_the_verdict(run: Path, data: Path) -> None:
    """12 of 30 answers are there, all right: the others could turn what that says."""
    answer(run, data, lambda record: right(record) if number(record) < 12 else None)
    content = gather(run)
    assert [each.question for each in content.findings][:2] == [MISSING, BETTER]
    assert content.findings[0].answer == (
        "Without a usable answer: 18 of 30 questions of made-up, test (vqa); they score 0."
    )
    assert "12 of 30 questions answered, 18 missing" in found(content)[BETTER].answer
    assert "12 of 30 questions answered, 18 missing" in content.tiles[0].detail
    (entry,) = read_results(run).find("vqa")
    baseline = entry.details["baselines"]["majority"]
    assert baseline["difference"]["average"]["count"] == 12
    assert baseline["lowest"]["average"]["count"] == baseline["highest"]["average"]["count"] == 30


def number(record: Record) -> int:
    image, place = record.id.split("/")[-1].split("-")
    return (int(image) - 6) * 5 + int(place)


@pytest.mark.parametrize(
    ("lowest", "highest", "words"),
    [
        ([1.0, 9.0], [2.0, 20.0], "It is above the"),
        ([-5.0, 9.0], [2.0, 20.0], "No verdict against the 32.4 %"),
        ([-9.0, -1.0], [2.0, 20.0], "No verdict against the 32.4 %"),
    ],
)
def test_a_verdict_stands_where_the_missing_answers_cannot_turn_it(
    run: Path, data: Path, lowest: list[float], highest: list[float], words: str
) -> None:
    answer(run, data, right)
    set_baselines(run, {"majority": 32.4}, [2.0, 18.0])
    (entry,) = read_results(run).find("vqa")
    baseline = entry.details["baselines"]["majority"]
    for name, bounds in (("lowest", lowest), ("highest", highest)):
        baseline[name] = {"average": {"value": 0.0, "interval": bounds, "count": 30}}
    put_result(run, entry)
    assert words in found(gather(run))[BETTER].answer


def test_nothing_missing_is_said_too(run: Path, data: Path) -> None:
    answer(run, data, right)
    missing = found(gather(run))[MISSING]
    assert missing.state == "good" and "every question has an answer" in missing.answer
    assert gather(run).findings[0].question == BETTER


def test_what_an_evaluation_gives_is_what_it_wrote(run: Path, data: Path) -> None:
    entry = answer(run, data, right)
    assert entry is not None
    (file,) = (run / "predictions").rglob("*.jsonl")
    assert entry.sha256() == file_sha256(file)
    assert [entry] == read_results(run).find("vqa")


def test_answers_that_are_not_those_that_were_scored_are_named(run: Path, data: Path) -> None:
    answer(run, data, right)
    (file,) = (run / "predictions").rglob("*.jsonl")
    (entry,) = read_results(run).find("vqa")
    assert entry.sha256() == file_sha256(file)
    whole = file.read_text()
    file.write_text("".join(whole.splitlines(keepends=True)[:20]))
    content = gather(run)
    assert content.findings[0].question == MISSING
    assert "were changed after they were scored" in content.findings[0].answer
    assert "exgra-med evaluate vqa mine" in content.findings[0].answer
    assert found(content)[BETTER].answer.startswith(
        "Of answers that are no longer those of the run: "
    )
    page = write_comparison([run, run], run / "two.html").read_text()
    assert page.index("were changed after they were scored") < page.index("<main>")
    # Results of earlier versions have no digest, but the number of answers.
    results = json.loads((run / "results.json").read_text())
    del results["sha256"], results["results"][0]["answers_sha256"]
    (run / "results.json").write_text(json.dumps(results))
    told = gather(run).findings[0].answer
    assert "There were 30 answers" in told and "there are 20 now" in told
    file.unlink()
    assert "are not there" in gather(run).findings[0].answer


def test_the_counts_and_the_digest_stand_beside_every_score(run: Path, data: Path) -> None:
    answer(run, data, lambda record: right(record) if number(record) else None)
    (file,) = (run / "predictions").rglob("*.jsonl")
    page = render_html(gather(run))
    name = file.relative_to(run).as_posix()
    assert f"Answers: {name}, sha256 {file_sha256(file)[:12]}." in page
    assert "30 questions: 29 answered, 1 missing, " in page


def log(run: Path, **stages: list[tuple[int, float]]) -> None:
    """Held-out losses by stage: (step, loss)."""
    lines = [
        {"kind": kind, "stage": stage, "step": step, "language_loss": loss}
        for stage, curve in stages.items()
        for step, loss in curve
        for kind in ("train", "held_out")
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("curve", "state", "words"),
    [
        (
            [2.0, 1.2, 1.5],
            "bad",
            "it rises by 25 %, from 1.200 at step 10 to 1.500 at the end: over",
        ),
        (
            [2.0, 1.2, 1.23, 1.24],
            "bad",
            "it rises by 3 %, from 1.200 at step 10 to 1.240 at the en",
        ),
        ([2.0, 1.5, 1.2], "open", "it still falls, from 1.500 at step 10 to 1.200 at the end"),
        ([2.0, 1.2, 1.195], "good", "it has levelled off at 1.195."),
        ([2.0, 1.2, 1.205], "good", "it has levelled off at 1.205, within its ups and downs since"),
        ([2.0, 1.2], "open", "it fell from 2.000 to 1.200; two measurements do not show where"),
        ([1.2, 1.205], "open", "it hardly changed, from 1.200 to 1.205; two measurements do not"),
        (
            [1.2, 2.0],
            "bad",
            "it rises by 67 %, from 1.200 at step 0 to 2.000 at the end: this stage",
        ),
        # A small rise at one measurement is no trend, with two measurements or with three.
        (
            [1.2, 1.22],
            "open",
            "one measurement that rises, from 1.200 at step 0 to 1.220 at the en",
        ),
        ([2.0, 1.2, 1.22], "open", "one measurement that rises, from 1.200 at step 10 to 1.220"),
        # A curve that jumps up and down by 4 % anyway.
        (
            [1.25, 1.2, 1.25, 1.2, 1.25, 1.2, 1.25, 1.24],
            "good",
            "it has levelled off at 1.240, within",
        ),
        ([2.0], "open", "Not measured: no loss on held-out records"),
    ],
)
def test_a_held_out_loss_is_remarked_on(
    run: Path, curve: list[float], state: str, words: str
) -> None:
    log(run, vqa=[(10 * place, loss) for place, loss in enumerate(curve)])
    learns = found(gather(run))[LEARNS]
    assert learns.state == state and words in learns.answer


def test_one_stage_that_overfits_is_enough(run: Path) -> None:
    log(run, aligned=[(0, 2.0), (5, 1.0), (9, 1.5)], vqa=[(0, 2.0), (5, 1.0), (9, 1.0)])
    learns = found(gather(run))[LEARNS]
    assert learns.state == "bad"
    assert "aligned: it rises" in learns.answer and "vqa: it has levelled off" in learns.answer


def held_out(run: Path, *figures: dict[str, Any]) -> None:
    lines = [
        {"kind": "held_out", "stage": "aligned", "step": step, **each}
        for step, each in enumerate(figures)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def level(accuracy: float, unrelated: float, **more: Any) -> dict[str, Any]:
    return {
        "image_answer_accuracy": accuracy, "image_answer_unrelated": unrelated, "chance": 0.1,
        "matching_accuracy": 0.86, "matching_unrelated": 0.94, "num_nodes": 40, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accuracy", "unrelated", "state", "words"),
    [
        (0.6, 0.05, "good", "unrelated views reach 10 %. That is above the floor"),
        (0.0, 0.05, "bad", "That is not surely above the floor"),
        (0.6, 0.75, "bad", "unrelated views reach 75 %. That is not surely above"),
        (0.15, 0.1, "bad", "That is not surely above the floor"),
    ],
)
def test_alignment_is_image_to_answer_above_unrelated_views(
    run: Path, accuracy: float, unrelated: float, state: str, words: str
) -> None:
    held_out(run, level(0.0, unrelated), level(accuracy, unrelated))
    content = gather(run)
    tied = found(content)[TIED]
    assert tied.state == state and words in tied.answer
    assert f"0 % → {100 * accuracy:.0f} % of 40 held-out records" in tied.answer
    (block,) = content.alignment
    labels = [row.label for row in block.table.rows]
    assert labels == ["image ↔ answer", "every view ↔ barycenter, through graph layers"]
    shown = [f"{100 * each:.0f}" for each in (0.0, accuracy, unrelated, 0.1)]
    assert block.table.rows[0].cells == shown
    assert block.table.rows[1].cells == ["86", "86", "94", "10"]
    # Nothing of the barycenter is a headline.
    header = render_html(content).split("<main>")[0]
    assert "86" not in header.split("</style>")[1]


def test_a_log_of_an_earlier_version_has_no_floor(run: Path) -> None:
    held_out(run, {"image_answer_accuracy": 0.3, "chance": 0.1})
    content = gather(run)
    assert found(content)[TIED].state == "open"
    assert content.alignment[0].table.rows[0].cells == ["30", "30", "not measured", "10"]


@pytest.mark.parametrize(
    ("shuffled", "blank", "state", "words"),
    [
        ((12.0, [5.0, 20.0]), (12.0, [5.0, 20.0]), "good", "Yes: with the picture of another"),
        ((1.0, [-5.0, 7.0]), (1.0, [-5.0, 7.0]), "bad", "Not shown: with the picture of another"),
        ((1.0, [-5.0, 7.0]), (9.0, [3.0, 15.0]), "bad", "not what is on it"),
        ((-9.0, [-15.0, -3.0]), (0.0, [-5.0, 5.0]), "bad", "No: it is better with a wrong picture"),
        ((5.0, None), (5.0, None), "open", "Too few images"),
    ],
)
def test_whether_it_looks_is_what_another_picture_costs(
    run: Path, data: Path, shuffled: Any, blank: Any, state: str, words: str
) -> None:
    answer(run, data, right)
    assert found(gather(run))[LOOKS].answer.startswith("Not measured. “exgra-med evaluate reliance")
    (entry,) = read_results(run).find("vqa")
    lost = {
        kind: {"average": Score(value=value, interval=bounds, count=30)}
        for kind, (value, bounds) in (("shuffled", shuffled), ("blank", blank), ("noise", shuffled))
    }
    update = {"task": "reliance", "scores": lost, "answers": {}, "details": {}}
    put_result(run, entry.model_copy(update=update))
    looks = found(gather(run))[LOOKS]
    assert looks.state == state and words in looks.answer
    assert ("not what is on it" in looks.answer) == ("not what is on it" in words)


def spread(*asked: tuple[str, str, str, int]) -> dict[str, Any]:
    """Kind (and how the question begins), reference, answer, how often."""
    questions, predictions = [], []
    for kind, reference, said, times in asked:
        answer_type, _, begins = kind.partition(" ")
        for _ in range(times):
            name = str(len(questions))
            text = f"{begins} it, or where?"
            questions.append(Question(name, text, reference, answer_type))  # type: ignore
            predictions.append(Prediction(name, said))
    return answer_spread(pair(predictions, questions))


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        # "Yes" to everything, also to "where".
        ([("CLOSED", "yes", "Yes", 10), ("CLOSED", "no", "yes.", 10),
          ("OPEN", "left lung", "Yes", 10)], ["open", "closed", "all"]),
        # "Yes" to all closed questions only.
        ([("CLOSED", "yes", "yes", 6), ("CLOSED", "no", "yes", 6), ("OPEN", "a", "a", 6),
          ("OPEN", "b", "b", 6)], ["closed"]),
        # One word to all open questions only.
        ([("CLOSED", "yes", "yes", 6), ("CLOSED", "no", "no", 6), ("OPEN", "a", "a", 3),
          ("OPEN", "b", "a", 3), ("OPEN", "c", "a", 3)], ["open"]),
        # Right, though one answer is frequent.
        ([("CLOSED", "no", "no", 18), ("CLOSED", "yes", "yes", 2)], []),
        # Constant where nearly all is so.
        ([("CLOSED", "no", "no", 20)], []),
        # Constant where nine tenths are so.
        ([("CLOSED", "no", "no", 18), ("CLOSED", "yes", "no", 2)], ["closed", "all"]),
        ([("CLOSED", "yes", "yes", 10), ("CLOSED", "no", "no", 10)], []),
        # One answer to each kind of question, here to all that begin with the same word.
        ([("OPEN where", "left lung", "liver", 3), ("OPEN where", "liver", "liver", 3),
          ("OPEN what", "CT", "MRI", 6),
          ("CLOSED is", "yes", "yes", 5)], ["by_kind"]),
        # The same answers, where they are the right ones.
        ([("OPEN where", "liver", "liver", 6), ("OPEN what", "MRI", "MRI", 6),
          ("CLOSED is", "yes", "yes", 6)], []),
        # Answers that vary within a kind.
        ([("OPEN where", "left lung", "liver", 3), ("OPEN where", "liver", "left lung", 3),
          ("OPEN what", "CT", "MRI", 3), ("OPEN what", "MRI", "CT", 3)], []),
        # Saying nothing to all.
        ([("OPEN", "a", "", 5), ("OPEN", "b", "", 5)], ["open", "all"]),
        # Too few to tell.
        ([("CLOSED", "yes", "no", 4)], []),
    ],
)  # fmt: skip
def test_one_answer_for_most_questions_is_collapse(asked: Any, where: list[str]) -> None:
    found = spread(*asked)
    assert collapsed(found) == where
    assert spread_sentence(found).startswith("Collapsed") == bool(where)


def test_collapse_is_told_with_its_counts() -> None:
    found = spread(
        ("CLOSED", "yes", "Yes", 10), ("CLOSED", "no", "yes", 10), ("OPEN", "left lung", "Yes", 9)
    )
    assert spread_sentence(found) == (
        "Collapsed: one answer stands for most. “yes” to 9 of 9 open questions, where it is right "
        "for 0; “yes” to 20 of 20 closed questions, where it is right for 10. 9 of 9 open "
        "questions are answered by yes or no, which is no answer to them."
    )
    varied = spread(("CLOSED", "yes", "yes", 5), ("CLOSED", "no", "no", 5), ("OPEN", "b", "b", 5))
    assert spread_sentence(varied).startswith("Not collapsed: 3 different answers to 15 questions")


def test_one_answer_to_each_kind_is_told_with_the_kinds() -> None:
    found = spread(
        ("OPEN where", "left lung", "liver", 6), ("OPEN what", "CT", "MRI", 6),
        ("CLOSED is", "yes", "yes", 8),
    )  # fmt: skip
    assert spread_sentence(found) == (
        "Collapsed: one answer stands for nearly all questions that begin with the same word. "
        "“yes” to 8 of 8 closed “is” questions, where it is right for 8; “mri” to 6 of 6 open "
        "“what” questions, where it is right for 0; “liver” to 6 of 6 open “where” questions, "
        "where it is right for 0."
    )
    del found["by_kind"]  # as results of earlier versions are
    assert spread_sentence(found).startswith("Not collapsed")


def test_the_report_and_the_terminal_call_a_yes_sayer_collapsed(run: Path, data: Path) -> None:
    answer(run, data, lambda _: "Yes")
    finding = found(gather(run))[COLLAPSED]
    assert finding.state == "bad" and finding.answer.startswith("Collapsed")
    assert any(
        note.startswith("Collapsed") for note in vqa.TASK.notes(read_results(run).results[0])
    )
    shutil.rmtree(run / "predictions")
    answer(run, data, right)
    assert found(gather(run))[COLLAPSED].state == "good"
