"""The site is built in silence, and a stranger is told how to install the package."""

import logging
import re
import runpy
import sys

import pytest
from blocks import PROJECT


def test_the_site_quiets_the_loggers_that_the_command_line_quiets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command_line = (PROJECT / "src/exgra_med/cli/main.py").read_text(encoding="utf-8")
    (names,) = re.findall(r"for name in \((.+?)\):\n\s+logging.getLogger", command_line)
    quiet = re.findall(r'"([\w.]+)"', names)
    assert quiet
    for name in quiet:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(PROJECT / "docs" / "conf.py"))
    assert all(logging.getLogger(name).level == logging.ERROR for name in quiet)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_both_front_pages_say_how_to_install_the_library(page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Install\n(.+?)^## ", text, re.MULTILINE | re.DOTALL)
    for needed in ("pip install", "CPU build of torch first", "1.5 GB", "6 GB", "wheel"):
        assert needed in section, needed
    assert "numba at its first call" in " ".join(text.split())
