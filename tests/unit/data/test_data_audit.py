from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exgra_med.data.derive import open_answers
from exgra_med.data.inspect.audit import audit, word_overlap
from exgra_med.data.inspect.check import check_prepared
from exgra_med.data.inspect.statistics import statistics
from exgra_med.data.lookalikes import near_pairs, perceptual_hash
from exgra_med.data.prepare import prepare
from exgra_med.data.records import Record, Turn
from exgra_med.evaluation.answers import question_of


def make(name: str, image: str, question: str, answer: str, **meta: str) -> Record:
    turns = [Turn(role="user", text=question), Turn(role="assistant", text=answer)]
    return Record(id=name, image=image, turns=turns, answer_type="OPEN", meta=meta)


def scene(seed: int) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6), dtype=np.uint8)
    return Image.fromarray(coarse).resize((120, 100), Image.Resampling.BICUBIC)


def test_perceptual_hash_survives_scaling_and_compression(tmp_path: Path) -> None:
    scenes = [scene(seed) for seed in range(40)]
    hashes = [perceptual_hash(image) for image in scenes]
    copies = []
    for image in scenes:
        image.resize((77, 64)).save(tmp_path / "x.jpg", quality=40)
        copies.append(perceptual_hash(Image.open(tmp_path / "x.jpg")))
    assert near_pairs(copies, hashes) == [(n, n) for n in range(40)]
    assert near_pairs([], hashes) == near_pairs(hashes, []) == []


def test_each_kind_of_overlap_is_counted(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c", "new")):
        scene(number).save(tmp_path / f"{name}.png")
    (tmp_path / "a-copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    scene(1).resize((90, 80)).save(tmp_path / "b-small.jpg", quality=60)
    train = [
        make("1", "a.png", "Where is the mass?", "left lobe", phrase_type="frame"),
        make("2", "b.png", "What is it?", "a mass"),
        make("3", "c.png", "Which plane is it?", "axial"),
    ]
    test = [
        make("4", "c.png", "Which  PLANE is it?", "axial"),
        make("5", "c.png", "Which plane is this?", "axial"),
        make("6", "a-copy.png", "Which plane is it?", "coronal"),
        make("7", "b-small.jpg", "Anything?", "no"),
        make("8", "new.png", "Anything else?", "no"),
        make("9", "a.png", "Where is the mass located?", "left lobe"),
    ]
    found = audit(train, test, tmp_path)
    assert found.test_images == 5
    assert found.test_images_in_train == 3
    assert [(each.picture, each.twin) for each in found.near_pairs] == [("b-small.jpg", "b.png")]
    assert found.near_duplicate_images == 1
    assert found.duplicate_questions == 2
    assert found.duplicate_image_questions == found.duplicate_records == 1
    assert found.rephrased_questions == 3
    assert found.rephrased_by_phrase_type == {"frame": 1, "none": 2}
    assert found.open_answers_in_train == 3
    by_name = audit(train, test)
    assert by_name.test_images_in_train == 2 and by_name.near_duplicate_images is None


def test_overlap_of_words() -> None:
    assert word_overlap("Is it?", "is IT") == 1.0
    assert word_overlap("a b c", "b c d") == 0.5
    assert word_overlap("", "") == 0.0


def test_kinds_of_phrases_are_named_where_there_are_some() -> None:
    train = [make("1", "a.png", "Where is the mass?", "left")]
    (line,) = [each for each in audit(train, train).lines() if "in other words" in each]
    assert line == "1 test records are in train in other words"
    train.append(make("2", "a.png", "Where is the mass?", "left", phrase_type="frame"))
    (line,) = [each for each in audit(train, train).lines() if "in other words" in each]
    assert line == "2 test records are in train in other words (2 frame, 2 none)"


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant, images, questions, pairs, frames",
    [("official", 202, 79, 1, 0), ("med-vqa", 203, 86, 14, 142)],
)
def test_the_published_leaks_of_vqa_rad(
    shared: Path, tmp_path: Path, variant: str, images: int, questions: int, pairs: int, frames: int
) -> None:
    prepared = prepare("vqa-rad", shared / "data/vqa_rad", tmp_path / "out", variant=variant)
    train, test = prepared.records("train"), prepared.records("test")
    found = audit(train, test, prepared.path / "images" if variant == "official" else None)
    assert (found.test_images_in_train, found.test_images) == (images, 203)
    # The published training set is train and validation together.
    whole = audit(train + prepared.records("validation"), test)
    assert whole.test_images_in_train == images
    assert whole.duplicate_questions == questions
    assert whole.duplicate_image_questions == pairs
    assert whole.rephrased_by_phrase_type.get("frame", 0) == frames
    if variant == "med-vqa":
        assert whole.open_answers_in_train == 138


@pytest.mark.slow
def test_the_image_disjoint_variant_has_no_leak(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/vqa_rad"
    prepared = prepare("vqa-rad", source, tmp_path / "out", variant="image-disjoint")
    train = prepared.records("train") + prepared.records("validation")
    found = audit(train, prepared.records("test"))
    assert found.test_images_in_train == found.duplicate_image_questions == 0


def test_types_that_are_not_stated_are_those_of_check_and_evaluate(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    scene(0).save(folder / "images/a.png")
    rows = "image,question,answer\na.png,Lung?,Yes.\na.png,Where?,left\na.png,Side?,是。\n"
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text(rows, encoding="utf-8")
    prepared = prepare("custom", folder, tmp_path / "out")
    train, test = prepared.records("train"), prepared.records("test")
    assert not any(record.answer_type for record in test)

    found = audit(train, test)
    asked = [question_of(record) for record in test]
    report = check_prepared(prepared)

    assert [question.answer_type for question in asked] == ["CLOSED", "OPEN", "CLOSED"]
    assert report.answer_types["test"] == {"CLOSED": 2, "OPEN": 1}
    assert (found.open_answers_in_train, found.open_answers, found.guessed_types) == (1, 1, 3)
    assert "1 of 1 open test answers are answers in train (3 state no" in found.lines()[-1]
    assert any(notice.startswith("6 records state no") for notice in report.notices)
    assert statistics(prepared)["test"]["answer_types"] == {"CLOSED": 2, "OPEN": 1}
    assert open_answers(train) == ["left"]
