"""Run the documentation's notebooks and keep their outputs in them (`make notebooks`).

    python tools/run_notebooks.py [NAME ...]

Stand-ins take the place of what would be fetched: a tiny model of random weights for a model of
the hub, and the toy of `exgra-med demo --toy` for `small`. The notebooks say so.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = PROJECT / "docs" / "notebooks"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
sys.path[:0] = [str(PROJECT / "tests"), str(PROJECT / "src")]

from exgra_med.cli.main import app  # noqa: E402
from families import make  # noqa: E402


def run(path: Path, folder: Path, changes: dict[str, str]) -> None:
    """Run one notebook inside a folder and write its outputs into it.

    Args:
        path: of the notebook.
        folder: where its cells run.
        changes: what is put in the place of a text of its first code cell, for this run alone.
    """
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    written = first.source
    for old, new in changes.items():
        first.source = first.source.replace(old, new)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=1800, resources=place).execute()
    first.source = written
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [each for each in _joined(cell.outputs) if each.get("text", "-")]
            for output in cell.outputs:
                if "text" in output:
                    output.text = output.text.replace(str(folder), ".")
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


def _joined(outputs: list) -> list:
    """What was printed as one text, as a terminal shows it at the end; no warnings, which name
    files of this machine, and one form of each picture."""
    kept: list = []
    for output in outputs:
        for other in ("image/jpeg", "text/html"):
            output.get("data", {}).pop(other, None)
        if output.output_type != "stream":
            kept.append(output)
        elif output.name == "stdout":
            if not kept or kept[-1].output_type != "stream":
                kept.append(output)
            else:
                kept[-1].text += output.text
    for output in kept:
        if output.output_type == "stream":
            lines = _CONTROL.sub("", output.text.replace("\r\n", "\n")).split("\n")
            output.text = "\n".join(line.rpartition("\r")[2].rstrip() for line in lines)
    return kept


def main() -> None:
    """All notebooks, each in a folder of its own."""
    os.environ["PYTHONPATH"] = str(PROJECT / "src")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["COLUMNS"] = "90"
    with tempfile.TemporaryDirectory() as scratch:
        toy = Path(scratch) / "toy"
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            if sys.argv[1:] and path.stem not in sys.argv[1:]:
                continue
            folder = Path(scratch) / path.stem
            folder.mkdir()
            for part in make("llava"):
                part.save_pretrained(folder / "llava-hf" / "llava-interleave-qwen-0.5b-hf")
            if r"\"small\"" in path.read_text(encoding="utf-8") and not toy.exists():
                app(["demo", "--toy", "--out", str(toy)], standalone_mode=False)
            run(path, folder, {'"small"': repr(str(toy))})
            print(f"{path.name}: done")


if __name__ == "__main__":
    main()
