"""What made a run: code, versions, machine. Read by the record of every run; imports no torch."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from exgra_med import __version__

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "numba", "pillow")


def now() -> str:
    """The time, in UTC, as ISO 8601 text."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_software() -> dict[str, Any]:
    """Code version, git commit where there is one, package versions, processor."""
    return {
        "exgra_med": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "num_cpus": os.cpu_count(),
    }


def git_commit() -> str | None:
    """Commit of the checkout that holds this package, `-dirty` added where files differ from it."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", __file__) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain") else commit


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
