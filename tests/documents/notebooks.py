"""The cells of a notebook, run one after the other without Jupyter."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import exgra_med

SOURCE = Path(exgra_med.__file__).parents[1]


def cells(path: Path, kind: str) -> list[str]:
    """The text of each cell of a kind, `code` or `markdown`."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(each["source"]) for each in found if each["cell_type"] == kind]


def run_cells(path: Path, changes: dict[str, str]) -> dict[str, Any]:
    """Run the code in this process and in the present folder; the names that it leaves.

    Args:
        path: of the notebook.
        changes: what is put in the place of a text of its first cell, such as a model's name.
    """
    names: dict[str, Any] = {"_run": _run}
    for number, text in enumerate(cells(path, "code")):
        if number == 0:
            for old, new in changes.items():
                assert old in text
                text = text.replace(old, new)
        plain = "\n".join(_as_python(line) for line in text.splitlines())
        exec(compile(plain, f"{path.name}, cell {number}", "exec"), names)
    return names


def _as_python(line: str) -> str:
    """A line for the shell, `!exgra-med ...`, as a call."""
    return f"_run(f{line[1:]!r})" if line.startswith("!") else line


def _run(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "exgra-med"
    done = subprocess.run(
        [sys.executable, "-m", "exgra_med", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
