"""What the operating system refuses is one sentence and the documented exit code."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from exgra_med import files
from exgra_med.cli import main
from exgra_med.errors import RunError


def ended(monkeypatch: pytest.MonkeyPatch, error: Exception) -> int:
    """The exit code of a command in which an error comes up."""

    def failing() -> None:
        raise error

    monkeypatch.setattr(main, "app", failing)
    with pytest.raises(SystemExit) as caught:
        main.run()
    return int(caught.value.code or 0)


FULL = "No space left on device"


class SafetensorError(Exception):
    """As a library that is written in Rust has it."""


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (OSError(errno.ENOSPC, FULL), 1, "Something cannot be written, the disk is full"),
        (OSError(errno.EDQUOT, "Quota", "/x/y"), 1, "/x/y cannot be written, the disk is full"),
        (SafetensorError("I/O error: full (os error 28)"), 1, "the disk is full"),
        (OSError(errno.EIO, "Input/output error"), 1, "refused something (Input/output error)"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x: Permission denied."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), 2, "/x: Is a directory."),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), 2, "/x: No such file."),
    ],
)
def test_an_error_of_the_system_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    sentence: str,
) -> None:
    assert ended(monkeypatch, error) == code
    assert sentence in capsys.readouterr().err


def test_an_error_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        ended(monkeypatch, ZeroDivisionError())


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
def test_a_working_folder_that_is_gone_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path.cwd()
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        monkeypatch.setattr(sys, "argv", ["exgra-med", "recipe", "list"])
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert caught.value.code == 2
        assert "The folder that this command was started in is gone." in capsys.readouterr().err
        found = files.system_error_in_words(FileNotFoundError(errno.ENOENT, "No such file"))
        assert found is not None and "is gone" in found.message
    finally:
        os.chdir(here)


@pytest.mark.parametrize("words", [["evaluate", "report"], ["train", "debug/tiny", "--out"]])
def test_a_name_that_is_not_utf_8_is_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    named = str(tmp_path / os.fsdecode(b"r\xe9n"))
    monkeypatch.setattr(sys, "argv", ["exgra-med", *words, named])
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert r"r\xe9n' is not UTF-8 text. Give the file or folder another name." in " ".join(
        said.split()
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_working_folder_that_is_not_utf_8_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / os.fsdecode(b"r\xe9n")
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", ["exgra-med", "recipe", "list"])
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert caught.value.code == 2 and "is not UTF-8 text" in capsys.readouterr().err


def test_torchrun_gets_the_sentence_for_its_own_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the report ends with the address of a page about tracebacks."""
    report = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
    assert ended(monkeypatch, RunError("It is taken.", "Take another.")) == 2
    message = json.loads(report.read_text())["message"]
    assert (
        message["message"] == message["extraInfo"]["py_callstack"] == "It is taken. Take another."
    )
    assert message["extraInfo"]["timestamp"].isdigit()
