"""The Python of the page runs from top to bottom, as a newcomer would copy it."""

import importlib.util
from pathlib import Path

import pytest
import torch
from blocks import PROJECT, blocks
from transformers import AutoModelForImageTextToText, AutoProcessor

from families import NEEDS_TORCHVISION, make

PAGE = PROJECT / "docs" / "how-to" / "align-any-model.md"
NAME = "Qwen/Qwen2.5-VL-3B-Instruct"


SLOW = [pytest.param(each, marks=pytest.mark.slow) for each in ("llava", "internvl")]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", *SLOW])
def test_the_blocks_run_one_after_the_other(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    if family in NEEDS_TORCHVISION:
        pytest.importorskip("torchvision")
    for part in make(family):
        part.save_pretrained(tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PROJECT / "examples")
    torch.manual_seed(0)
    python = [block for block in blocks(PAGE) if block.language == "python"]
    assert [block.needs for block in python] == ["", "", "", "", "trl"]
    names: dict = {}
    for block in python:
        if block.needs and not importlib.util.find_spec(block.needs):
            continue
        code = compile("\n" * block.line + block.text, block.page, "exec")
        exec(code, names)
        if "generator=generator" in block.text:
            loop = capsys.readouterr().out
            assert loop.count("alignment") == 2, "a line of each batch"
        if "save" in block.text:
            _, report = AutoModelForImageTextToText.from_pretrained(
                "aligned", output_loading_info=True
            )
            assert not report["unexpected_keys"] and not report["missing_keys"]
        if "trainer" in names:
            assert any("alignment_loss" in row for row in names["trainer"].state.log_history)
    if family == "internvl":
        pixels = names["collate"](names["rows"])["pixel_values"]
        assert len(pixels) > sum(len(row["images"]) for row in names["rows"]), "tiles"
    assert type(AutoProcessor.from_pretrained("aligned")) is type(names["processor"])
