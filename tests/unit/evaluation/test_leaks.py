"""Leaks are counted, and what is clean is scored apart."""

from exgra_med.evaluation.leaks import find_leaks, score_clean
from exgra_med.evaluation.predictions import Prediction
from exgra_med.evaluation.questions import Question

TRAIN = [Question("1", "Is it large?", "yes", "CLOSED", ("a.jpg",))]
TEST = [
    Question("2", "is it LARGE", "no", "CLOSED", ("a.jpg",)),
    Question("3", "Is it small?", "no", "CLOSED", ("a.jpg",)),
    Question("4", "Is it large?", "no", "CLOSED", ("b.jpg",)),
    Question("5", "Where?", "left", "OPEN", ("b.jpg",)),
]


def test_each_kind_of_leak() -> None:
    assert find_leaks(TRAIN, TEST) == {
        "image": [True, True, False, False],
        "question_text": [True, False, True, False],
        "image_and_question": [True, False, False, False],
    }


def test_the_clean_score_is_over_new_images() -> None:
    answers = [Prediction(each.id, "no" if each.id == "4" else "left") for each in TEST]
    result = score_clean(answers, TRAIN, TEST, num_bootstrap_samples=0)
    assert result["counts"] == {"image": 2, "question_text": 2, "image_and_question": 1}
    assert result["clean"]["average"] == 100.0
    assert (result["clean"]["num_open"], result["clean"]["num_closed"]) == (1, 1)
    assert score_clean(answers, TRAIN, TEST[:2], num_bootstrap_samples=0)["clean"] is None
