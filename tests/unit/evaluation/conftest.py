"""A small made-up data set and a run on it, as a training run would leave it."""

import json
import random
from pathlib import Path

import pytest
import yaml
from exgra_med.evaluation.vqa import score_run
from made_up_run import DATASET, HOSTILE, make_data, write_log

from exgra_med.data.prepared import open_prepared
from exgra_med.evaluation.answers import Prediction, PredictionWriter, read_predictions
from exgra_med.evaluation.engines import facts_path
from exgra_med.evaluation.results import update_results
from exgra_med.evaluation.session import predictions_path
from exgra_med.evaluation.tasks.multiple_choice import calibration
from exgra_med.evaluation.tasks.reliance import mirror_probe, sided_records, visual_reliance


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
            "connector": {"trainable": ["connector"], "learning_rate": 1e-3, "batch_size": 8},
            "aligned": {
                "trainable": ["connector", "language"],
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
        },
        "calibration": calibration([0.9, 0.8, 0.6, 0.5], [True, True, False, True]),
        "num_without_options": 7,
    }
    update_results(run, {"visual_reliance": reliance, "multiple_choice": {"omni": choices}})
    alignment = {
        "matching_accuracy": {"start": 0.12, "end": 0.93},
        "loss": {"start": 9.1, "end": 0.7},
    }
    update_results(run, {"alignment": alignment})
    return run
