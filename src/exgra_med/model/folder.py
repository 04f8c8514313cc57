"""Checkpoint folders: replaced as a whole, and recognised by their `config.json` before loading."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exgra_med.errors import CheckpointError
from exgra_med.files import expand_home, new_folder, write_text
from exgra_med.model.published import VISION, published_checkpoint
from exgra_med.recipe.run_folder import last_checkpoint_of

CONFIG = "config.json"


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` when everything is written.

    Raises:
        CheckpointError: `folder` holds something that is not a checkpoint.
        DiskFullError: nothing more fits; what was there before is still there.
    """
    if folder.exists() and not (folder / CONFIG).is_file() and any(folder.iterdir()):
        raise CheckpointError(
            f"{folder} has files in it, but is no checkpoint.", "Choose another folder."
        )
    with new_folder(folder) as fresh:
        yield fresh


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = "Name a checkpoint folder, or a finished run." if path.name == CONFIG else ""
        raise CheckpointError(f"{path.parent} has no {path.name}.", hint) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def is_original_layout(config: dict[str, Any]) -> bool:
    """Whether a `config.json` is the original's, which stock transformers silently misreads."""
    return "text_config" not in config and str(config.get("model_type", "")).startswith("llava")


def local_folder(source: str | Path) -> Path:
    """The folder of a checkpoint; of a run it is its last one, and a hub name is downloaded.

    Raises:
        CheckpointError: there is no such folder, or the hub does not have it.
        RunError: the run has not finished.
    """
    path = expand_home(source)
    if path.is_dir():
        return last_checkpoint_of(path)
    if path.exists():
        raise CheckpointError(f"{source} is a file; a checkpoint is a folder.")
    published = published_checkpoint(str(source))
    if published is not None:
        raise CheckpointError(
            f"{published.hub_name} is published in the original's layout.",
            f"Convert it first: exgra-med checkpoint import {published.name} --vision {VISION} "
            f"--out checkpoints/{published.name}",
        )
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise CheckpointError(f"There is no folder {source}.")
    from exgra_med.model.hub import download_checkpoint

    return download_checkpoint(str(source))
