import hashlib
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from exgra_med.data import prepare as prepare_module
from exgra_med.data.prepare import prepare
from exgra_med.data.records import open_prepared
from exgra_med.errors import DamagedFileError, DataError, WriteError


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_prepared_folder_has_what_others_rely_on(rad: Path, tmp_path: Path) -> None:
    prepared = prepare("vqa-rad", rad, tmp_path / "out")
    counts = prepared.manifest["counts"]
    assert set(counts) == {"train", "validation", "test"}
    assert sum(counts.values()) == 12 and counts["test"] == 4
    assert sorted(path.name for path in prepared.path.iterdir()) == sorted(
        ["train.jsonl", "validation.jsonl", "test.jsonl", "images", "manifest.json"]
    )
    [record] = [r for r in prepared.records("test") if r.id == "vqa-rad/test/9"]
    assert record.meta["options"] == ["Yes", "No"]
    assert prepared.image_folder(10_000).open(record.images[0]).size == (21, 16)
    manifest_bytes = (prepared.path / "manifest.json").read_bytes()
    assert prepared.fingerprint == hashlib.sha256(manifest_bytes).hexdigest()
    assert prepared.path.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_twice_is_equal_and_the_first_folder_stays(rad: Path, tmp_path: Path) -> None:
    first = prepare("vqa-rad", rad, tmp_path / "a")
    second = prepare("vqa-rad", rad, tmp_path / "b")
    assert contents(first.path) == contents(second.path)
    inode = first.path.stat().st_ino
    assert prepare("vqa-rad", rad, tmp_path / "a").fingerprint == first.fingerprint
    assert first.path.stat().st_ino == inode


def test_interrupted_and_repeated_is_equal(
    rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = contents(prepare("vqa-rad", rad, tmp_path / "a").path)

    def stop(unit: str, done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("vqa-rad", rad, tmp_path / "b", progress=stop)
    assert not (tmp_path / "b").exists()
    assert not list(tmp_path.glob(".b*"))
    assert contents(prepare("vqa-rad", rad, tmp_path / "b").path) == reference


def test_a_killed_run_leaves_nothing_that_looks_whole(
    rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(prepare_module, "_put_in_place", lambda *_: os.kill)
    with pytest.raises(DataError, match="no such folder"):
        prepare("vqa-rad", rad, tmp_path / "out")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")]
    assert prepare("vqa-rad", rad, tmp_path / "out").manifest["counts"]["test"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_another_folder_is_never_touched(rad: Path, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="not empty and not a prepared folder"):
        prepare("vqa-rad", rad, out, overwrite=True)
    assert contents(out) == {"chapter.txt": hashlib.sha256(b"years of work").hexdigest()}


def test_a_different_prepared_folder_needs_overwrite(rad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare("vqa-rad", rad, out)
    before = contents(out)
    with pytest.raises(DataError, match="another prepared folder"):
        prepare("vqa-rad", rad, out, seed=5)
    assert contents(out) == before
    second = prepare("vqa-rad", rad, out, seed=5, overwrite=True)
    assert second.fingerprint != first.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_a_damaged_copy_is_found_when_preparing_again(rad: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = contents(prepare("vqa-rad", rad, out).path)
    (out / "images/synpic0.jpg").write_bytes(b"damaged")
    with pytest.raises(DataError, match="--overwrite"):
        prepare("vqa-rad", rad, out)
    prepare("vqa-rad", rad, out, overwrite=True)
    assert contents(out) == good


def test_a_full_disk_leaves_nothing(rad: Path, tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(WriteError, match="No space left"):
        prepare("vqa-rad", rad, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_missing_and_a_truncated_image_stop_or_are_listed(rad: Path, tmp_path: Path) -> None:
    (rad / "images/synpic0.jpg").unlink()
    cut = rad / "images/synpic1.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(DataError, match="8 records have an image that cannot be used"):
        prepare("vqa-rad", rad, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepared = prepare("vqa-rad", rad, tmp_path / "out", drop_broken_images=True)
    assert sum(prepared.manifest["counts"].values()) == 4
    reasons = [item["reason"] for item in prepared.manifest["dropped"]]
    assert sum("is missing" in reason for reason in reasons) == 4
    assert sum("cannot be decoded" in reason for reason in reasons) == 4
    assert prepared.manifest["images"]["count"] == 2
    # The same for everybody: neither the record that met the image first nor a path is in it.
    assert len(set(reasons)) == 2 and str(tmp_path) not in json.dumps(prepared.manifest)


def test_an_empty_answer_is_dropped_and_listed(rad: Path, tmp_path: Path, change_rad) -> None:
    change_rad(9, answer="  ")
    prepared = prepare("vqa-rad", rad, tmp_path / "out")
    assert prepared.manifest["dropped"] == [{"id": "vqa-rad/test/9", "reason": "empty answer"}]
    assert prepared.manifest["counts"]["test"] == 3


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda p: (p / "manifest.json").unlink(), "no manifest.json"),
        (lambda p: (p / "test.jsonl").unlink(), "test.jsonl is missing"),
        (lambda p: shutil.rmtree(p / "images"), "images/ is missing"),
        (lambda p: (p / "manifest.json").write_text("{}"), "not the manifest"),
        (lambda p: (p / "manifest.json").write_text('{"format": 99}'), "later than"),
        (lambda p: (p / "manifest.json").write_text('{"format": 1}'), "'dataset' is missing"),
        (lambda p: (p / "manifest.json").write_text('{"format"'), "not valid JSON"),
        (lambda p: shutil.rmtree(p), "no such folder"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(rad, tmp_path, damage, message) -> None:
    path = prepare("vqa-rad", rad, tmp_path / "out").path
    damage(path)
    with pytest.raises((DataError, DamagedFileError), match=message):
        open_prepared(path)


def test_a_changed_split_is_refused(rad: Path, tmp_path: Path) -> None:
    prepared = prepare("vqa-rad", rad, tmp_path / "out")
    path = prepared.path / "train.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    for read in (prepared.records, prepared.iterate, prepared.split_path):
        with pytest.raises(DamagedFileError, match=r"train\.jsonl is not the file that manifest"):
            read("train")
        with pytest.raises(DataError, match="no split 'dev'"):
            read("dev")


def test_a_split_changed_on_purpose_is_read_as_its_sentence_says(rad: Path, tmp_path: Path) -> None:
    prepared = prepare("vqa-rad", rad, tmp_path / "out")
    path, manifest = prepared.path / "train.jsonl", prepared.path / "manifest.json"
    first = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first)
    with pytest.raises(DamagedFileError) as refused:
        prepared.records("train")
    values = json.loads(manifest.read_text("utf-8"))
    own = values["files"]["train.jsonl"] = sha256(first).hexdigest()
    assert f"under `files` it is {own}, and `sha256` is deleted" in refused.value.hint
    manifest.write_text(json.dumps(values), "utf-8")
    with pytest.raises(DamagedFileError, match=r"manifest\.json is not what was written there"):
        open_prepared(prepared.path)
    del values["sha256"]
    manifest.write_text(json.dumps(values), "utf-8")
    changed = open_prepared(prepared.path)
    assert len(changed.records("train")) == 1 and changed.fingerprint != prepared.fingerprint


def test_a_changed_number_in_the_manifest_is_found(rad: Path, tmp_path: Path) -> None:
    prepared = prepare("vqa-rad", rad, tmp_path / "out")
    path = prepared.path / "manifest.json"
    text = path.read_text("utf-8")
    path.write_text(text.replace('"test": 4', '"test": 5'), "utf-8")
    assert path.read_text("utf-8") != text
    with pytest.raises(DamagedFileError, match="Delete the folder and prepare it again"):
        open_prepared(prepared.path)
    # Not a folder of somebody else, which another --out would have to be named for.
    with pytest.raises(DamagedFileError, match="SHA-256 differs"):
        prepare("vqa-rad", rad, tmp_path / "out")


def test_the_manifest_names_sources_by_hash(rad: Path, tmp_path: Path) -> None:
    manifest = prepare("vqa-rad", rad, tmp_path / "out", seed=3).manifest
    name = "VQA_RAD Dataset Public.json"
    assert manifest["sources"][name]["sha256"] == contents(rad)[name]
    assert manifest["seed"] == 3 and manifest["variant"] == "official"
    assert str(tmp_path) not in json.dumps(manifest)
