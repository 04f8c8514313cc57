"""A run on made-up data, as evaluation leaves it, and a tiny model."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.load import load_recipe

UNIT = Path(__file__).parents[1]
STUDY = UNIT.parents[1] / "benchmarks" / "results" / "studies" / "data-efficiency"
sys.path.insert(0, str(UNIT / "evaluation"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run and a study of two."""
    from exgra_med.evaluation.vqa import score_run
    from made_up_run import DATASET, HOSTILE, make_data, write_log

    from exgra_med.data.records import open_prepared
    from exgra_med.evaluation.answers import Prediction, PredictionWriter
    from exgra_med.evaluation.session import predictions_path

    root = tmp_path_factory.mktemp("web")
    data = make_data(root / "made-up-data")
    prepared = open_prepared(data)
    records = prepared.records("test")
    recipe = {
        "name": f"demo {HOSTILE}",
        "description": HOSTILE,
        "model": {"architecture": {"connector": "dci"}},
        "data": {"folder": str(data)},
        "evaluation": {"split": "test"},
    }
    folder = root / "runs"
    for name in ("demo", "study/cells/aligned/1.0/seed-0", "study/cells/plain/1.0/seed-0"):
        run = folder / name
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        (run / "record.json").write_text("{}", encoding="utf-8")
        write_log(run / "log.jsonl")
        with PredictionWriter(predictions_path(run, DATASET)) as writer:
            for number, record in enumerate(records[:-1]):
                text = record.answer if number % 2 else "yes"
                writer.append([Prediction(record.id, HOSTILE if number == 2 else text, "stop")])
        score_run(run, DATASET, records, prepared.records("train"), num_bootstrap_samples=50)
    (folder / "study" / "study.yaml").write_text("name: made-up", encoding="utf-8")
    results = json.loads((STUDY / "results.json").read_text(encoding="utf-8"))
    results["description"] = results["arms"][results["baseline"]]["title"] = HOSTILE
    results["conclusion"].append(HOSTILE)
    (folder / "study" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The model of the smallest recipe, untrained."""
    architecture = load_recipe("debug/tiny", ()).recipe.model.architecture
    assert architecture is not None
    return build_model(architecture, ["What is shown? The left lung."] * 4, 0)
