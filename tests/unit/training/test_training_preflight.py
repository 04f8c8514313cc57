"""What is wrong with a run is found before its model is loaded."""

import json
import shutil
from collections import namedtuple
from hashlib import sha256
from pathlib import Path

import pytest

from exgra_med.data.records import SAMPLES, Prepared
from exgra_med.errors import CheckpointError, DataError, ExgraMedError, RecipeError, RunError
from exgra_med.model.build import architecture_config
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.training.preflight import (
    check_before_training,
    check_plan,
    check_start,
    missing_here,
)


def check(tmp_path: Path, *assignments: str) -> None:
    check_before_training(load_recipe("debug/tiny", assignments).recipe, tmp_path / "run")


def test_a_sound_run_passes(tmp_path: Path) -> None:
    check(tmp_path)
    assert not (tmp_path / "run").exists()


CONTROL = "stages.aligned.alignment.objective=infonce"
FROM = "model={{architecture: null, start: {0}}}"
PARTS = "model={{architecture: null, parts: {{language: {0}, vision: {0}}}}}"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (FROM.format("runs/nowhere"), "There is no folder runs/nowhere"),
        (FROM.format("/nowhere/at/all"), "There is no folder /nowhere/at/all"),
        (PARTS.format("./nowhere"), r"There is no folder \./nowhere"),
    ],
)
def test_a_model_that_is_not_there(tmp_path: Path, assignment: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check(tmp_path, assignment)


def test_a_run_that_has_not_finished_and_a_folder_without_a_model(tmp_path: Path) -> None:
    first = start_run(tmp_path / "first", load_recipe("debug/tiny").recipe, resume=False)
    with pytest.raises(RunError, match="has not finished"):
        check(tmp_path, FROM.format(first.path))
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        check(tmp_path, FROM.format(tmp_path))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.folder=nowhere", "nowhere: no such folder"),
        ("data.split=twain", "no split 'twain'"),
        ("data.held_out_split=twain", "no split 'twain'"),
        ("data.max_pixels=10000", "pixels, more than 10000"),
    ],
)
def test_data_that_is_not_there(tmp_path: Path, assignment: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(tmp_path, assignment)


@pytest.fixture
def copy(sample: Prepared, tmp_path: Path) -> Path:
    shutil.copytree(SAMPLES / "vqa-rad-sample", tmp_path / "copy")
    return tmp_path / "copy"


def rewrite(folder: Path, split: str, lines: list[str]) -> None:
    """Change a split as `data prepare` would have written it."""
    content = "".join(f"{line}\n" for line in lines).encode()
    (folder / f"{split}.jsonl").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["counts"][split] = len(lines)
    manifest["files"][f"{split}.jsonl"] = sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_records_without_extended_answers_are_counted(copy: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (copy / "train.jsonl").read_text().splitlines()]
    for row in rows[3:5]:
        del row["extended"]
    rewrite(copy, "train", [json.dumps(row) for row in rows])
    with pytest.raises(DataError, match=f"2 of the {len(rows)} records of stage 'aligned'") as seen:
        check(tmp_path, f"data.folder={copy}")
    assert repr(rows[3]["id"]) in seen.value.message
    check(tmp_path, f"data.folder={copy}", "stages.aligned.alignment=null")


def test_an_empty_split_and_a_missing_image(copy: Path, tmp_path: Path) -> None:
    rewrite(copy, "validation", [])
    with pytest.raises(DataError, match="'validation', which stage 'connector' reads, has no"):
        check(tmp_path, f"data.folder={copy}")
    lines = (copy / "train.jsonl").read_text().splitlines()
    (copy / "images" / json.loads(lines[0])["image"]).unlink()
    with pytest.raises(DataError, match=str(json.loads(lines[0])["id"])):
        check(tmp_path, f"data.folder={copy}", "data.held_out_split=null")


def test_a_missing_image_of_the_held_out_split(copy: Path, tmp_path: Path) -> None:
    known = {json.loads(line)["image"] for line in (copy / "train.jsonl").open()}
    rows = [json.loads(line) for line in (copy / "validation.jsonl").open()]
    row = next(each for each in rows if each["image"] not in known)
    (copy / "images" / row["image"]).unlink()
    with pytest.raises(DataError, match="is missing"):
        check(tmp_path, f"data.folder={copy}")
    check(tmp_path, f"data.folder={copy}", "data.held_out_split=null")


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(5e6))
    with pytest.raises(RunError, match=r"needs about .* and the disk has 5\.0 MB"):
        check(tmp_path)
    # What the run holds already is not needed again.
    kept = tmp_path / "run/checkpoints/vqa/step-000002"
    kept.mkdir(parents=True)
    (kept / "model.safetensors").write_bytes(bytes(40_000_000))
    check(tmp_path)


def test_what_only_finished_stages_needed_may_be_gone(tmp_path: Path) -> None:
    gone = (FROM.format("runs/nowhere"), "stages.connector.data.folder=nowhere")
    with pytest.raises(ExgraMedError):
        check(tmp_path, *gone)
    config = architecture_config(load_recipe("debug/tiny").recipe.model.architecture, 404)
    config.save_pretrained(tmp_path / "run/checkpoints/connector/final")
    check(tmp_path, *gone)


def test_every_fault_is_a_sentence_with_exit_code_2(tmp_path: Path) -> None:
    with pytest.raises(ExgraMedError) as seen:
        check(tmp_path, "data.folder=nowhere")
    assert seen.value.exit_code == 2


def test_a_solver_that_takes_smaller_graphs_is_refused_with_the_stage(tmp_path: Path) -> None:
    solver = "stages.aligned.alignment.solver=exhaustive"
    check(tmp_path, solver)
    with pytest.raises(RecipeError, match=r"stages\.aligned\.alignment: .* at most 9 nodes, .* 10"):
        check(tmp_path, solver, "stages.aligned.batch_size=10")
    recipe = load_recipe("debug/tiny", [solver, "stages.aligned.alignment.scope=global"]).recipe
    check_plan(recipe, num_processes=1)
    with pytest.raises(RecipeError, match="asked for 12"):
        check_plan(recipe, num_processes=2)
    # A control matches no graphs, whatever solver stands beside it.
    check(tmp_path, solver, "stages.aligned.batch_size=10", CONTROL)


@pytest.mark.parametrize("change", ["num_layers=3", "objective=infonce"])
def test_message_passing_that_does_not_go_on_is_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(RecipeError, match="whose weights it goes on with, has 2"):
        check(tmp_path, f"stages.vqa.alignment.{change}")
    check(tmp_path, f"stages.vqa.alignment.{change}", "stages.aligned=null")


def test_one_node_over_all_processes_is_refused(tmp_path: Path) -> None:
    alone = ("stages.aligned.alignment.scope=global", "stages.aligned.batch_size=1")
    with pytest.raises(RecipeError, match="has one node here"):
        check(tmp_path, *alone)
    check_plan(load_recipe("debug/tiny", alone).recipe, num_processes=2)


def test_what_this_machine_lacks_is_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exgra_med.model.lora.util.find_spec", lambda name: None)
    recipe = load_recipe("debug/tiny", ["stages.vqa.lora={}", "stages.aligned.lora={}"]).recipe
    assert [str(each) for each in missing_here(recipe, tmp_path)] == [
        "`lora` needs the extra [lora]. pip install 'exgra-med[lora]'"
    ]


def test_a_start_with_another_connector_is_refused(tmp_path: Path) -> None:
    settings = load_recipe("debug/tiny").recipe.model.architecture
    assert settings is not None
    config = architecture_config(settings, 300)
    (tmp_path / "model").mkdir()
    config.save_pretrained(tmp_path / "model")
    recipe = load_recipe("finetune/vqa-rad-dci", [f"model.start={tmp_path / 'model'}"]).recipe
    with pytest.raises(CheckpointError, match="has the connector 'none', and this recipe is for"):
        check_start(recipe)
