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
    from made_up_run import HOSTILE, SayingEngine, made_up_session, make_data, write_log

    from exgra_med.data.records import open_prepared
    from exgra_med.evaluation.tasks import vqa

    root = tmp_path_factory.mktemp("web")
    data = make_data(root / "made-up-data")
    texts: dict[str, str | None] = {}
    for number, record in enumerate(open_prepared(data).records("test")):
        text = record.answer if number % 2 else "yes"
        texts[record.id] = {2: HOSTILE, 29: None}.get(number, text)
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
        engine = SayingEngine(lambda record: texts[record.id])
        vqa.evaluate(made_up_session(run, data, engine, num_bootstrap_samples=50))
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
