"""Which runs and studies the page may open: those under the folders its operator named, no others.

A visitor chooses by name from this list and never names a path.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_DEPTH = 6
_MOST = 1000
_NO_RUNS_INSIDE = {"checkpoints", "predictions", "images", "node_modules", "data"}


@dataclass(frozen=True, slots=True)
class Place:
    """A run or study folder."""

    name: str
    path: Path
    kind: Literal["run", "study"]


def find_places(roots: Sequence[Path]) -> dict[str, Place]:
    """Runs and studies in or under some folders, by name; links are not followed.

    Args:
        roots: folders, each a run, a study, or one that holds them.
    """
    found: dict[str, Place] = {}
    for root in roots:
        root = root.resolve()
        for path, kind in _walk(root, _DEPTH):
            name = path.relative_to(root.parent).as_posix()
            found.setdefault(name, Place(name, path, kind))
            if len(found) == _MOST:
                return found
    return found


def runs_below(study: Path) -> list[Path]:
    """Runs of a study, in the order of their names."""
    return [path for path, kind in _walk(study, _DEPTH) if kind == "run"]


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, Literal["run", "study"]]]:
    if not folder.is_dir():
        return
    if (folder / "study.yaml").is_file():
        yield folder, "study"
    if (folder / "recipe.yaml").is_file() and (folder / "record.json").is_file():
        yield folder, "run"
        return
    if depth == 0:
        return
    for inside in sorted(folder.iterdir()):
        hidden = inside.name.startswith(".") or inside.name in _NO_RUNS_INSIDE
        if inside.is_dir() and not inside.is_symlink() and not hidden:
            yield from _walk(inside, depth - 1)
