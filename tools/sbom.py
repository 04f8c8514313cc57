"""List what an installation consists of, as CycloneDX: `make sbom`. Needs cyclonedx-bom.

    PYTHONPATH=src python tools/sbom.py exgra-med.sbom.json

The list is `requirements/run.txt` without what only builds the package, and its component has the
version, which pyproject.toml takes from the code.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exgra_med import __version__

PROJECT = Path(__file__).resolve().parents[1]
EXTRA = "report"
"""The extra that the pinned set has, see `make pins`."""


def pyproject_with_version() -> str:
    """pyproject.toml as it would be with the version written into it."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    return text.replace('dynamic = ["version"]', f'version = "{__version__}"')


def pins_to_run() -> list[str]:
    """Lines of the pinned set, without what no installed package needs."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = closure(project["dependencies"] + project["optional-dependencies"][EXTRA])
    building = _lines("build.in")
    only_built_with = closure(building) - needed
    lines = [line for line in _lines("run.txt") if "==" in line]
    return [line for line in lines if _name(line) not in only_built_with]


def closure(roots: Iterable[str]) -> set[str]:
    """Names of packages that requirements lead to, as far as they are installed here."""
    found: set[str] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        each = waiting.pop()
        name = canonicalize_name(each.name)
        if name in found:
            continue
        found.add(name)
        try:
            further = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        extras = each.extras or {""}
        waiting += [
            one
            for one in further
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return found


def _lines(name: str) -> list[str]:
    text = (PROJECT / "requirements" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _name(line: str) -> str:
    return canonicalize_name(re.split(r"[=\[]", line)[0])


def main(out: str) -> None:
    """Write the list."""
    with tempfile.TemporaryDirectory() as folder:
        pyproject, pins = Path(folder) / "pyproject.toml", Path(folder) / "run.txt"
        pyproject.write_text(pyproject_with_version(), encoding="utf-8")
        pins.write_text("\n".join(pins_to_run()) + "\n", encoding="utf-8")
        # It warns that a flat list of pins has no dependency graph, which is no news.
        command = [sys.executable, "-W", "ignore::UserWarning", "-m", "cyclonedx_py"]
        command += ["requirements", "--of", "JSON"]
        command += ["--pyproject", str(pyproject), "--output-reproducible", "-o", out, str(pins)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1])
