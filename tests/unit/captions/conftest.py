import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from exgra_med.data.prepare import prepare


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


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., str]:
    """Prepares a folder of (split, image, question, answer), an image for each name."""

    def make(name: str, rows: list[tuple[str, str, str, str]]) -> str:
        source = tmp_path / f"{name}-source"
        for number, (split, image, question, answer) in enumerate(rows):
            (source / "images").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (len(image), ord(image[0]), 0)).save(
                source / "images" / f"{image}.png"
            )
            turns = [{"role": "user", "text": question}, {"role": "assistant", "text": answer}]
            record = {"id": f"{split}/{number}", "image": f"{image}.png", "turns": turns}
            with (source / f"{split}.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
        prepare("custom", source, tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys and caches of the person who runs the tests stay out of them."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENROUTER_API_KEY", "OPENROUTER_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
