"""What installed packages add: things of ours and theirs under one name, and optional modules.

A package says in its `pyproject.toml`, for example,

    [project.entry-points."exgra_med.solvers"]
    mine = "my_package.solver:solve"

and the name `mine` works wherever a name of this project does (`examples/plugin` is such a
package). Nothing of a plug-in is imported before its name is asked for.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from exgra_med.errors import ExgraMedError, MissingExtraError


@dataclass(frozen=True)
class Registry:
    """Things of one kind by name: our own, and those of installed packages."""

    kind: str
    """What one of them is, for messages: `solver`."""
    group: str
    """The entry point group: `exgra_med.solvers`."""
    own: Mapping[str, str]
    """Name -> `module:object` of this project."""
    error: type[ExgraMedError]
    """What an unknown name raises."""
    expected: type = object
    """The class that each of them is an instance of."""

    def names(self) -> list[str]:
        """Every known name: our own in their order, then those of other packages."""
        return list(dict.fromkeys([*self.own, *sorted(_plugins(self.group, tuple(sys.path)))]))

    def find(self, name: str) -> Any:
        """The object of a name.

        Raises:
            ExgraMedError: no such name, two packages that claim it, or a plug-in that cannot be
                imported or is something else; of the class `error`.
        """
        plugins = _plugins(self.group, tuple(sys.path)).get(name, [])
        if len(plugins) + (name in self.own) > 1:
            owners = ["exgra-med"] if name in self.own else []
            owners += [_package(each) for each in plugins]
            raise self.error(
                f"The {self.kind} {name!r} is claimed more than once: by {', '.join(owners)}.",
                "Uninstall one of them, or let it take another name.",
            )
        if name in self.own:
            module, _, attribute = self.own[name].partition(":")
            return getattr(import_module(module), attribute)
        if not plugins:
            raise self.error(
                f"There is no {self.kind} {name!r}.", f"Known: {', '.join(self.names())}."
            )
        where = f"The {self.kind} {name!r} of the package {_package(plugins[0])}"
        try:
            found = plugins[0].load()
        except Exception as error:
            # Whatever a plug-in raises while it is imported, the user can only mend it there.
            raise self.error(
                f"{where} cannot be loaded: {type(error).__name__}: {error}.",
                "Mend or uninstall that package.",
            ) from error
        if not isinstance(found, self.expected):
            raise self.error(
                f"{where} is not a {self.expected.__name__} but a {type(found).__name__}.",
                f"Mend its entry point in the group {self.group}.",
            )
        return found


@cache
def _plugins(group: str, path: tuple[str, ...]) -> dict[str, list[EntryPoint]]:
    """Name -> who claims it. Reading every installed package takes 10 ms, so it is done once."""
    # Of a package that is found twice on the path, importlib takes the first alone.
    found: dict[str, list[EntryPoint]] = {}
    for each in entry_points(group=group):
        found.setdefault(each.name, []).append(each)
    return found


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]


def import_extra(module: str, feature: str, extra: str) -> Any:
    """A module that an extra installs; the one way in which the core reaches for it.

    Raises:
        MissingExtraError: it is not installed; the sentence begins with the feature that needs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(feature, extra) from error
