"""The Python of the page runs from top to bottom, as a newcomer would copy it."""

from pathlib import Path

import pytest
import torch
from blocks import PROJECT, blocks
from transformers import LlavaForConditionalGeneration

PAGE = PROJECT / "docs" / "how-to" / "align-any-model.md"


def test_the_blocks_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PROJECT / "examples")
    torch.manual_seed(0)
    python = [block for block in blocks(PAGE) if block.language == "python"]
    names: dict = {}
    for block in python:
        code = compile("\n" * block.line + block.text, block.page, "exec")
        exec(code, names)
        if "save_pretrained" in block.text:
            loop = capsys.readouterr().out
            assert loop.count("alignment") == 2, "a line of each batch"
    assert len(python) == 5
    assert names["nodes"].shape == (2, 32)
    assert any("alignment_loss" in row for row in names["trainer"].state.log_history)
    _, report = LlavaForConditionalGeneration.from_pretrained("aligned", output_loading_info=True)
    assert not report["unexpected_keys"] and not report["missing_keys"]
