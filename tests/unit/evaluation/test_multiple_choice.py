"""Multiple choice: options are chosen by words or letters, and nothing leaves the count."""

from pathlib import Path

import pytest
from made_up_run import made_up_session, make_data
from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.errors import DataError, ScoreError
from exgra_med.evaluation.answers import Prediction, read_predictions
from exgra_med.evaluation.likelihood import option_scores
from exgra_med.evaluation.tasks.multiple_choice import (
    asked_with_options,
    choice_of,
    choose_strictly,
    evaluate,
    guessing,
    rotated,
    score_choices,
    score_likelihoods,
)

MODALITIES = ["CT", "MRI", "X-ray", "Ultrasound"]


def record(name: str, options: list[str], answer: str, dataset: str = "a") -> Record:
    turns = [{"role": "user", "text": "Which?"}, {"role": "assistant", "text": answer}]
    meta = {"options": options, "dataset": dataset, "modality": "CT"}
    value = {"id": name, "image": f"{name}.png", "turns": turns, "meta": meta}
    return Record.model_validate(value | {"answer_type": "CLOSED"})


@pytest.mark.parametrize(
    ("answer", "options", "chosen"),
    [
        ("CT", MODALITIES, 0),
        ("Assistant: an x-ray.", MODALITIES, 2),
        ("Based on the image, it is an MRI of the brain", MODALITIES, 1),
        ("B", MODALITIES, 1),
        ("(C)", MODALITIES, 2),
        ("A. CT", MODALITIES, 0),
        ("B. CT", MODALITIES, None),
        ("CT or MRI", MODALITIES, None),
        ("", MODALITIES, None),
        ("scan", MODALITIES, None),
        ("E", MODALITIES, None),
        ("not CT", MODALITIES, None),
        ("a benign mass", ["benign mass", "malignant mass"], 0),
        ("malignant mass", ["mass", "malignant mass"], 1),
        ("Yes", ["No", "Yes"], 1),
        ("AB", ["AB", "AB", "X"], 0),
        ("B", ["AC", "B"], 1),
    ],
)
def test_strict_choice(answer: str, options: list[str], chosen: int | None) -> None:
    assert choose_strictly(answer, options) == chosen


def test_a_record_becomes_a_question_with_the_originals_words() -> None:
    asked = asked_with_options(record("1", MODALITIES, "mri."), rotation=1)
    assert asked.id == "1@1"
    assert asked.question.startswith(
        "Which?Here are 4 candidate answers:['MRI', 'X-ray', 'Ultrasound', 'CT'] Only return"
    )
    assert "options" not in asked.meta
    assert choice_of(record("1", MODALITIES, "mri.")).right == 1
    assert rotated("abc", 4) == ("b", "c", "a")


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [(["CT"], "CT", "1 options"), (MODALITIES, "PET", "none of the options")],
)
def test_a_record_without_a_choice_is_refused(
    options: list[str], answer: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        choice_of(record("1", options, answer))


CHOICES = [
    choice_of(each)
    for each in (
        record("1", MODALITIES, "CT", "a"),
        record("2", MODALITIES, "MRI", "a"),
        record("3", ["Yes", "No"], "No", "b"),
        record("4", ["Yes", "No"], "Yes", "b"),
    )
]


def test_missing_and_unreadable_answers_stay_in_the_count() -> None:
    answers = [Prediction("1", "CT"), Prediction("2", "no idea"), Prediction("3", "No")]
    result = score_choices(answers, CHOICES)
    assert result["scores"]["accuracy"]["value"] == 50.0
    assert result["scores"]["macro_accuracy"]["value"] == 50.0
    assert result["missing"] == 1
    assert result["scores"]["unreadable"]["value"] == 50.0
    assert result["guessing"] == guessing(CHOICES) == 37.5
    assert result["groups"]["dataset"]["a"]["accuracy"]["value"] == 50.0
    assert result["scores"]["accuracy"]["count"] == result["num_questions"] == 4
    assert result["scores"]["balanced_accuracy"]["value"] == 50.0


def test_circular_order_unmasks_an_answerer_that_likes_the_first_option() -> None:
    answers = []
    for choice in CHOICES:
        for rotation in range(len(choice.options)):
            name = f"{choice.id}@{rotation}" if rotation else choice.id
            answers.append(Prediction(name, "A"))
    result = score_choices(answers, CHOICES, num_rotations=4)
    assert result["scores"]["accuracy"]["value"] == pytest.approx(37.5)
    assert result["scores"]["all_orders_right"]["value"] == 0.0
    right = [
        Prediction(f"{each.id}@{r}" if r else each.id, each.options[each.right])
        for each in CHOICES
        for r in range(4)
    ]
    perfect = score_choices(right, CHOICES, num_rotations=4)
    assert (
        perfect["scores"]["accuracy"]["value"]
        == perfect["scores"]["all_orders_right"]["value"]
        == 100.0
    )


def test_the_prior_takes_its_advantage_from_a_likely_option() -> None:
    scores = {each.id: [-1.0] + [-2.0] * (len(each.options) - 1) for each in CHOICES}
    scores["2"] = [-1.0, -1.2, -2.0, -2.0]
    prior = {each.id: [-1.0] + [-2.0] * (len(each.options) - 1) for each in CHOICES}
    assert score_likelihoods(scores, CHOICES)["scores"]["accuracy"]["value"] == 50.0
    calibrated = score_likelihoods(scores, CHOICES, prior)
    assert calibrated["scores"]["accuracy"]["value"] == 75.0
    assert calibrated["prior_subtracted"]
    assert score_likelihoods({}, CHOICES)["missing"] == 4


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ScoreError, match="no multiple-choice"):
        score_choices([], [])
    with pytest.raises(ScoreError, match="No prediction"):
        score_choices([Prediction("x", "CT")], CHOICES)
    with pytest.raises(ScoreError, match="Unknown rule"):
        score_choices([Prediction("1", "CT")], CHOICES, "magic")


def test_likelihoods_of_a_model_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    from test_predict_model import make_bundle

    bundle = make_bundle()
    Image.effect_noise((40, 40), 60).convert("RGB").save(tmp_path / "1.png")
    images = ImageFolder(tmp_path, 10_000)
    options = ["yes", "a mass in the left upper lobe", "normal"]
    whole = record("1", options, "yes")
    scores = option_scores(bundle, whole, images, "exgra", 512)
    pairs = [
        option_scores(bundle, record("1", [a, b], a), images, "exgra", 512)
        for a, b in ((options[0], options[1]), (options[2], options[1]))
    ]
    assert scores == pytest.approx([pairs[0][0], pairs[0][1], pairs[1][0]], abs=1e-5)
    assert all(score < 0 for score in scores)


def test_options_are_weighed_by_themselves_without_question_and_image(tmp_path: Path) -> None:
    from test_predict_model import make_engine

    engine = make_engine(tmp_path / "none")
    session = made_up_session(tmp_path / "run", make_data(tmp_path / "data"), engine)
    entry = evaluate(session, "likelihood")
    assert entry is not None and entry.answers.keys() == {"likelihood"}
    stored = read_predictions(session.path("multiple-choice/likelihood")).predictions
    asked = {each.id: each for each in session.records if each.meta.get("options")}
    assert {each.id for each in stored} == asked.keys()
    prior: dict[tuple[str, ...], list[float]] = {}
    for prediction in stored:
        whole, scores = asked[prediction.id], prediction.option_scores
        assert scores is not None
        assert scores["with_image"] == engine.option_scores(whole, session.images)
        blind = whole.model_copy(update={"image": None})
        assert scores["text_only"] == engine.option_scores(blind, session.images)
        assert scores["text_only"] != pytest.approx(scores["with_image"], abs=1e-4)
        assert scores["prior"] != pytest.approx(scores["text_only"], abs=1e-4)
        # The options alone decide the prior, whatever is asked about whichever image.
        options = choice_of(whole).options
        assert scores["prior"] == pytest.approx(prior.setdefault(options, scores["prior"]))
        neutral = [whole.turns[0].model_copy(update={"text": "N/A"}), *whole.turns[1:]]
        alone = blind.model_copy(update={"turns": neutral})
        assert scores["prior"] == engine.option_scores(alone, session.images)
        best = max(range(len(options)), key=scores["with_image"].__getitem__)
        assert prediction.text == options[best]
    assert len(asked) == 18 and len(prior) > 1
    with_image, text_only, priors = (
        {each.id: each.option_scores[kind] for each in stored if each.option_scores}
        for kind in ("with_image", "text_only", "prior")
    )
    choices = [choice_of(each) for each in asked.values()]
    for name, arguments in (
        ("likelihood", (with_image, choices)),
        ("likelihood_prior_subtracted", (with_image, choices, priors)),
        ("text_only_baseline", (text_only, choices)),
    ):
        expected = score_likelihoods(*arguments)["scores"]["accuracy"]["value"]
        assert entry.score(name, "accuracy").value == expected
    assert entry.score("guessing", "accuracy").value == guessing(choices)
    assert entry.details["calibration"]["num"] == 18
    assert entry.details["num_without_options"] == 12
