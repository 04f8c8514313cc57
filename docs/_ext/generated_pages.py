"""Sphinx extension: writes the pages that come from the code, before a build reads them.

They lie in `docs/generated/`, which is not in version control: what is generated cannot go stale.
Pages written by hand include them; the pages of the commands, one a verb, are pages of their own in
`docs/reference/commands/`, and each notebook has its page beside it.
"""

from pathlib import Path
from typing import Any

from architecture_picture import architecture_svg, imported_folders
from benchmark_pages import benchmark_page
from command_page import command_pages, command_table
from model_page import model_page
from notebook_pages import notebook_page
from peers_page import peers_page
from picture_page import picture_page
from protocol_page import protocol_page
from recipe_page import recipe_page
from result_pages import result_page

import exgra_med
from exgra_med.files import write_text

SOURCE = Path(exgra_med.__file__).parent


def generate(docs: Path, results: Path) -> list[Path]:
    """Write every generated page.

    Args:
        docs: the folder of the documentation.
        results: the committed benchmark results, `benchmarks/results`.

    Returns:
        What was written.
    """
    pages = {
        "commands.md": command_table(),
        "pictures.md": picture_page(),
        "protocols.md": protocol_page(),
        "recipe.md": recipe_page(),
        "architecture.svg": architecture_svg(imported_folders(SOURCE)),
        "benchmarks.md": benchmark_page(results),
        "models.md": model_page(results),
        "peers.md": peers_page(results),
        "results.md": result_page(results),
    }
    texts = {docs / "generated" / name: text for name, text in pages.items()}
    texts |= {
        docs / "reference" / "commands" / f"{verb}.md": text
        for verb, text in command_pages().items()
    }
    texts |= {
        path.with_suffix(".md"): notebook_page(path, path.parent / "pictures")
        for path in sorted((docs / "notebooks").glob("*.ipynb"))
    }
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        # A page that did not change keeps its time, so that Sphinx need not read it again.
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    return list(texts)


def _before_reading(app: Any) -> None:
    docs = Path(app.srcdir)
    generate(docs, docs.parent / "benchmarks" / "results")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", _before_reading)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
