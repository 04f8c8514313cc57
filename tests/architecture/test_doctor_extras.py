"""`exgra-med doctor` looks for every extra that a user can install."""

import tomllib
from pathlib import Path

from exgra_med.cli.doctor import EXTRAS

PROJECT = Path(__file__).resolve().parents[2]
OF_DEVELOPERS = {"dev", "docs", "oracle", "release"}


def test_all_extras_of_users_are_looked_for() -> None:
    with (PROJECT / "pyproject.toml").open("rb") as stream:
        extras = tomllib.load(stream)["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - OF_DEVELOPERS
