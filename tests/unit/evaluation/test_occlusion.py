"""Occlusion maps of scorers whose truth is known, and of a tiny model."""

import math
from collections.abc import Iterable

import pytest
from PIL import Image

from exgra_med.data.records import Turn
from exgra_med.errors import DataError
from exgra_med.evaluation.occlusion import Occlusion, Progress, answer_scorer, occlude
from exgra_med.model.build import build_model
from exgra_med.recipe.load import load_recipe

SIZE = (43, 29)
SEEN = (30, 10)
"""The pixel that a scorer depends on: column 5 and row 2 of 8."""


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.new("RGB", size, "white")


def looks_at(pixel: tuple[int, int], good: float, bad: float) -> object:
    """How a model would score that looks at one pixel alone."""

    def score(pictures: Iterable[Image.Image]) -> list[float]:
        white = (255, 255, 255)
        return [math.log(good if each.getpixel(pixel) == white else bad) for each in pictures]

    return score


def last(steps: Iterable[Progress]) -> Occlusion:
    found = [step.found for step in steps][-1]
    assert found is not None
    return found


def test_only_the_cell_that_matters_is_lit() -> None:
    found = last(occlude(picture(), looks_at(SEEN, 0.8, 0.3)))
    assert found.whole == pytest.approx(80) and not found.is_flat
    assert found.strongest == (2, 5) and found.largest == pytest.approx(50)
    lit = {
        (row, column): round(drop, 6)
        for row, drops in enumerate(found.drops)
        for column, drop in enumerate(drops)
        if drop
    }
    assert lit == {(2, 5): 50.0} and (len(found.drops), len(found.drops[0])) == (8, 8)


def test_a_cell_that_speaks_against_the_answer_is_below_zero() -> None:
    found = last(occlude(picture(), looks_at(SEEN, 0.3, 0.8)))
    assert found.drops[2][5] == pytest.approx(-50) and found.largest == pytest.approx(50)
    assert not found.is_flat


def test_a_model_that_never_looks_has_a_flat_map() -> None:
    found = last(occlude(picture(), lambda pictures: [math.log(0.9) for _ in pictures]))
    assert found.is_flat and found.largest == 0
    nearly = last(occlude(picture(), looks_at(SEEN, 0.9, 0.895)))
    assert nearly.is_flat and nearly.largest == pytest.approx(0.5)


def test_the_cost_is_bounded_and_every_pixel_is_covered_once() -> None:
    asked: list[int] = []
    covered: dict[tuple[int, int], int] = {}

    def score(pictures: Iterable[Image.Image]) -> list[float]:
        seen = list(pictures)
        asked.append(len(seen))
        for each in seen:
            for x in range(SIZE[0]):
                for y in range(SIZE[1]):
                    if each.getpixel((x, y)) != (255, 255, 255):
                        covered[x, y] = covered.get((x, y), 0) + 1
        return [-1.0] * len(seen)

    steps = list(occlude(picture(), score, grids=(8,), batch=10))
    assert asked == [1, 10, 10, 10, 10, 10, 10, 4]
    assert [step.num_done for step in steps] == [1, 11, 21, 31, 41, 51, 61, 65]
    assert {step.num_pictures for step in steps} == {65}
    assert set(covered.values()) == {1} and len(covered) == SIZE[0] * SIZE[1]


def test_a_coarse_map_comes_first() -> None:
    found = [step.found for step in occlude(picture(), looks_at(SEEN, 0.8, 0.3))]
    sizes = [None if each is None else len(each.covered) for each in found]
    assert sizes == [None, None, 4, *[4] * 7, 8]


def test_a_picture_smaller_than_the_grid_has_a_cell_a_pixel() -> None:
    found = last(occlude(picture((3, 1)), looks_at((1, 0), 0.5, 0.1)))
    assert [[round(each) for each in row] for row in found.drops] == [[0, 40, 0]]


def test_no_likelihood_is_a_sentence() -> None:
    with pytest.raises(DataError, match="no finite likelihood"):
        list(occlude(picture(), lambda pictures: [math.nan for _ in pictures]))


def test_a_model_scores_its_last_answer_alone_and_the_same_each_time() -> None:
    architecture = load_recipe("debug/tiny", ()).recipe.model.architecture
    assert architecture is not None
    bundle = build_model(architecture, ["What is shown? The left lung."] * 4, 0)
    turns = [
        Turn(role="user", text="What is shown?"),
        Turn(role="assistant", text="The lung."),
        Turn(role="user", text="Which one?"),
    ]
    one, two = Image.effect_noise((20, 20), 90), Image.new("L", (20, 20))
    pictures = [each.convert("RGB") for each in (one, two)]

    def scores(answer: str, told: list[Turn]) -> list[float]:
        return list(answer_scorer(bundle, pictures[:1], told, answer, "exgra")(pictures))

    assert scores("left", turns) == scores("left", turns)
    assert len(set(scores("left", turns))) == 2 and scores("left", turns) != scores("right", turns)
    # By hand: what the logits of one forward pass say of the tokens of the last answer.
    import torch

    from exgra_med.data.records import Record
    from exgra_med.recipe.schema import TextSettings

    def mean(first: int) -> float:
        record = Record(id="a", image="0", turns=[*turns, Turn(role="assistant", text="left")])
        text = TextSettings(template="exgra", max_length=bundle.context_length)
        told = bundle.conversation(record, pictures[:1], text)
        with torch.inference_mode():
            out = bundle.model(input_ids=torch.tensor([told.input_ids]), pixel_values=told.pixels)
        likely = out.logits[0].float().log_softmax(-1)
        learnt = [n for n, label in enumerate(told.labels) if label != -100][first:]
        own = [likely[n - 1, told.labels[n]].item() for n in learnt]
        return sum(own) / len(own)

    end = len(bundle.tokenizer("left\n###", add_special_tokens=False)["input_ids"])
    assert scores("left", turns)[0] == pytest.approx(mean(-end), abs=1e-4)
    assert scores("left", turns)[0] != pytest.approx(mean(0), abs=1e-4)
