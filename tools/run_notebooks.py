"""Run the documentation's notebooks and keep their outputs in them (`make notebooks`).

Stand-ins take the place of what would be fetched: a tiny model of random weights for a model of
the hub, and the toy of `exgra-med demo --toy` for `small`. The notebooks say so.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = PROJECT / "docs" / "notebooks"
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
        for output in cell.get("outputs", []):
            # Warnings name files of this machine.
            if output.get("name") == "stderr":
                output.text = ""
            if "text" in output:
                output.text = output.text.replace(str(folder), ".")
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("text", "-")]
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


def main() -> None:
    """All notebooks, each in a folder of its own."""
    os.environ["PYTHONPATH"] = str(PROJECT / "src")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["COLUMNS"] = "90"
    with tempfile.TemporaryDirectory() as scratch:
        toy = Path(scratch) / "toy"
        app(["demo", "--toy", "--out", str(toy)], standalone_mode=False)
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            folder = Path(scratch) / path.stem
            folder.mkdir()
            for part in make("llava"):
                part.save_pretrained(folder / "llava-hf" / "llava-interleave-qwen-0.5b-hf")
            run(path, folder, {'"small"': repr(str(toy))})
            print(f"{path.name}: done")


if __name__ == "__main__":
    main()
