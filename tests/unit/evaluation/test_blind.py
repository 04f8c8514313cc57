"""Blind checks change the image and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.errors import DataError
from exgra_med.evaluation.answers import Prediction
from exgra_med.evaluation.tasks.reliance import blinded, shuffled_records, visual_reliance


def record(number: int, image: str | None = None) -> Record:
    turns = [{"role": "user", "text": "Is it?"}, {"role": "assistant", "text": "yes"}]
    value = {"id": str(number), "turns": turns, "answer_type": "CLOSED"}
    return Record.model_validate(value | ({"image": image} if image else {}))


RECORDS = [record(i, f"{i % 5}.png") for i in range(20)]


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    for index in range(5):
        Image.effect_noise((20, 10 + index), 60).convert("RGB").save(tmp_path / f"{index}.png")
    return ImageFolder(tmp_path, 10_000)


def test_blank_and_noise_keep_the_size_and_forget_the_rest(images: ImageFolder) -> None:
    _, blank = blinded("blank", RECORDS, images)
    _, noise = blinded("noise", RECORDS, images, seed=1)
    _, again = blinded("noise", RECORDS, images, seed=1)
    assert blank.open("3.png").size == noise.open("3.png").size == (20, 13)
    assert len(blank.open("3.png").getcolors() or ()) == 1
    assert np.array_equal(noise.open("3.png"), again.open("3.png"))
    assert not np.array_equal(
        np.array(noise.open("1.png"))[:10], np.array(noise.open("2.png"))[:10]
    )
    with pytest.raises(DataError):
        blank.open("../3.png")


def test_exchanged_images_are_never_the_right_ones() -> None:
    for seed in range(20):
        exchanged = shuffled_records(RECORDS, seed)
        pairs = {(a.images[0], b.images[0]) for a, b in zip(RECORDS, exchanged, strict=True)}
        assert len(pairs) == 5
        assert all(a != b for a, b in pairs)
        assert {b for _, b in pairs} == {f"{i}.png" for i in range(5)}
    assert shuffled_records([record(0)])[0].images == []
    with pytest.raises(DataError, match="only one image"):
        shuffled_records([record(0, "a.png"), record(1, "a.png")])


def test_what_is_lost_is_counted_question_by_question() -> None:
    seeing = [Prediction(each.id, "yes") for each in RECORDS]
    half = [Prediction(each.id, "yes" if int(each.id) % 2 else "no") for each in RECORDS]
    lost = visual_reliance(seeing, {"blank": half, "noise": seeing}, RECORDS)
    values = {
        kind: {name: score["value"] for name, score in scores.items()}
        for kind, scores in lost.items()
    }
    assert values["blank"]["closed_accuracy"] == 50.0
    assert values["blank"]["changed_answer"] == 50.0
    assert values["blank"]["average"] is None
    assert values["noise"]["closed_accuracy"] == 0.0
    assert values["noise"]["changed_answer"] == 0.0
    low, high = lost["blank"]["closed_accuracy"]["interval"]
    assert low <= 50 <= high and lost["blank"]["closed_accuracy"]["count"] == 20
    # Of 5 images none has another difference: the exact binomial says how many there may be.
    others = 100 * binomtest(0, 5).proportion_ci(0.95, method="exact").high
    assert lost["noise"]["closed_accuracy"]["interval"] == pytest.approx([-others, others])
    few = visual_reliance(seeing, {"blank": half[:7]}, RECORDS)["blank"]
    assert few["closed_accuracy"]["count"] == few["changed_answer"]["count"] == 7
    assert few["closed_accuracy"]["value"] == pytest.approx(100 * 4 / 7)


def test_a_changed_answer_says_something_else() -> None:
    """Other capitals or a full stop are no change, and a side that gave no answer says nothing."""
    seeing = [Prediction(each.id, "Yes.") for each in RECORDS]
    texts = ["yes", "The answer is yes", "no", "NO"]
    other = [Prediction(each.id, texts[int(each.id) % 4]) for each in RECORDS[:-4]]
    changed = visual_reliance(seeing, {"blank": other}, RECORDS)["blank"]["changed_answer"]
    assert (changed["value"], changed["count"]) == (50.0, 16)
    low, high = changed["interval"]
    assert 0 < low < 50 < high < 100
