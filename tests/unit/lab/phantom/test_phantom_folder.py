"""The phantom world as a prepared folder: from Python, from the command line, byte for byte."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.inspect.audit import audit
from exgra_med.data.inspect.check import check_prepared
from exgra_med.data.inspect.statistics import statistics
from exgra_med.data.prepare import prepare
from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError
from exgra_med.lab.phantom.make import PhantomSettings, make_phantom
from exgra_med.lab.phantom.scene import SPLITS, sample_scene

FEW = PhantomSettings(
    num_images=12,
    num_validation=4,
    num_test=6,
    num_test_composition=4,
    num_finetune=3,
    num_vision=4,
    num_language=6,
    num_existence=5,
)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = make_phantom(tmp_path / "a", FEW)
    second = make_phantom(tmp_path / "b", FEW)
    assert contents(first.path) == contents(second.path)
    other = make_phantom(tmp_path / "c", PhantomSettings(**(vars(FEW) | {"seed": 1})))
    images = [
        {sha for name, sha in contents(p.path).items() if "png" in name} for p in (first, other)
    ]
    assert len(images[0]) == len(images[1]) == 38
    assert images[0].isdisjoint(images[1])
    assert other.manifest["notes"]["held_out_pairs"] == first.manifest["notes"]["held_out_pairs"]


def test_a_larger_world_has_the_smaller_one_within(tmp_path: Path) -> None:
    small = contents(make_phantom(tmp_path / "a", FEW).path)
    more = PhantomSettings(**(vars(FEW) | {"num_images": 20, "num_test": 9}))
    large = contents(make_phantom(tmp_path / "b", more).path)
    pictures = {name: sha for name, sha in small.items() if name.endswith(".png")}
    assert pictures.items() <= large.items()
    for split in ("train", "test"):
        lines = [(tmp_path / side / f"{split}.jsonl").read_text("utf-8") for side in "ab"]
        assert lines[1].startswith(lines[0])


def test_a_folder_is_found_without_fault(tmp_path: Path) -> None:
    prepared = make_phantom(tmp_path / "a", FEW)
    assert set(prepared.splits) == set(SPLITS)
    report = check_prepared(prepared)
    assert not report.faults
    assert report.facts["test_images_in_train"] == report.facts["repeated_records"] == 0
    for split in ("test", "test_composition"):
        found = audit(prepared.records("train"), prepared.records(split), prepared.path / "images")
        assert found.test_images_in_train == found.duplicate_image_questions == 0
    numbers = statistics(prepared)
    assert numbers["train"]["images"] == 12 and numbers["language"]["images"] == 0
    assert "question_type" in numbers["train"]
    image = prepared.image_folder(64 * 64).open(prepared.records("vision")[0].images[0])
    assert image.size == (64, 64) and image.mode == "RGB"
    assert prepared.manifest["notes"]["settings"] == vars(FEW)


def test_splits_of_no_scenes_are_not_made(tmp_path: Path) -> None:
    none = dict.fromkeys(
        ["num_validation", "num_vision", "num_language", "num_test_composition"], 0
    )
    prepared = make_phantom(tmp_path / "a", PhantomSettings(num_images=3, num_test=2, **none))
    assert prepared.splits == ["train", "test"]


def test_the_command_line_makes_the_same(tmp_path: Path) -> None:
    arguments = ["data", "prepare", "phantom", "--out", str(tmp_path / "a"), "--json"]
    for name, value in vars(FEW).items():
        arguments += [] if name == "seed" else ["--option", f"{name}={value}"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["fingerprint"] == make_phantom(tmp_path / "b", FEW).fingerprint
    baselines = CliRunner().invoke(
        app, ["evaluate", "baselines", str(tmp_path / "a"), "--split", "test_composition"]
    )
    assert baselines.exit_code == 0, baselines.output
    assert "nearest training question, no image" in baselines.stdout
    assert re.search(r"Average +\d+\.\d +– +\d+", baselines.stdout)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": "3"}, "no setting 'images'"),
        ({"num_images": "many"}, "not a whole number"),
        ({"image_pixels": "8"}, "at least 32"),
        ({"seed": "8"}, "no setting 'seed'"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare("phantom", None, tmp_path / "a", settings=settings)
    assert not (tmp_path / "a").exists()


def test_what_is_made_has_no_source_and_what_is_read_needs_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reads no files"):
        prepare("phantom", tmp_path, tmp_path / "a")
    with pytest.raises(DataError, match="needs --source"):
        prepare("slake", None, tmp_path / "a")
    with pytest.raises(DataError, match="--option is for data that is made"):
        prepare("slake", tmp_path, tmp_path / "a", settings={"num_images": "3"})


def test_nothing_in_a_record_names_a_person_or_a_file_of_this_machine(tmp_path: Path) -> None:
    prepared = make_phantom(tmp_path / "a", FEW)
    known = {"split", "scene", "modality", "region", "question_type", "organ", "pair"}
    known |= {"composition", "options", "finding", "existence"}
    for split in prepared.splits:
        for record in open_prepared(prepared.path).records(split):
            assert set(record.meta) <= known
            assert record.id.startswith(f"phantom/{split}/")
    text = (prepared.path / "manifest.json").read_text("utf-8")
    assert str(tmp_path) not in text


def test_existence_questions_are_true_to_the_scene(tmp_path: Path) -> None:
    prepared = make_phantom(tmp_path / "a", PhantomSettings(**(vars(FEW) | {"num_existence": 40})))
    records = prepared.records("existence")
    kinds = [kind for each in records for kind in each.meta["existence"]]
    assert len({each.id for each in records}) == len(records)
    assert {"present", "random", "popular", "adversarial"} == set(kinds)
    for each in records:
        scene = sample_scene(0, "existence", each.meta["scene"])
        there = {lesion.kind for lesion in scene.lesions}
        there |= {scene.device.kind} if scene.device else set()
        assert (each.answer == "yes") == (each.meta["finding"] in there)
        assert (each.answer == "yes") == (each.meta["existence"] == ["present"])
        assert each.meta["finding"] in each.question
