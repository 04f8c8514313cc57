"""What a study can make before its first run: data, and trained parts of the model."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from exgra_med.errors import RecipeError


def make_data(source: str, folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a prepared folder.

    Raises:
        RecipeError: no maker has that name.
        DataError: it refuses the settings.
    """
    _maker(DATA_MAKERS, source, "make.data.source")(folder, dict(settings))


def make_part(name: str, folder: Path, data: Path, settings: Mapping[str, Any]) -> None:
    """Make a trained part of a model.

    Raises:
        RecipeError: no maker has that name.
        ExgraMedError: it refuses the settings, or its training failed.
    """
    _maker(PART_MAKERS, name, "make.parts")(folder, data, dict(settings))


def _phantom(folder: Path, settings: dict[str, Any]) -> None:
    module = import_module("exgra_med.data.phantom.make")
    texts = {name: str(value) for name, value in settings.items() if name != "seed"}
    module.make_phantom(folder, module.parse_settings(int(settings.get("seed", 0)), texts))


def _maker(known: Mapping[str, Callable[..., None]], name: str, where: str) -> Callable[..., None]:
    if name not in known:
        raise RecipeError(
            f"{where}: there is no maker {name!r}.", f"Known: {', '.join(known) or 'none'}."
        )
    return known[name]


DATA_MAKERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {"phantom": _phantom}
"""Name -> function of a folder and settings; the folder appears whole or not at all."""
PART_MAKERS: dict[str, Callable[[Path, Path, dict[str, Any]], None]] = {}
"""Name -> function of a folder, the study's prepared data and settings; likewise."""
