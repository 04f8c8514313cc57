"""A study whose runs were never trained: their answers are drawn, everything else is real."""

import json
import sys
from pathlib import Path

import numpy as np

from exgra_med.data.records import open_prepared
from exgra_med.evaluation.tasks import vqa
from exgra_med.lab.studies.folder import start_study
from exgra_med.lab.studies.plan import Cell, Node
from exgra_med.lab.studies.schema import Study, load_study
from exgra_med.recipe.run_folder import start_run

sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation"))
from made_up_run import SayingEngine, made_up_session

DATA = "bundled:vqa-rad-sample"
STUDY = """
name: try
description: Does graph alignment save data?
recipe: debug/tiny
shared: [connector]
methods:
  instruct: {title: LLaVA-Med objective, set: {stages.aligned.alignment: null}}
  exgra-med: {title: ExGra-Med}
  equal-tokens:
    title: Equal tokens
    set: {stages.aligned.alignment: null}
    match: {method: exgra-med, by: tokens}
fractions: [0.1, 0.4, 1.0]
seeds: [0, 1, 2]
baseline: instruct
evaluation: {num_bootstrap_samples: 400}
published: {dataset: vqa-rad, methods: {exgra-med: exgra-med, instruct: llava-med}}
"""


def write_study(place: Path, text: str = STUDY) -> Path:
    """The study's file."""
    path = place / "try.yaml"
    path.write_text(text)
    return path


def fake_study(place: Path, skill: dict[str, dict[float, float]], text: str = STUDY) -> Path:
    """A study folder with finished cells.

    Args:
        place: an empty folder.
        skill: method -> fraction -> share of the questions that are answered rightly.
        text: the study.
    """
    study = load_study(str(write_study(place, text)))
    folder = place / "study"
    for node in start_study(folder, study):
        if node.cell is not None and node.cell.fraction in skill.get(node.cell.method, {}):
            fake_cell(folder, study, node, skill[node.cell.method][node.cell.fraction])
    return folder


def fake_cell(folder: Path, study: Study, node: Node, skill: float, num_missing: int = 0) -> None:
    """A finished run whose answers are right with a chance of `skill`; the first are missing."""
    assert node.cell is not None and node.recipe is not None
    prepared = open_prepared(DATA)
    records = prepared.records("test")
    run = start_run(folder / node.id, node.recipe, resume=True)
    # Methods of one seed share their luck, as runs that start from one checkpoint do.
    luck = np.random.default_rng(node.cell.seed).random(len(records))
    texts = {
        record.id: record.answer if lucky < skill else "nothing of that"
        for record, lucky in zip(records, luck, strict=True)
    }
    missing = {record.id for record in records[:num_missing]}
    engine = SayingEngine(lambda record: None if record.id in missing else texts[record.id])
    vqa.evaluate(made_up_session(run.path, DATA, engine, num_bootstrap_samples=20))
    run.log.write_text("".join(json.dumps(event) + "\n" for event in events(node.cell)))
    if node.budget is not None:
        run.add_to_record(
            "budget",
            {
                "method": "exgra-med", "by": "tokens", "stage": "aligned", "num_steps": 7,
                "num_steps_of_reference": 4, "tokens_per_step": 100.0,
                "tokens_per_step_of_reference": 175.0, "spent": 1.0, "counted_without": "",
            },
        )  # fmt: skip


def events(cell: Cell) -> list[dict]:
    """What training would have logged."""
    gain = {"exgra-med": 0.7}.get(cell.method, 0.1) * cell.fraction
    found: list[dict] = [{"kind": "stage", "stage": "aligned", "event": "start", "step": 0}]
    for step in (0, 20, 40):
        way = gain * step / 40
        found.append(
            {"kind": "held_out", "stage": "aligned", "step": step, "language_loss": 5 - way,
             "num_records": 32, "image_answer_accuracy": 0.06 + way}
        )  # fmt: skip
        own, other = ([0] * 20 for _ in range(2))
        own[10 + int(9 * way)] += 20
        own[11] += 12
        other[10], other[11] = 300, 180
        found.append(
            {"kind": "views", "stage": "aligned", "step": step, "num_nodes": 32, "chance": 0.06,
             "image_answer/recall_1": 0.06 + way, "image_answer/gap": 1.2 - way,
             "histograms": {"image_answer": {"own": own, "other": other}}}
        )  # fmt: skip
    return [*found, {"kind": "stage", "stage": "aligned", "event": "end", "step": 40,
                     "total_steps": 40}]  # fmt: skip
