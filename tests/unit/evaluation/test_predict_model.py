"""A real (tiny) model behind the answers: batched equals one by one, and is much faster."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record
from exgra_med.digests import read_document
from exgra_med.evaluation.answers import read_predictions
from exgra_med.evaluation.engines import (
    Answer,
    CheckpointEngine,
    EngineOptions,
    answer_all,
    greedy_answers,
)
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import Generated, generate
from exgra_med.recipe.schema import Architecture

WORDS = "is there a mass in the left upper lobe of this lung or liver on axial slice".split()


def make_bundle(hidden_size: int = 32) -> Bundle:
    architecture = Architecture.model_validate(
        {
            "vision": {
                "hidden_size": 32, "intermediate_size": 64, "num_layers": 4, "num_heads": 2,
                "image_size": 28, "patch_size": 14,
            },
            "language": {
                "hidden_size": hidden_size, "intermediate_size": 2 * hidden_size, "num_layers": 2,
                "num_heads": 2, "max_positions": 512,
            },
            "tokenizer": {"vocabulary_size": 400},
        }
    )  # fmt: skip
    return build_model(architecture, [" ".join(WORDS), "yes no normal ###"], seed=1)


def make_engine(folder: Path, bundle: Bundle | None = None, **options: int) -> CheckpointEngine:
    """The engine of a checkpoint that is loaded already, in place of the one in the folder."""
    values: dict[str, Any] = {"max_length": 512, **options}
    engine = CheckpointEngine(EngineOptions(model=str(folder), **values))
    engine.__dict__["bundle"] = bundle or make_bundle()
    return engine


def make_records(number: int) -> list[Record]:
    """Questions of 1 to 80 words (about 200 tokens), every third without an image."""
    records = []
    for index in range(number):
        length = 1 + index * 79 // max(1, number - 1)
        question = " ".join(WORDS[(index + i) % len(WORDS)] for i in range(length))
        value = {
            "id": str(index),
            "turns": [{"role": "user", "text": question}, {"role": "assistant", "text": "yes"}],
        }
        if index % 3:
            value["image"] = f"{index % 5}.png"
        records.append(Record.model_validate(value))
    return records


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    for index in range(5):
        Image.effect_noise((40, 40), 30 + 20 * index).convert("RGB").save(tmp_path / f"{index}.png")
    return ImageFolder(tmp_path, 10_000)


def test_answers_are_stored_with_how_they_were_made(images: ImageFolder, tmp_path: Path) -> None:
    out = tmp_path / "run" / "predictions" / "a.jsonl"
    engine = make_engine(tmp_path / "none", batch_size=4, max_new_tokens=6)
    assert answer_all(engine, make_records(9), images, out, {"data": "d"}) == ""
    found = list(read_predictions(out).predictions)
    assert len(found) == 9
    assert {each.finish_reason for each in found} <= {"stop", "length"}
    assert all(each.num_tokens and each.num_tokens <= 6 for each in found)
    about = read_document(out.with_suffix(".about.json"))
    assert about == engine.facts | {"data": "d"}
    assert about["decoding"] == "greedy" and about["max_new_tokens"] == 6
    # They are all there, so no model is asked.
    engine.__dict__["bundle"] = None
    answer_all(engine, make_records(9), images, out, {"data": "d"})
    assert list(read_predictions(out).predictions) == found


@pytest.mark.slow
def test_200_answers_in_batches_are_those_of_one_by_one(
    images: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()
    records = make_records(200)
    written: list[list[int]] = []

    def recorded(*arguments: Any) -> list[Generated]:
        made = generate(*arguments)
        written.extend(each.token_ids for each in made)
        return made

    monkeypatch.setattr("exgra_med.model.generate.generate", recorded)

    def answers(batch_size: int) -> list[Answer]:
        return [
            each
            for start in range(0, 200, batch_size)
            for each in greedy_answers(
                bundle, records[start : start + batch_size], images, "exgra", 64
            )
        ]

    torch.set_num_threads(1)
    begin = time.perf_counter()
    alone, ids_alone = answers(1), written.copy()
    alone_seconds = time.perf_counter() - begin
    written.clear()
    begin = time.perf_counter()
    together = answers(50)
    batch_seconds = time.perf_counter() - begin
    assert len(ids_alone) == 200 and written == ids_alone
    assert together == alone
    assert len({each.text for each in alone}) > 20
    print(f"one by one {alone_seconds:.1f} s, in batches {batch_seconds:.1f} s")
