"""Test questions that training has seen, and the score on those it has not.

By names and texts only; `exgra-med data audit` also looks for images that look alike.
"""

from collections.abc import Sequence
from typing import Any

from exgra_med.evaluation.normalise import words
from exgra_med.evaluation.predictions import Prediction
from exgra_med.evaluation.questions import Question
from exgra_med.evaluation.score import score_vqa


def find_leaks(train: Sequence[Question], test: Sequence[Question]) -> dict[str, list[bool]]:
    """For each test question: is its image in training, its text, or both together.

    Returns:
        `image`, `question_text`, `image_and_question`, each one value a test question.
    """
    images = {image for question in train for image in question.images}
    texts = {words(question.text) for question in train}
    pairs = {(image, words(question.text)) for question in train for image in question.images}
    return {
        "image": [any(image in images for image in each.images) for each in test],
        "question_text": [words(each.text) in texts for each in test],
        "image_and_question": [
            any((image, words(each.text)) in pairs for image in each.images) for each in test
        ],
    }


def score_clean(
    predictions: Sequence[Prediction],
    train: Sequence[Question],
    test: Sequence[Question],
    num_bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Counts of leaks, and the strict score on questions whose image training has not seen.

    Returns:
        `counts` by kind of leak, `num_questions`, and `clean`: `average, recall, closed_accuracy`
        in percent with `intervals` and counts; None where no question is clean.
    """
    leaks = find_leaks(train, test)
    result: dict[str, Any] = {
        "num_questions": len(test),
        "counts": {name: sum(found) for name, found in leaks.items()},
        "clean": None,
    }
    clean = [each for each, leaked in zip(test, leaks["image"], strict=True) if not leaked]
    names = {each.id for each in clean}
    answered = [each for each in predictions if each.id in names]
    if answered:
        score = score_vqa(
            answered,
            clean,
            num_bootstrap_samples=num_bootstrap_samples,
            seed=seed,
            groups=False,
        )
        kept = ("average", "recall", "closed_accuracy")
        result["clean"] = {name: score["metrics"][name] for name in kept} | {
            "intervals": {name: score["intervals"][name] for name in kept},
            "num_open": score["num_open"],
            "num_closed": score["num_closed"],
            "num_images": score["num_images"],
        }
    return result
