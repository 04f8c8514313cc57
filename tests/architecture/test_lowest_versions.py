"""`requirements/lowest.txt` pins exactly the lowest versions that pyproject.toml allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[2]


def test_the_lowest_versions_are_those_of_the_package() -> None:
    with (PROJECT / "pyproject.toml").open("rb") as stream:
        needed = [Requirement(each) for each in tomllib.load(stream)["project"]["dependencies"]]
    lowest = {
        each.name: next(part.version for part in each.specifier if part.operator == ">=")
        for each in needed
    }
    lines = (PROJECT / "requirements" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned == lowest
