"""The worked source of docs/how-to/add-a-dataset.md is one: it prepares the rows that it shows."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from blocks import PROJECT, blocks
from PIL import Image

from exgra_med.data.prepare import prepare
from exgra_med.data.sources import SOURCES
from exgra_med.errors import DataError

PAGE = {block.language: block.text for block in blocks(PROJECT / "docs/how-to/add-a-dataset.md")}


@pytest.fixture
def wrist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's module, registered, and a folder in the layout that it reads."""
    module = ModuleType("worked_source")
    exec(PAGE["python"], vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(SOURCES.own, "wrist", f"{module.__name__}:SOURCE")
    folder = tmp_path / "wrist"
    (folder / "images").mkdir(parents=True)
    for number in range(1, 4):
        Image.new("RGB", (20, 10 + number)).save(folder / "images" / f"{number}.png")
    row = json.loads(PAGE["json"])
    write(folder, row, row | {"img": "2.png", "subset": "train"}, row | {"img": "3.png", "a": " "})
    return folder


def write(folder: Path, *rows: dict[str, str]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")


def test_the_worked_source_prepares_its_rows(wrist: Path, tmp_path: Path) -> None:
    prepared = prepare("wrist", wrist, tmp_path / "out")
    assert prepared.manifest["counts"] == {"train": 1, "validation": 1, "test": 0}
    (record,) = prepared.records("validation")
    assert (record.question, record.answer) == ("Is there a fracture?", "no")
    assert "empty answer" in json.dumps(prepared.manifest)


def test_its_error_names_the_field_that_the_file_lacks(wrist: Path, tmp_path: Path) -> None:
    row = json.loads(PAGE["json"])
    del row["q"]
    write(wrist, row)
    with pytest.raises(DataError, match=r"questions.jsonl:1: the field 'q' is missing"):
        prepare("wrist", wrist, tmp_path / "out")
