"""Leaks are counted, and what is clean is scored apart."""

from exgra_med.evaluation.answers import Prediction, Question
from exgra_med.evaluation.report.page import limits
from exgra_med.evaluation.results import Entry
from exgra_med.evaluation.tasks.vqa import TASK, find_leaks, score_clean

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
    assert result["clean"]["scores"]["average"]["value"] == 100.0
    assert (result["clean"]["num_open"], result["clean"]["num_closed"]) == (1, 1)
    assert score_clean(answers, TRAIN, TEST[:2], num_bootstrap_samples=0)["clean"] is None


def test_words_speak_of_the_split_beside_the_test_and_not_of_what_was_learnt() -> None:
    details = {
        "baselines": {"same_image_nearest": {"scores": {}}},
        "leaks": {
            "counts": {"image": 3, "question_text": 2, "image_and_question": 1},
            "num_questions": 5,
            "clean": None,
        },
    }
    entry = Entry(
        dataset="d", split="test", task="vqa", engine={}, scores={"strict": {}}, details=details
    )
    (beside,) = TASK.further(entry)
    (counted, _), said = beside.notes, " ".join(limits([entry], is_toy=False))
    assert "3 are about an image of the data set's own training split" in counted
    assert "What this model was trained on is another matter" in counted
    assert "for a model that learned from it" in said
    assert "in training" not in counted and "occur in training" not in said
