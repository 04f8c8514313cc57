"""What every test gets: no network, fixed seeds, and a skip where shared data is absent."""

import atexit
import os
import random
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# No test asserts a time: on a busy machine any example may take long.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# What is measured of models is kept in the user's cache, which no test may fill.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="exgra-med-cache-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only connections to this machine pass."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if self.family in (socket.AF_INET, socket.AF_INET6) and host not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise RuntimeError(f"a test tried to reach {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with complete data sets beside the checkout."""
    folder = Path(os.environ.get("EXGRA_MED_SHARED", SHARED))
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside the checkout")
    return folder
