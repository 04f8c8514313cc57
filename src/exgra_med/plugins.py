"""What other packages may add by entry point: data sets, measures, solvers and engines.

A package says in its `pyproject.toml`, for example,

    [project.entry-points."exgra_med.solvers"]
    mine = "my_package.solver:solve"

and the name `mine` works wherever a name of this project does. Nothing of a plug-in is imported
before its name is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from exgra_med.errors import ExgraMedError


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

    def names(self) -> list[str]:
        """Every known name: our own in their order, then those of other packages."""
        return list(dict.fromkeys([*self.own, *sorted(self._others())]))

    def find(self, name: str) -> Any:
        """The object of a name.

        Raises:
            ExgraMedError: no such name, two packages that claim it, or a plug-in that cannot be
                imported; of the class `error`.
        """
        others = self._others().get(name, [])
        if name in self.own and not others:
            module, _, attribute = self.own[name].partition(":")
            return getattr(import_module(module), attribute)
        if len(others) + (name in self.own) > 1:
            packages = sorted({_package(each) for each in others})
            raise self.error(
                f"The {self.kind} {name!r} is claimed by more than one package: "
                f"{', '.join([*(['exgra-med'] if name in self.own else []), *packages])}.",
                "Uninstall one of them, or let it take another name.",
            )
        if not others:
            raise self.error(
                f"There is no {self.kind} {name!r}.", f"Known: {', '.join(self.names())}."
            )
        try:
            return others[0].load()
        except Exception as error:
            # Whatever foreign code raises while it is imported, the user can only mend it there.
            raise self.error(
                f"The {self.kind} {name!r} of the package {_package(others[0])} cannot be loaded: "
                f"{type(error).__name__}: {error}.",
                "Mend or uninstall that package.",
            ) from error

    def _others(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for each in entry_points(group=self.group):
            # The same installation can be found twice, as by an editable install and a path.
            if all(each.value != known.value for known in found.get(each.name, [])):
                found.setdefault(each.name, []).append(each)
        return found


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]
