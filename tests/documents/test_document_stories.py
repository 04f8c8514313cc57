"""The pages' commands, executed in order in an empty folder as a newcomer would, without a network.

Training is cut short: two steps a stage, with the model of `debug/tiny`. What a command prints and
how good a model gets is not looked at; that each command of a page works on what the ones before it
left is.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import PROJECT, blocks, words_of
from stories import STORIES

pytestmark = pytest.mark.slow

SHORT = (
    "model.architecture.vision.hidden_size=32", "model.architecture.vision.intermediate_size=64",
    "model.architecture.vision.image_size=56", "model.architecture.language.hidden_size=48",
    "model.architecture.language.intermediate_size=96", "model.architecture.language.num_layers=2",
    "model.architecture.tokenizer.vocabulary_size=400", "evaluation.max_new_tokens=8",
    "evaluation.num_bootstrap_samples=200",
)  # fmt: skip
STAGES = ("connector", "aligned", "vqa")


def environment(home: Path) -> dict[str, str]:
    """A home of its own, and `exgra-med` on the path as an install would put it."""
    programs = home.parent / "programs"
    programs.mkdir(exist_ok=True)
    script = programs / "exgra-med"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m exgra_med "$@"\n')
    script.chmod(0o755)
    python = programs / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
    return os.environ | {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        # So the demo takes the toy, whose settings are shortened below.
        "PIP_NO_INDEX": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT / "src"),
        "XDG_CACHE_HOME": str(home.parent / "cache"),
    }


def shortened(command: str) -> str:
    """The command, with less training."""
    words = words_of(command) or [""]
    if words[0] not in ("train", "demo") or "--dry-run" in words:
        return command
    changes = list(SHORT)
    left_out = {word.split(".")[1].split("=")[0] for word in words if word.endswith("=null")}
    if words[0] == "demo" or words[1] in ("demo", "debug/tiny"):
        changes += [f"stages.{name}.max_steps=2" for name in STAGES if name not in left_out]
    return f"{command} {' '.join(f'--set {change}' for change in changes)}"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    home = tmp_path_factory.mktemp("tiny") / "home"
    home.mkdir()
    for command in (
        "exgra-med train debug/tiny --out run",
        "exgra-med evaluate vqa run",
    ):
        run(shortened(command), home)
    return home / "run"


def run(command: str, home: Path) -> None:
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    # A model of two steps may say nothing that can be used, and is told so.
    if done.returncode == 1 and "Not one answer can be used" in done.stderr:
        return
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", STORIES)
def test_a_page_can_be_followed(page: str, tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for prepare in STORIES[page]:
        prepare(home, tiny)
    for block in blocks(PROJECT / page):
        for command in block.commands if not block.needs else ():
            if not command.startswith((". ", "export ")):
                run(shortened(command), home)
