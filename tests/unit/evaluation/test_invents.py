"""Claims of findings, and answers that change with the picture, where the truth is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_run import SayingEngine, made_up_session, make_data

from exgra_med.data.existence import Truth, existence_questions
from exgra_med.evaluation.answer_spread import same_questions, same_questions_sentence
from exgra_med.evaluation.answers import Pairing, Prediction, Question, pair
from exgra_med.evaluation.existence import existence, existence_sentence
from exgra_med.evaluation.metrics import asks_existence
from exgra_med.evaluation.report.page import Finding, gather
from exgra_med.evaluation.results import put_result
from exgra_med.evaluation.score import score_vqa
from exgra_med.evaluation.tasks import vqa

NAMES = ("mass", "edema", "effusion", "nodule", "fracture")
Says = Callable[[Question], str | None]


def world(num_pictures: int, seed: int = 0) -> list[Question]:
    """Pictures with none to two of five findings, and what is asked about them."""
    random = np.random.default_rng(seed)
    pictures = []
    for number in range(num_pictures):
        drawn = random.choice(NAMES, int(random.integers(0, 3)), replace=False)
        pictures.append(Truth(f"{number}.png", frozenset(map(str, drawn)), "chest"))
    return [
        Question(
            id=f"{each.truth.image}-{each.finding}",
            text=f"Is there {each.finding}?",
            answer="yes" if each.is_there else "no",
            answer_type="CLOSED",
            images=(each.truth.image,),
            meta={"existence": list(each.kinds)},
        )
        for each in existence_questions(pictures, seed)
    ]


def answered(questions: list[Question], says: Says) -> Pairing:
    said = [(each.id, says(each)) for each in questions]
    return pair([Prediction(name, text) for name, text in said if text is not None], questions)


def right(question: Question) -> str:
    return question.answer


def test_who_always_looks_invents_nothing() -> None:
    questions = world(60)
    found = existence(answered(questions, right), 300)
    assert found is not None and set(found) == {"all", "random", "popular", "adversarial"}
    for part in found.values():
        values = {name: score["value"] for name, score in part["scores"].items()}
        assert values["false_claims"] == values["neither"] == 0
        assert values["true_claims"] == values["f1"] == values["told_apart"] == 100
        assert values["accuracy"] == 100
    low, high = found["all"]["scores"]["false_claims"]["interval"]
    assert low == 0 < high < 10, "no claim in 60 pictures does not show that there never is one"
    same = same_questions(answered(questions, right), 300)
    assert same is not None and same["changed"]["value"] == 100


@pytest.mark.parametrize("word", ["yes", "no", "I cannot tell."])
def test_who_never_looks_tells_nothing_apart(word: str) -> None:
    questions = world(60)
    pairing = answered(questions, lambda _: word)
    found = existence(pairing, 300)
    assert found is not None
    part, share = found["all"], {"yes": 100.0}.get(word, 0.0)
    scores = part["scores"]
    values = {name: score["value"] for name, score in scores.items()}
    assert values["false_claims"] == values["true_claims"] == values["yes_rate"] == share
    assert values["told_apart"] == 0
    low, high = scores["told_apart"]["interval"]
    assert low <= 0 <= high
    assert values["neither"] == (100 if word.startswith("I") else 0)
    present, absent = part["num_present"], part["num_absent"]
    assert scores["false_claims"]["count"] == absent
    assert scores["true_claims"]["count"] == present
    expected = {"yes": 200 * present / (2 * present + absent)}.get(word, 0)
    assert values["f1"] == pytest.approx(expected)
    same = same_questions(pairing, 300)
    assert same is not None and same["changed"]["value"] == 0
    assert same["changed"]["interval"][1] < 10


def test_who_looks_at_words_alone_is_found_out() -> None:
    """An answer for each finding, whatever the picture: right more often than not, and blind."""
    questions = world(60)
    same = same_questions(answered(questions, lambda q: "yes" if "mass" in q.text else "no"), 300)
    assert same is not None and same["changed"]["value"] == 0


def test_each_kind_has_the_same_present_findings() -> None:
    questions = world(60)
    found = existence(answered(questions, right), 0)
    assert found is not None
    assert len({part["num_present"] for part in found.values()}) == 1
    for kind in ("random", "popular", "adversarial"):
        number = sum(kind in each.meta["existence"] for each in questions)
        assert found[kind]["num_absent"] == number


def test_a_missing_answer_claims_nothing_and_is_counted() -> None:
    questions = world(40)
    found = existence(answered(questions, lambda q: None if q.answer == "no" else "yes"), 0)
    assert found is not None
    scores = found["all"]["scores"]
    assert scores["false_claims"]["value"] == 0
    share = 100 * found["all"]["num_absent"] / len(questions)
    assert scores["neither"]["value"] == pytest.approx(share)
    assert f"{share:.1f} % of the answers are neither" in existence_sentence(found)


def test_equal_words_of_other_pictures_by_hand() -> None:
    def ask(name: str, picture: str, text: str, answer: str) -> Question:
        return Question(name, text, answer, "CLOSED", (picture,))

    questions = [
        ask("1", "a", "Is there a mass?", "yes"),
        ask("2", "b", "Is there a mass?", "no"),
        ask("3", "c", "Is there a mass?", "no"),
        ask("4", "a", "Is it CT?", "yes"),
        ask("5", "b", "Is it CT?", "yes"),  # one right answer for all: no pair
        ask("6", "a", "Left or right?", "left"),
        ask("7", "b", "Left or right?", "right"),
        ask("8", "a", "Is there a mass?", "yes"),  # asked twice of one picture: the first counts
    ]
    said = {"1": "Yes.", "2": "no", "3": "yes", "4": "no", "5": "yes", "6": "left", "7": "left"}
    found = same_questions(answered(questions, lambda q: said.get(q.id, "no")), 0)
    assert found is not None
    # Asked thrice, of 1-2 and 1-3 one pair differs; asked twice, of the side none does.
    assert found["changed"]["value"] == pytest.approx(100 * (3 * 1 / 2 + 2 * 0) / 5)
    assert (found["num_pairs"], found["num_wordings"], found["num_images"]) == (3, 2, 3)
    assert found["changed"]["count"] == 5
    assert "5 questions in 2 wordings on 3 images" in same_questions_sentence(found)
    assert same_questions(answered(questions[3:5], right), 0) is None
    assert existence(answered(questions[5:7], right), 0) is None


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Is there evidence of a pneumothorax?", True),
        ("Are/Is there kidneys in the picture?", True),
        ("Does the picture contain liver?", True),
        ("Does the larynx appear in the image?", True),
        ("Can pneumonia be observed on the lower right lung in this picture?", True),
        ("Is a mass present in this xray?", True),
        ("Is the gallbladder visible?", True),
        ("Is the lung normal?", False),
        ("Does the lung appear normal in this image?", False),
        ("Is there no mass?", False),
        ("Is the mass absent?", False),
        ("Is this a CT?", False),
        ("Is the heart enlarged?", False),
        ("Does the lung look abnormal?", False),
    ],
)
def test_which_questions_ask_whether_something_is_there(text: str, asks: bool) -> None:
    assert asks_existence(text) is asks


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Simulated models: each picture is looked at with one chance, so that its answers go together.

    A picture that is not looked at gets "yes". The truth is what many pictures give.
    """
    looks, num_worlds, num_pictures = 0.6, 120, 40

    def measured(number: int, pictures: int, samples: int) -> dict[str, dict]:
        random = np.random.default_rng([7, number])
        sees = random.random(pictures) < looks
        questions = world(pictures, 1000 + number)
        pairing = answered(
            questions,
            lambda q: q.answer if sees[int(q.images[0].removesuffix(".png"))] else "yes",
        )
        found, same = existence(pairing, samples), same_questions(pairing, samples)
        assert found is not None and same is not None
        return found["all"]["scores"] | {"changed": same["changed"]}

    truth = {name: each["value"] for name, each in measured(998, 3000, 0).items()}
    assert truth["false_claims"] == pytest.approx(100 * (1 - looks), abs=3)
    # A pair differs where the picture without the finding was looked at.
    assert truth["changed"] == pytest.approx(100 * looks, abs=3)
    assert truth["told_apart"] == pytest.approx(100 * looks, abs=3)
    held = dict.fromkeys(("false_claims", "accuracy", "f1", "told_apart", "changed"), 0)
    for number in range(num_worlds):
        scores = measured(number, num_pictures, 200)
        for name in held:
            low, high = scores[name]["interval"]
            held[name] += low <= truth[name] <= high
    # 95 % of 120 are 114; three standard errors less are 107.
    assert all(count >= 107 for count in held.values()), held
    assert any(count < num_worlds for count in held.values()), held


def test_scores_of_answers_tell_both(tmp_path: Path) -> None:
    questions = world(30)
    result = score_vqa([Prediction(each.id, each.answer) for each in questions], questions)
    assert result["existence"]["all"]["scores"]["accuracy"]["value"] == 100
    assert result["same_questions"]["changed"]["value"] == 100
    assert "existence" not in score_vqa(
        [Prediction(each.id, each.answer) for each in questions], questions, "legacy"
    )


@pytest.mark.parametrize(
    ("says", "looks", "invents"),
    [
        (right, "open", "good"),
        (lambda q: "yes", "bad", "bad"),
        (lambda q: "yes" if q.images and int(q.images[0][:-4]) % 3 == 0 else q.answer, "", "bad"),
    ],
)
def test_the_first_screen_says_whether_it_looks_and_invents(
    tmp_path: Path, says: Says, looks: str, invents: str
) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: demo\n")
    questions = {each.id: each for each in world(80)}
    session = made_up_session(run, make_data(tmp_path / "data"), SayingEngine(lambda r: r.answer))
    entry = vqa.evaluate(session)
    assert entry is not None
    predictions = [Prediction(name, str(says(each))) for name, each in questions.items()]
    scored = vqa.score_answers(predictions, list(questions.values()), num_bootstrap_samples=200)
    scores = {name: part.pop("scores") for name, part in scored["scorers"].items()}
    put_result(run, session.entry("vqa", scores=scores, answers=entry.answers, details=scored))
    found: dict[str, Finding] = {each.question: each for each in gather(run).findings}
    if looks:
        assert found["Does it look at the picture?"].state == looks
    told = found["Does it invent findings?"]
    assert told.state == invents, told
    assert "findings that are not there (95 % interval" in told.answer
    assert "could well be there" in told.answer


def test_a_run_without_such_questions_has_no_such_line(tmp_path: Path) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: demo\n")
    assert not [each for each in gather(run).findings if "invent" in each.question]
