"""A small made-up data set and a run on it, as a training run would leave it."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from exgra_med.data.json_lines import write_records
from exgra_med.data.prepared import file_sha256, open_prepared
from exgra_med.data.record import Record
from exgra_med.evaluation.blind import visual_reliance
from exgra_med.evaluation.mirror import mirror_probe, sided_records
from exgra_med.evaluation.predict import facts_path
from exgra_med.evaluation.predictions import Prediction, PredictionWriter, read_predictions
from exgra_med.evaluation.results import update_results
from exgra_med.evaluation.run_folder import predictions_path
from exgra_med.evaluation.vqa import score_run

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
                "meta": {"organ": organ},
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


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored run; one answer is hostile, one is missing."""
    root = tmp_path_factory.mktemp("evaluation")
    data = make_data(root / "data")
    run = root / "runs" / "demo"
    run.mkdir(parents=True)
    recipe = {
        "name": "demo",
        "description": "A toy model, trained for minutes on made-up images.",
        "seed": 0,
        "model": {"architecture": {"connector": "dci"}},
        "data": {"folder": str(data)},
        "stages": {
            "connector": {"learn": ["connector"], "learning_rate": 1e-3, "batch_size": 8},
            "aligned": {
                "learn": ["connector", "language"],
                "learning_rate": 1e-3,
                "batch_size": 8,
                "alignment": {},
            },
        },
        "evaluation": {"split": "test", "num_report_images": 12},
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    record = {"code": {"version": "0.1.0", "commit": "0123456789abcdef"}, "seeds": {"run": 0}}
    (run / "record.json").write_text(json.dumps(record), encoding="utf-8")
    write_log(run / "log.jsonl")
    prepared = open_prepared(data)
    records = prepared.records("test")
    numbers = random.Random(1)
    answers = []
    for index, record_ in enumerate(records):
        text = record_.answer if numbers.random() < 0.45 else numbers.choice(
            ["yes", "no", "right lung", "normal", "the left side of the chest", "I cannot tell"]
        )  # fmt: skip
        answers.append(Prediction(record_.id, HOSTILE if index == 3 else text, "stop"))
    out = predictions_path(run, DATASET)
    with PredictionWriter(out) as writer:
        writer.append(answers[:-1])
    facts = {"checkpoint": "sha256 4f1c", "template": "exgra", "decoding": "greedy"}
    facts_path(out).write_text(json.dumps(facts), encoding="utf-8")
    score_run(
        run,
        DATASET,
        records,
        prepared.records("train"),
        num_bootstrap_samples=300,
        data_fingerprint=prepared.fingerprint,
    )
    seeing = read_predictions(out).predictions
    blind = {"blank": seeing[:20], "shuffled": seeing}
    reliance = visual_reliance(seeing, blind, records, num_bootstrap_samples=100)
    sided = sided_records(records)
    reliance["mirrored"] = mirror_probe(seeing, seeing, sided)
    choices = {
        "generation_strict": {
            "accuracy": 40.0,
            "interval": [30.0, 50.0],
            "macro_accuracy": 41.0,
            "balanced_accuracy": 39.0,
            "unreadable": 7.5,
            "guessing": 37.5,
            "num_questions": 93,
        }
    }
    update_results(run, {"visual_reliance": reliance, "multiple_choice": {"omni": choices}})
    alignment = {
        "matching_accuracy": {"start": 0.12, "end": 0.93},
        "loss": {"start": 9.1, "end": 0.7},
    }
    update_results(run, {"alignment": alignment})
    return run
