"""Model card and data card: the chain of licences, hashes, scores, limits, and no path."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from exgra_med.errors import DataError, RunError
from exgra_med.evaluation.cards import (
    data_card,
    forbids_commerce,
    lineage,
    model_card,
    write_data_card,
    write_model_card,
)
from exgra_med.evaluation.results import Entry, Score, put_result
from exgra_med.model.published import LICENCES, NOTICE
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run

BUNDLED = "bundled:vqa-rad-sample"


def make_run(folder: Path, *assignments: str, data: dict | None = None) -> Path:
    run = start_run(folder, load_recipe("debug/tiny", assignments).recipe, resume=False)
    if data:
        run.add_to_record("data", data)
    return run.path


def starting(**origin: object) -> list[str]:
    """Assignments that give a recipe another origin of its model."""
    return ["model.architecture=null", *(f"model.{key}={value}" for key, value in origin.items())]


def rows_of(card: str) -> str:
    return card.split("## Licence chain")[1].split("## Training")[0]


def test_a_toy_inherits_its_data_alone(tmp_path: Path) -> None:
    found = lineage(make_run(tmp_path / "run", data={"vqa": {"folder": BUNDLED}}))
    assert [(each.kind, each.licence) for each in found if each.kind == "weights"] == [
        ("weights", "inherits nothing")
    ]
    assert ("vqa-rad-sample, image-disjoint sample", "CC0 1.0") in {
        (each.name, each.licence) for each in found
    }
    assert not forbids_commerce(found)


def test_the_chain_goes_back_over_runs_to_the_imported_checkpoint(tmp_path: Path) -> None:
    start = tmp_path / "secret-person" / "start"
    start.mkdir(parents=True)
    facts = {"source": "exgra-med-dci", "revision": "abc123", "licences": list(LICENCES)}
    (start / "import.json").write_text(json.dumps(facts))
    first = make_run(tmp_path / "first", *starting(start=start), "stages.connector=null")
    second = make_run(tmp_path / "second", *starting(start=first), "name=second")
    card = model_card(second)
    assert "debug/tiny" in rows_of(card)
    assert "exgra-med-dci, revision abc123" in rows_of(card).replace("\\", "")
    for licence in LICENCES:
        assert licence.split(" (")[0] in rows_of(card)
    assert "allows research alone" in card
    assert "secret-person" not in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("model", "licence"),
    [
        ({"start": "exgra-med-dci-slake"}, "LLaMA licence, research only"),
        (
            {"parts": "{language: huggyllama/llama-7b, vision: openai/clip-vit-large-patch14}"},
            "LLaMA licence, research only",
        ),
    ],
)
def test_base_models_bring_their_terms(tmp_path: Path, model: dict[str, str], licence: str) -> None:
    card = model_card(make_run(tmp_path / "run", *starting(**model)))
    assert licence in rows_of(card)
    assert "allows research alone" in card


def test_what_nobody_stated_is_said(tmp_path: Path) -> None:
    parts = "{language: someone/a-model, vision: openai/clip-vit-large-patch14}"
    card = model_card(make_run(tmp_path / "run", *starting(parts=parts)))
    assert "Not stated anywhere in the folders: the terms of" in card
    assert "someone/a-model" in card.split("Not stated anywhere")[1].split("\n")[0]


def test_a_changed_folder_vouches_for_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data={"vqa": {"folder": BUNDLED, "fingerprint": "0" * 64}})
    changed = [each for each in lineage(run) if each.fingerprint == "0" * 64]
    assert [each.licence for each in changed] == ["not stated (the folder has changed since)"]


def test_a_model_card_has_scores_limits_hashes_and_front_matter(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data={"vqa": {"folder": BUNDLED}})
    final = run / "checkpoints" / "vqa" / "final"
    final.mkdir(parents=True)
    (final / "model.safetensors").write_bytes(b"weights")
    scores = {
        "average": Score(value=61.25, interval=[40.5, 80.0], count=10),
        "open_recall": Score(value=50.0, count=4),
    }
    entry = Entry(
        dataset="made-up",
        split="test",
        task="vqa",
        engine={},
        scores={"strict": scores},
        details={"scorers": {"strict": {"num_open": 4, "num_closed": 6, "num_images": 5}}},
    )
    put_result(run, entry)
    path = write_model_card(run, tmp_path / "card.md")
    card = path.read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert "research-only" in front["tags"]
    assert front["license"] == "other"
    assert NOTICE in card
    assert "| Average | 61.2 (40.5 to 80.0) | 10 |" in card
    weights = hashlib.sha256(b"weights").hexdigest()
    assert f"sha256 of `model.safetensors`: `{weights}`" in card
    assert "## What this does not show" in card
    assert "It is no clinical evidence" in card


def test_a_run_without_scores_has_a_card_that_says_so(tmp_path: Path) -> None:
    assert "this run has not been evaluated" in model_card(make_run(tmp_path / "run"))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        model_card(tmp_path)


def test_a_data_card_has_counts_hashes_and_licence(tmp_path: Path) -> None:
    card = write_data_card(BUNDLED, tmp_path / "card.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license_name"] == "CC0 1.0"
    assert "| test | 56 | CLOSED 34, OPEN 22 | `94bc31adc038715017a733ba" in card
    assert "48 images" in card
    assert "948b7156059b864cf72344fb10669233526b175c243e5a046d20d4201d297a95" in card


def test_a_data_card_counts_reasons_and_names_no_row(tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "images").mkdir(parents=True)
    (source / "train.jsonl").write_text("")
    dropped = [
        {"id": "JANE-DOE-1", "reason": "empty answer"},
        {"id": "x", "reason": "empty answer"},
    ]
    manifest = {
        "format": 1,
        "dataset": "custom",
        "licence": "yours",
        "counts": {"train": 0},
        "files": {},
        "dropped": dropped,
    }
    (source / "manifest.json").write_text(json.dumps(manifest))
    card = data_card(source)
    assert "* 2: empty answer" in card
    assert "JANE" not in card
    assert "**Not stated.**" in card


def test_a_folder_that_is_not_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        data_card(tmp_path)


def test_a_model_of_any_family_brings_what_its_own_card_says(tmp_path: Path) -> None:
    start = tmp_path / "secret-person" / "some-vlm"
    start.mkdir(parents=True)
    config = {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    (start / "config.json").write_text(json.dumps(config))
    head = "license: other\nlicense_name: made-up-research\nbase_model: someone/a-base"
    (start / "README.md").write_text(f"---\n{head}\n---\n# A model\n")
    run = make_run(tmp_path / "run", *starting(start=start))
    found = {each.kind: (each.name, each.licence) for each in lineage(run)}
    assert found["checkpoint"] == (
        "some-vlm (Qwen2_5_VLForConditionalGeneration)",
        "made-up-research",
    )
    assert found["base model"] == ("someone/a-base", "not stated")
    card = model_card(run)
    assert "allows research alone" in card and "secret-person" not in card
    assert yaml.safe_load(card.split("---")[1])["base_model"] == ["someone/a-base"]
    (start / "README.md").write_text("no front matter --- at all")
    assert ("checkpoint", "not stated") in {(e.kind, e.licence) for e in lineage(run)}
    hub = lineage(make_run(tmp_path / "hub", *starting(start="someone/on-the-hub")))
    assert ("someone/on-the-hub", "not stated") in {(e.name, e.licence) for e in hub}
