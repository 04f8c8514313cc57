"""Any model through the command line alone, from a folder on disk to a page and out again.

What works, and what was measured, is the table of docs/reference/models.md; this test writes it:

    EXGRA_MED_WRITE=1 pytest -m slow tests/pipeline/test_pipeline_any_model.py
"""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
import yaml

from any_models import families
from exgra_med.data.records import open_prepared
from families import make

HERE = Path(__file__).resolve()
SOURCE = HERE.parents[2] / "src"
TABLE = HERE.parents[2] / "benchmarks" / "results" / "models.json"
sys.path.append(str(HERE.parents[1] / "browser"))

NAMES = ["qwen2_5_vl", "qwen3_vl", "gemma3", "idefics3", "smolvlm", "internvl", "llava_onevision"]
STAGE = {"batch_size": 4, "tokens_per_row": 1024, "save_every_steps": 20}
RECIPE = {
    "name": "any",
    "model": {"start": "model"},
    "data": {"folder": "bundled:vqa-rad-sample"},
    "text": {"max_length": 1024},
    "stages": {
        "aligned": STAGE
        | {
            "trainable": ["connector", "language"],
            "data": {"questions_per_record": 3},
            "max_steps": 4,
            "learning_rate": 1e-3,
            "alignment": {"weight": 1.0},
            "lora": {"rank": 4, "alpha": 8},
            "num_held_out_batches": 1,
        },
        "vqa": STAGE
        | {
            "trainable": ["vision", "connector", "language"],
            "epochs": 20,
            "max_steps": 120,  # enough for a tiny model to learn that answers end
            "learning_rate": 1e-2,
            "num_held_out_batches": 1,
        },
    },
    "evaluation": {"max_new_tokens": 24, "num_bootstrap_samples": 50, "num_report_images": 2},
}


# What the test does, in its order; a family that fails in between gets no row.
ROAD = [
    "dry run",
    "training with graphs and LoRA",
    "training of all parts",
    "`evaluate vqa`",
    "reliance",
    "report",
    "chat",
    "graphs",
    "page",
    "plain transformers",
]


class Road:
    """Commands in one folder, as a person types them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: list[str] = []

    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return os.environ | own | {"XDG_CACHE_HOME": str(self.folder / "cache")}

    def __call__(self, *arguments: str) -> str:
        call = [sys.executable, "-m", "exgra_med", *arguments]
        done = subprocess.run(
            call,
            cwd=self.folder,
            text=True,
            capture_output=True,
            env=self.environment(),
            timeout=400,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.mark.slow
@families(NAMES)
def test_the_whole_road_of_a_family(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra [web]")
    pytest.importorskip("peft")
    from live_page import LivePage

    model, processor = make(name)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    road = Road(tmp_path)
    seen: dict[str, Any] = {
        "family": model.config.model_type,
        "class": type(model).__name__,
        "road": ROAD,
    }

    assert "hours" in road("train", "recipe.yaml", "--dry-run")
    road("train", "recipe.yaml", "--out", "run")
    assert "56 questions: 56 answered" in road("evaluate", "vqa", "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert all(each.get("template") is None for each in results["results"])
    assert "Reliance on the image" in road("evaluate", "reliance", "run")
    road("evaluate", "report", "run")
    picture = str(open_prepared("bundled:vqa-rad-sample").path / "images")
    picture = str(next(Path(picture).rglob("*.jpg")))
    said = json.loads(road("chat", "run", picture, "Is it a CT?", "--json"))
    assert said["num_tokens"] >= 1
    road("evaluate", "graphs", "run")
    facts = json.loads(road("checkpoint", "inspect", "run", "--json"))
    assert facts["model_type"] == model.config.model_type
    measured = facts["measured"]["float32"]
    seen["texts packed"] = measured["text_packing"]
    seen["images packed"] = measured["image_packing"]
    assert measured["leak"] == 0

    page = LivePage(tmp_path / "page", str(tmp_path / "run"), **road.environment())
    try:
        shown = json.loads(page.request("/config")[2])
        assert "run · vqa" in json.dumps(shown, ensure_ascii=False)
        status, events = page.ask_over_http("Is it a CT?", uuid.uuid4().hex, "run · vqa")
        assert status == 200 and "The answer is complete" in events, events[-2000:]
    finally:
        page.close()

    final = tmp_path / "run/checkpoints/vqa/final"
    plain, report = hf.AutoModelForImageTextToText.from_pretrained(final, output_loading_info=True)
    assert type(plain) is type(model)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    hf.AutoProcessor.from_pretrained(final)
    adapter = tmp_path / "run/checkpoints/aligned/final/adapter/adapter_config.json"
    assert json.loads(adapter.read_text())["r"] == 4

    known = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    if os.environ.get("EXGRA_MED_WRITE"):
        TABLE.write_text(json.dumps(known | {name: seen}, indent=2, sort_keys=True) + "\n")
    else:
        assert known.get(name) == seen
