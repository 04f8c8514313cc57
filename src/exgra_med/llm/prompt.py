"""Prompts as files with a version: `prompts/NAME.md`, a header between `---` lines, then text."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

_FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True)
class Prompt:
    """A prompt of the package.

    Args:
        name: the file's name without ending.
        version: raised whenever the text changes, since answers change with it.
        text: what the model reads.
    """

    name: str
    version: int
    text: str

    @property
    def label(self) -> str:
        """Name, version and the start of the text's hash: what a record says about its origin."""
        digest = hashlib.sha256(self.text.encode("utf-8")).hexdigest()
        return f"{self.name}/{self.version}-{digest[:12]}"


def load_prompt(name: str) -> Prompt:
    """A prompt that comes with the package."""
    _, header, text = (_FOLDER / f"{name}.md").read_text(encoding="utf-8").split("---\n", 2)
    return Prompt(name, yaml.safe_load(header)["version"], text.strip())
