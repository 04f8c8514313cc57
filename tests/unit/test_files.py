"""Atomic writes: what stood before survives a full disk; what a killed run left is taken over.

What was written is known again by its SHA-256, and one process at a time writes.
"""

import errno
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from exgra_med import digests, files, reading
from exgra_med.errors import DamagedFileError, RunError, WriteError
from exgra_med.files import DiskFullError

HOLD = """
import sys, time
from pathlib import Path
from exgra_med import digests, files, reading

path, kind = Path(sys.argv[1]), sys.argv[2]
opened = files.new_file(path) if kind == "file" else files.new_folder(path)
with opened as target:
    if kind == "file":
        target.write(b"half")
        target.flush()
    else:
        (target / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def hold(path: Path, kind: str) -> subprocess.Popen:
    """A process that is in the middle of writing `path`."""
    command = [sys.executable, "-c", HOLD, str(path), kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def write(path: Path, kind: str, text: str) -> None:
    if kind == "file":
        files.write_text(path, text)
    else:
        with files.new_folder(path) as folder:
            (folder / "content").write_text(text)


def read(path: Path) -> str:
    if path.is_dir():
        assert [inside.name for inside in path.iterdir()] == ["content"]
        return (path / "content").read_text()
    return path.read_text()


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    files.write_text(path, "old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(files.DiskFullError, match="full") as caught:
        files.write_text(path, "new")
    assert str(path) in caught.value.message and caught.value.exit_code == 1
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with files.new_folder(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(files.DiskFullError), files.new_folder(target) as folder:
        (folder / "a").write_text("2")
        full()
    assert (target / "a").read_text() == "1"
    with files.new_folder(target) as folder:
        (folder / "b").write_text("3")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_reported_by_a_library_in_rust_is_one_too(tmp_path: Path) -> None:
    with pytest.raises(files.DiskFullError), files.new_folder(tmp_path / "model"):
        raise RuntimeError("IO error: No space left on device (os error 28)")
    assert not list(tmp_path.iterdir())


def test_every_other_failed_write_is_a_sentence_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (
        tmp_path / "absent" / "file",
        tmp_path / "file" / "inside",
        tmp_path / ("n" * 300),
    ):
        with pytest.raises(WriteError, match="cannot be written") as caught:
            files.write_text(path, "x")
        assert str(path) in caught.value.message and caught.value.exit_code == 1
    for path in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(WriteError, match="cannot be written"):
            write(path, "folder", "x")
    with (
        pytest.raises(WriteError, match="cannot be written"),
        files.new_folder(tmp_path / "out") as f,
    ):
        (f / ("n" * 300)).write_text("a name from a data file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_errors_of_other_places_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.new_folder(tmp_path / "out"):
        (tmp_path / "source" / "absent").read_text()
    with pytest.raises(ZeroDivisionError), files.new_file(tmp_path / "out"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_write_takes_over_what_a_killed_run_left(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "target"
    write(path, kind, "old")
    process = hold(path, kind)
    process.kill()
    process.communicate()
    assert read(path) == "old" and len(list(tmp_path.iterdir())) == 2
    write(path, kind, "new")
    assert read(path) == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_another_process_is_writing_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "target"
    process = hold(path, kind)
    [theirs] = tmp_path.iterdir()
    write(path, kind, "ours")
    assert read(path) == "ours"
    half = theirs if kind == "file" else theirs / "half"
    assert half.read_text() == "half"
    process.kill()
    process.communicate()


def test_a_link_in_place_of_a_leftover_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("years of work")
    (tmp_path / ".a.partial-0").symlink_to(precious)
    (tmp_path / ".b.partial-0").symlink_to(precious / "thesis")
    write(tmp_path / "a", "folder", "new")
    write(tmp_path / "b", "file", "new")
    assert (precious / "thesis").read_text() == "years of work"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_without_locks_nothing_is_taken_over(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    leftover = tmp_path / ".target.partial-0"
    leftover.touch() if kind == "file" else leftover.mkdir()
    for text in ("old", "new"):
        write(tmp_path / "target", kind, text)
    assert read(tmp_path / "target") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [leftover.name, "target"]


def test_without_an_exchange_the_old_folder_is_moved_away_and_comes_back_on_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    path = tmp_path / "target"
    for text in ("one", "two"):
        write(path, "folder", text)
    assert read(path) == "two" and list(tmp_path.iterdir()) == [path]
    rename = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if self.name == ".target.partial-0" and (tmp_path / ".target.partial-0.old").exists():
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(WriteError, match="Input/output"):
        write(path, "folder", "three")
    assert read(path) == "two" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges folders in one step")
def test_a_reader_of_a_folder_that_is_replaced_always_finds_one(tmp_path: Path) -> None:
    path = tmp_path / "target"
    write(path, "folder", "0")
    code = (
        "import sys\nfrom pathlib import Path\nfrom exgra_med import files\n"
        "for n in range(200):\n"
        "    with files.new_folder(Path(sys.argv[1])) as f: (f / 'content').write_text(str(n))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(2)]
    num_seen = 0
    while any(writer.poll() is None for writer in writers):
        assert path.is_dir()
        num_seen += 1
        time.sleep(0)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert num_seen > 100 and read(path) == "199"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o777 & ~_umask()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such permissions")
@pytest.mark.parametrize("mask", [0o022, 0o007, 0o077])
def test_weights_follow_the_umask_as_other_files_do(tmp_path: Path, mask: int) -> None:
    tensors = {"weight": torch.zeros(2)}
    before = os.umask(mask)
    try:
        with files.new_folder(tmp_path / "checkpoint") as folder:
            save_file(tensors, folder / "model.safetensors")
            (folder / "adapter").mkdir()
            save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
            (folder / "config.json").write_text("{}")
    finally:
        os.umask(before)
    written = [path for path in (tmp_path / "checkpoint").rglob("*") if path.is_file()]
    assert len(written) == 3
    assert {path.stat().st_mode & 0o777 for path in written} == {0o666 & ~mask}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


HOLD_LOCK = """
import os, sys, time
from pathlib import Path
from exgra_med import digests, files, reading

with files.sole_writer(Path(sys.argv[1]), "The node"):
    if len(sys.argv) > 2 and not os.fork():
        time.sleep(5)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def holding(lock: Path, *more: str) -> "subprocess.Popen[str]":
    """A process that holds a lock."""
    command = [sys.executable, "-c", HOLD_LOCK, str(lock), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_held_by_one_and_not_by_the_dead(tmp_path: Path) -> None:
    lock = tmp_path / "node.lock"
    process = holding(lock)
    own = f"The node is being written by process {process.pid} on {socket.gethostname()}, since 2"
    with pytest.raises(RunError, match=re.escape(own)), files.sole_writer(lock, "The node"):
        pass
    assert files.is_being_written(lock)
    process.kill()
    process.communicate()
    assert not files.is_being_written(lock)
    # Blocks of one process do not exclude one another, and the inner one does not end the outer.
    with files.sole_writer(lock, "The node"):
        with files.sole_writer(lock, "The node"):
            pass
        assert files.is_being_written(lock)
    assert not files.is_being_written(lock) and not lock.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked there")
def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    lock = tmp_path / "node.lock"
    process = holding(lock, "fork")
    process.kill()
    process.wait()
    with files.sole_writer(lock, "The node"):
        pass


def test_processes_of_one_launch_count_as_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holding(tmp_path / "lock")
    monkeypatch.setenv("RANK", "1")
    with files.sole_writer(tmp_path / "lock", "The node"):
        pass
    process.kill()
    process.communicate()


def test_a_lock_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "node.lock"
    with pytest.raises(WriteError, match="cannot be written"), files.sole_writer(path, "The node"):
        pass


def test_a_folder_with_leftovers_of_a_killed_start_is_unused(tmp_path: Path) -> None:
    for name in (".record.json.partial-0", ".checkpoints.partial-3.old", files.LOCK):
        (tmp_path / name).touch()
    assert files.is_unused(tmp_path) and files.is_unused(tmp_path / "absent")
    (tmp_path / "record.json").touch()
    assert files.is_unused(tmp_path, leftovers=["record.json"]) and not files.is_unused(tmp_path)
    assert not files.is_unused(tmp_path / "record.json")


def test_a_document_is_known_again_whatever_its_layout(tmp_path: Path) -> None:
    path, value = tmp_path / "record.json", {"b": [1, 2.5, None], "a": {"name": "ä"}}
    digests.write_document(path, value)
    assert digests.read_document(path) == value and digests.has_digest(path)
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), sort_keys=True))
    assert digests.read_document(path) == value
    path.write_text(path.read_text("utf-8").replace("2.5", "3.5"))
    with pytest.raises(DamagedFileError, match=re.escape(f"{path} is not what was written there")):
        digests.read_document(path)
    # As an earlier version wrote it.
    path.write_text('{"a": 1}')
    assert digests.read_document(path) == {"a": 1} and not digests.has_digest(path)


def test_yaml_is_known_again_by_its_first_line(tmp_path: Path) -> None:
    path, value = tmp_path / "recipe.yaml", {"name": "x", "rate": 1e-4, "more": [1, 2]}
    path.write_text(digests.yaml_with_digest(value))
    assert digests.read_yaml_document(path) == value == reading.read_yaml(path)
    path.write_text(path.read_text() + "# a remark\n")
    assert digests.read_yaml_document(path) == value
    whole = path.read_text()
    for damaged in (whole.replace("- 2", "- 3"), whole[: whole.index("more")]):
        path.write_text(damaged)
        with pytest.raises(DamagedFileError, match="SHA-256 differs"):
            digests.read_yaml_document(path)


def test_every_cut_and_every_flipped_bit_of_a_file_that_grows_is_noticed(tmp_path: Path) -> None:
    path, before = tmp_path / "log.jsonl", hashlib.sha256(b'{"old": 1}\n')
    events = [{"step": n, "text": "ä\ud800"} for n in range(3)]
    whole = b'{"old": 1}\n' + digests.with_digests(events, before)
    assert before.hexdigest() == hashlib.sha256(whole).hexdigest()
    lines = [*digests.checked_lines(whole, path)]
    # Half of a character cannot be written.
    written = [{"step": n, "text": "ä?"} for n in range(3)]
    assert [json.loads(line) for line in lines[:-1]] == [{"old": 1}, *written] and not lines[-1]
    for end in range(len(whole)):
        # A kill leaves whole lines and a torn one.
        kept = digests.checked_lines(whole[:end], path)
        assert kept[:-1] == lines[: len(kept) - 1]
    for place in range(len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        with pytest.raises(DamagedFileError, match=r"holds a line \d"):
            digests.checked_lines(bytes(damaged), path)


def test_the_files_of_a_folder_are_known_again(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    for name in ("model.safetensors", "adapter/config.json"):
        (tmp_path / name).write_bytes(b"0123")
    assert not digests.check_digests(tmp_path)
    digests.write_digests(tmp_path)
    (tmp_path / "beside.txt").touch()
    assert digests.check_digests(tmp_path)
    for name in ("model.safetensors", "adapter/config.json"):
        path = tmp_path / name
        for damage in (lambda p: p.write_bytes(b"0133"), Path.unlink, Path.mkdir):
            damage(path)
            with pytest.raises(DamagedFileError, match=re.escape(str(path))):
                digests.check_digests(tmp_path)
        path.rmdir()
        path.write_bytes(b"0123")
    assert digests.check_digests(tmp_path)


@pytest.mark.parametrize("name", ["/dev/zero", "../secret", "a/../../secret", "a\nb"])
def test_digests_name_files_of_their_folder_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    folder = tmp_path / "model"
    folder.mkdir()
    digests.write_document(
        folder / digests.DIGESTS, {"files": {name: hashlib.sha256(b"1").hexdigest()}}
    )
    with pytest.raises(DamagedFileError, match=r"digests\.json names .* (leaves|is not a name)"):
        digests.check_digests(folder)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device that never ends")
def test_what_never_ends_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    digests.write_digests(tmp_path)
    for what in ("/dev/zero", "pipe"):
        (tmp_path / "model.safetensors").unlink()
        if what == "pipe":
            os.mkfifo(tmp_path / "model.safetensors")
        else:
            (tmp_path / "model.safetensors").symlink_to(what)
        with pytest.raises(DamagedFileError, match=r"model\.safetensors cannot be read \(it is no"):
            digests.check_digests(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_append_that_does_not_fit_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    files.append(path, b"one\n")
    written = os.write

    def nearly_full(descriptor: int, content: bytes) -> int:
        if len(content) < 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(descriptor, content[:5])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(DiskFullError, match=re.escape(str(path))):
        files.append(path, b"two and three\n")
    assert path.read_bytes() == b"one\n"
    with pytest.raises(DiskFullError, match="/dev/full"):
        files.append(Path("/dev/full"), b"x" * 8)


def test_a_process_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    hold = "import sys, time; from pathlib import Path; from exgra_med.files import sole_writer\n"
    hold += "with sole_writer(Path(sys.argv[1]), 'x'): print('held', flush=True); time.sleep(0.5)"
    other = subprocess.Popen([sys.executable, "-c", hold, str(lock)], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    with files.sole_writer(lock, "The node", patience=60.0):
        other.wait(timeout=60)


def test_text_that_is_not_utf_8_is_a_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("old")
    with pytest.raises(WriteError, match=r"a\.html: cannot be written, .* is not UTF-8 \('a r"):
        files.write_text(path, "<h1>\na r\udce9n</h1>")
    assert path.read_text() == "old" and [path] == list(tmp_path.iterdir())
