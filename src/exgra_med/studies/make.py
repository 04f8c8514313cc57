"""What a study can make before its first run: data, and trained parts of the model."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from exgra_med.data.phantom.make import make_phantom, parse_settings
from exgra_med.errors import RecipeError
from exgra_med.progress import Reporter


def make_data(source: str, folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a prepared folder.

    Raises:
        RecipeError: no maker has that name.
        DataError: it refuses the settings.
    """
    if source not in DATA_MAKERS:
        raise RecipeError(
            f"make.data.source: there is no maker {source!r}.", f"Known: {', '.join(DATA_MAKERS)}."
        )
    DATA_MAKERS[source](folder, dict(settings))


def make_parts(folder: Path, data: str, settings: dict[str, Any], reporter: Reporter) -> None:
    """Make `language/` and `vision/`, or go on with them.

    Args:
        folder: where they go.
        data: a prepared folder.
        settings: what the base models are made of.
        reporter: told how far it is.

    Raises:
        RecipeError: the settings are none.
        ExgraMedError: the data does not suit, or training failed.
    """
    checked = import_module("exgra_med.recipe.parts").check_parts(settings, "make.parts")
    import_module("exgra_med.training.base_parts").make_parts(checked, data, folder, reporter)


def _phantom(folder: Path, settings: dict[str, Any]) -> None:
    texts = {name: str(value) for name, value in settings.items() if name != "seed"}
    make_phantom(folder, parse_settings(int(settings.get("seed", 0)), texts))


DATA_MAKERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {"phantom": _phantom}
"""Name -> function of a folder and settings; the folder appears whole or not at all."""
