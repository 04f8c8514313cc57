"""A small made-up data set, training log and engine, for tests that need a run."""

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, file_sha256, open_prepared, write_records
from exgra_med.evaluation.engines import Answer, Engine
from exgra_med.evaluation.session import Session
from exgra_med.recipe.run_folder import AnsweringRecipe, Run
from exgra_med.recipe.schema import DataSettings, EvaluationSettings, ModelSettings
from exgra_med.terminal import Silent

DATASET = "made-up"
ORGANS = ("CHEST", "HEAD")
ASKED = (
    ("Is the {organ} normal?", ("yes", "no"), "CLOSED"),
    ("Is there a mass?", ("no", "yes"), "CLOSED"),
    ("Is the lesion on the left or right?", ("left", "right"), "CLOSED"),
    ("Which organ is shown?", ("{organ}", "{organ}"), "OPEN"),
    ("Where is the mass?", ("left upper lobe", "right side of the {organ}"), "OPEN"),
)
HOSTILE = "<script>alert(1)</script> [x](http://evil.example/) ![y](http://evil.example/y.png)"


def write_log(path: Path) -> None:
    numbers = random.Random(0)
    lines: list[dict[str, object]] = []
    for stage, steps, aligned in (("connector", 60, False), ("aligned", 180, True)):
        lines.append({"kind": "stage", "stage": stage, "event": "start"})
        for step in range(1, steps + 1):
            loss = 1.2 + 4 * math.exp(-step / 30) + numbers.gauss(0, 0.15)
            line: dict[str, object] = {
                "kind": "train",
                "stage": stage,
                "step": step,
                "language_loss": loss,
                "learning_rate": 1e-3,
            }
            held: dict[str, object] = {"kind": "held_out", "stage": stage, "step": step}
            held["language_loss"] = loss + 0.2
            if aligned:
                accuracy = 1 - 0.9 * math.exp(-step / 50)
                line["alignment_loss"] = 10 * (1 - accuracy) + abs(numbers.gauss(0, 0.4))
                line["matching_accuracy"] = min(
                    1.0, max(0.0, accuracy + numbers.gauss(-0.08, 0.08))
                )
                held["alignment_loss"] = 10 * (1 - accuracy)
                held["matching_accuracy"] = accuracy
                held["chance"] = 0.125
            lines.append(line)
            if step == 1 or step % 30 == 0:
                lines.append(held)
        lines.append({"kind": "stage", "stage": stage, "event": "end"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def make_records(split: str, first_image: int, num_images: int) -> list[Record]:
    records = []
    for image in range(first_image, first_image + num_images):
        organ = ORGANS[image % 2]
        for number, (question, answers, kind) in enumerate(ASKED):
            answer = answers[(image // 2 + number) % 2].format(organ=organ.lower())
            turns = [
                {"role": "user", "text": question.format(organ=organ.lower())},
                {"role": "assistant", "text": answer},
            ]
            value = {
                "id": f"{DATASET}/{split}/{image}-{number}",
                "image": f"{image}.png",
                "turns": turns,
                "answer_type": kind,
                "meta": {"organ": organ} | ({"options": list(answers)} if kind == "CLOSED" else {}),
            }
            records.append(Record.model_validate(value))
    return records


def make_data(folder: Path) -> Path:
    """A prepared folder: 12 images, the last 6 of them in test."""
    (folder / "images").mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for image in range(12):
        pixels = numbers.integers(0, 255, (6, 8), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((80, 60))
        picture.save(folder / "images" / f"{image}.png")
    splits = {"train": make_records("train", 0, 6), "test": make_records("test", 6, 6)}
    for split, records in splits.items():
        write_records(folder / f"{split}.jsonl", records)
    manifest = {
        "format": 1,
        "dataset": DATASET,
        "counts": {split: len(records) for split, records in splits.items()},
        "files": {f"{split}.jsonl": file_sha256(folder / f"{split}.jsonl") for split in splits},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


class SayingEngine:
    """An engine that answers what a function says; None is an answer that cannot be had."""

    def __init__(self, say: Callable[[Record], str | None], **facts: Any) -> None:
        self.say, self.batch_size = say, 6
        self.facts: dict[str, Any] = {"name": "saying", "template": "exgra"} | facts
        self.asked: list[list[Record]] = []

    def begin(self, records: Sequence[Record]) -> None:
        """See `Engine`."""

    def answer(self, records: Sequence[Record], images: ImageFolder) -> Sequence[Answer | None]:
        """See `Engine`."""
        self.asked.append(list(records))
        texts = [self.say(record) for record in records]
        return [None if text is None else Answer(text, 1, "stop") for text in texts]

    def end(self) -> str:
        """See `Engine`."""
        return ""


def made_up_session(
    run: Path, data: Path | str, engine: Engine, split: str = "test", num_bootstrap_samples: int = 1
) -> Session:
    """An evaluation into any folder, whatever recipe lies in it."""
    prepared = open_prepared(str(data))
    recipe = AnsweringRecipe(
        name="made-up",
        model=ModelSettings(start="made-up"),
        data=DataSettings(folder=str(data)),
        evaluation=EvaluationSettings(num_bootstrap_samples=num_bootstrap_samples),
    )
    return Session(
        run=Run(run, recipe),
        engine=engine,
        dataset=prepared.manifest["dataset"],
        split=split,
        records=prepared.records(split),
        images=prepared.image_folder(recipe.data.max_pixels),
        fingerprint=prepared.fingerprint,
        data_folder=str(data),
        reporter=Silent(),
        prepared=prepared,
    )
