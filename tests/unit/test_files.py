"""Atomic writes: what stood before survives a full disk."""

import errno
from pathlib import Path

import pytest

from exgra_med import files


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    files.write_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(files.DiskFullError, match="full"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with files.new_folder(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(files.DiskFullError), files.new_folder(target) as folder:
        (folder / "a").write_text("2")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (target / "a").read_text() == "1"
    with files.new_folder(target) as folder:
        (folder / "b").write_text("3")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write_text(tmp_path / "absent" / "file", "x")
