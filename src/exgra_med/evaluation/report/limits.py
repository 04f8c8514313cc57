"""What a report concludes in words, and what it does not show. Every run gets its own list."""

from typing import Any

from exgra_med.evaluation.floors import FLOOR_LABELS
from exgra_med.evaluation.statistics import smallest_difference


def verdict(results: dict[str, Any]) -> str:
    """The first sentence: the score, and whether it can be told apart from answering blindly."""
    strict = (results.get("vqa") or {}).get("strict") or {}
    average = strict.get("average")
    if average is None:
        return "This run has not been scored on questions yet."
    sentence = f"The strict average is {average:.1f} %."
    floor = ((results.get("floors") or {}).get("text_nearest") or {}).get("strict") or {}
    difference = ((results.get("floors") or {}).get("text_nearest") or {}).get("model_minus_floor")
    if floor.get("average") is None:
        return sentence
    blind = f"{floor['average']:.1f} % of a lookup that never sees an image"
    bounds = ((difference or {}).get("intervals") or {}).get("average")
    if bounds is None:
        return f"{sentence} It stands beside the {blind}."
    if bounds[0] > 0:
        return f"{sentence} It is above the {blind}, by more than chance on these questions."
    if bounds[1] < 0:
        return f"{sentence} It is below the {blind}, by more than chance on these questions."
    return f"{sentence} It cannot be told apart from the {blind}."


def limits(results: dict[str, Any], is_toy: bool) -> list[str]:
    """Sentences of the section "what this does not show"."""
    vqa = results.get("vqa") or {}
    strict = vqa.get("strict") or {}
    sentences = []
    if is_toy:
        sentences.append(
            "The model is a toy: it was built from sizes in the recipe with random weights and "
            "started from no pretrained checkpoint. Its scores show that the path works, and say "
            "nothing about ExGra-Med at full size."
        )
    sentences += _about_the_numbers(strict)
    floors = results.get("floors") or {}
    if "same_image_nearest" in floors:
        sentences.append(
            "Images of the test questions also occur in the data set's own training split, so for "
            "a model that learned from it the score does not show how it does on new patients; the "
            "floor "
            f"“{FLOOR_LABELS['same_image_nearest']}” is what that alone is worth."
        )
    if not floors and strict:
        sentences.append("No floor was computed, so the score lacks its most useful comparison.")
    if strict and not results.get("visual_reliance"):
        sentences.append(
            "Whether the model looks at the image is not shown: the same questions with blank, "
            "noise or shuffled images were not asked."
        )
    sentences += [
        "One run with one seed: how much another seed would change the score is not in the "
        "intervals, which cover the choice of images only.",
        "The legacy score repeats published rules, defects included; compare it only with numbers "
        "made by the same rules, the same split and the same denominators.",
        "It is no clinical evidence: short answers about teaching-file images do not show that "
        "a model is safe or useful for any patient.",
    ]
    return sentences


def _about_the_numbers(strict: dict[str, Any]) -> list[str]:
    bounds = (strict.get("intervals") or {}).get("average")
    if not bounds:
        return []
    half = (bounds[1] - bounds[0]) / 2
    if half == 0:
        return [
            "All images score the same, so the interval has no width; that says nothing about how "
            "far another run may be."
        ]
    # Two independent runs: their difference has the error of both.
    visible = smallest_difference(half / 1.96 * 2**0.5)
    return [
        f"With {strict.get('num_open')} open and {strict.get('num_closed')} closed questions about "
        f"{strict.get('num_images')} images, two separate models must differ by about "
        f"{visible:.0f} points of the average before this test would find it four times in five; "
        "comparing them question by question (exgra-med compare) can see less."
    ]
