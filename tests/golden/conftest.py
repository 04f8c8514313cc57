"""Where golden data lies: a subset in the tests, all of it beside the checkout."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent / "data"
