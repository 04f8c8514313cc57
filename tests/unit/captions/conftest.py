import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def records(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of so many records, each with so many turns."""

    def write(number: int, turns: int = 1, name: str = "in.jsonl") -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8") as stream:
            for row in range(number):
                talk = []
                for turn in range(turns):
                    talk.append({"role": "user", "text": f"What is at {row}.{turn}?"})
                    talk.append({"role": "assistant", "text": f"A lesion of {row} mm, β {turn}"})
                item = {"id": f"r/{row}", "image": f"{row}.png", "turns": talk}
                stream.write(json.dumps(item, ensure_ascii=False) + "\n")
        return path

    return write


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys and caches of the person who runs the tests stay out of them."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENROUTER_API_KEY", "OPENROUTER_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
