"""The mirror probe by hand."""

from pathlib import Path

import numpy as np
from PIL import Image

from exgra_med.data.records import Record
from exgra_med.evaluation.answers import Prediction
from exgra_med.evaluation.tasks.reliance import MirroredImages, mirror_probe, side_of, sided_records


def record(name: str, answer: str, image: str | None = "a.png") -> Record:
    turns = [{"role": "user", "text": "Which side?"}, {"role": "assistant", "text": answer}]
    return Record.model_validate({"id": name, "turns": turns} | ({"image": image} if image else {}))


def test_one_side_or_none() -> None:
    assert [side_of(text) for text in ("Left lung", "right", "both", "left or right", "左肺")] == [
        "left", "right", None, None, "left",
    ]  # fmt: skip


def test_only_sided_questions_about_an_image_are_asked() -> None:
    records = [record("1", "left"), record("2", "liver"), record("3", "right", image=None)]
    assert [each.id for each in sided_records(records)] == ["1"]


def test_answers_that_follow_stay_or_name_no_side() -> None:
    records = [record(str(i), "left") for i in range(4)]
    seeing = [Prediction(str(i), "left") for i in range(4)]
    mirrored = [Prediction("0", "right"), Prediction("1", "left lung"), Prediction("2", "lung")]
    result = mirror_probe(seeing, mirrored, records)
    assert (result["num"], result["follows"], result["stays"], result["no_side"]) == (4, 25, 25, 50)
    assert result["interval"][0] < 25 < result["interval"][1]
    assert mirror_probe(seeing, mirrored, [])["follows"] is None


def test_a_mirrored_image_is_mirrored(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(5, 12)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = np.array(MirroredImages(tmp_path, 1000).open("a.png"))[:, :, 0]
    assert np.array_equal(found, pixels[:, ::-1])
