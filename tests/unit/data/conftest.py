"""Small folders in published layouts, and a disk that is full."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from misbehaving_server import Server
from PIL import Image


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flush to disk fails as on a full one."""

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def _row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "qid": number,
        "phrase_type": "freeform",
        "image_name": f"synpic{number % 4}.jpg",
        "image_organ": "HEAD",
        "evaluation": "evaluated",
        "question": f"Is there a mass number {number}?",
        "question_rephrase": "NULL",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
    }
    return row | changes


@pytest.fixture
def rad(tmp_path: Path) -> Path:
    """A made-up VQA-RAD folder: 8 training and 4 test rows over 4 images."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        image = Image.new("RGB", (20 + number, 16), (number * 50, 80, 120))
        image.save(folder / "images" / f"synpic{number}.jpg")
    rows = [_row(n) for n in range(8)]
    rows += [
        _row(n, phrase_type="test_freeform", image_name=f"synpic{n % 2}.jpg") for n in range(8, 12)
    ]
    _write(folder, rows)
    return folder


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows), encoding="utf-8")


@pytest.fixture
def rad_row() -> Callable[..., dict[str, Any]]:
    """Makes a row: its number, and fields that differ."""
    return _row


@pytest.fixture
def write_rad(rad: Path) -> Callable[[list[dict[str, Any]]], None]:
    """Replaces the rows of the `rad` folder."""
    return lambda rows: _write(rad, rows)


@pytest.fixture
def change_rad(rad: Path) -> Callable[..., None]:
    """Changes fields of one row of the `rad` folder."""

    def change(number: int, **changes: Any) -> None:
        path = rad / "VQA_RAD Dataset Public.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        rows[number] |= changes
        _write(rad, rows)

    return change


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on this machine that misbehaves as told."""
    server = Server()
    yield server
    server.stop()
