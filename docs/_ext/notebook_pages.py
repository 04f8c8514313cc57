"""Notebooks as Markdown: cells as they are, and the outputs that are kept in the file."""

import base64
import json
from pathlib import Path


def notebook_page(path: Path, pictures: Path) -> str:
    """A notebook as a page.

    Args:
        path: of the `.ipynb` file.
        pictures: folder beside the page, where pictures among its outputs are written.
    """
    parts = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        shell = all(line.startswith("!") for line in text.splitlines())
        plain = "\n".join(line.removeprefix("!") for line in text.splitlines())
        parts.append(f"```{'sh' if shell else 'python'}\n{plain}\n```")
        for place, output in enumerate(cell["outputs"]):
            shown = output.get("data", {})
            if "image/png" in shown:
                name = f"{path.stem}-{number}-{place}.png"
                pictures.mkdir(parents=True, exist_ok=True)
                (pictures / name).write_bytes(base64.b64decode(shown["image/png"]))
                parts.append(f"![what the cell shows]({pictures.name}/{name})")
            elif words := "".join(output.get("text") or shown.get("text/plain") or ""):
                parts.append(f"```text\n{words.rstrip()}\n```")
    note = f"[This page as a notebook]({path.name}), to run and to change."
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n"
