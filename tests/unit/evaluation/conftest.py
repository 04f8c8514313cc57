"""A small made-up data set and a run on it, as a training run would leave it."""

import random
from pathlib import Path

import pytest
import yaml
from made_up_run import HOSTILE, SayingEngine, made_up_session, make_data, write_log

from exgra_med.data.records import open_prepared
from exgra_med.digests import write_document
from exgra_med.evaluation.answers import read_predictions
from exgra_med.evaluation.results import put_result
from exgra_med.evaluation.tasks import vqa
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
    write_document(run / "record.json", record)
    write_log(run / "log.jsonl")
    records = open_prepared(data).records("test")
    numbers = random.Random(1)
    texts: dict[str, str | None] = {}
    for index, each in enumerate(records):
        text = each.answer if numbers.random() < 0.45 else numbers.choice(
            ["yes", "no", "right lung", "normal", "the left side of the chest", "I cannot tell"]
        )  # fmt: skip
        texts[each.id] = HOSTILE if index == 3 else text
    texts[records[-1].id] = None
    engine = SayingEngine(
        lambda record: texts[record.id], checkpoint="sha256 4f1c", decoding="greedy"
    )
    session = made_up_session(run, data, engine, num_bootstrap_samples=300)
    vqa.evaluate(session)
    seeing = read_predictions(session.path("vqa")).predictions
    blind = {"blank": seeing[:20], "shuffled": seeing}
    probe = mirror_probe(seeing, seeing, sided_records(records))
    lost = visual_reliance(seeing, blind, records)
    put_result(run, session.entry("reliance", scores=lost, details={"mirrored": probe}))
    choices = {
        "generation_strict": {
            "accuracy": {"value": 40.0, "interval": [30.0, 50.0], "count": 93},
            "macro_accuracy": {"value": 41.0},
            "balanced_accuracy": {"value": 39.0},
            "unreadable": {"value": 7.5},
        },
        "guessing": {"accuracy": {"value": 37.5, "count": 93}},
    }
    details = {
        "calibration": calibration([0.9, 0.8, 0.6, 0.5], [True, True, False, True]),
        "num_without_options": 7,
    }
    put_result(run, session.entry("multiple-choice", scores=choices, details=details))
    return run
