"""Finds the commands in README and documentation.

A block of commands is executed by a test (`test_document_stories.py`), unless the comment
`<!-- needs: WHAT -->` stands before it.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

PROJECT = Path(__file__).resolve().parents[2]
SHELL = {"", "sh", "bash", "console"}
OTHER_PROGRAMS = (
    "accelerate", "export", "git", "head", "make", "pip", "python", "sbatch", "vllm", ".",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: str
    line: int
    language: str
    text: str
    needs: str

    @property
    def commands(self) -> list[str]:
        """Its command lines, continued lines joined; empty where it is no shell."""
        joined = self.text.replace("\\\n", " ")
        lines = [line.strip() for line in joined.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        words = {line.split()[0] for line in lines}
        known = {"exgra-med", *OTHER_PROGRAMS}
        return lines if self.language in SHELL and words and words <= known else []


def pages() -> list[Path]:
    """README and every page of the documentation that is in version control."""
    found = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
    return sorted(
        page
        for page in found
        if not {"_build", "generated", "commands", "notebooks"} & set(page.parts)
    )


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page, each with what it needs."""
    found, needs = [], ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            match = re.fullmatch(r"<!-- needs: (.+?) -->", token.content.strip(), re.DOTALL)
            needs = match[1] if match else ""
        elif token.type in ("fence", "code_block"):
            name = page.relative_to(PROJECT).as_posix()
            language = token.info.split()[0] if token.info.split() else ""
            found.append(Block(name, (token.map or [0])[0] + 1, language, token.content, needs))
            needs = ""
    return found


def inline_commands(page: Path) -> list[str]:
    """Commands in the running text and in tables; placeholders are in capitals, or dots."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`(exgra-med [^`]+)`", text)


def words_of(command: str) -> list[str] | None:
    """What `exgra-med` gets, whoever starts it; None for other programs."""
    words = shlex.split(command, comments=True)
    if words[0] == "exgra-med":
        return words[1:]
    if "exgra_med" in words and words[0] in ("accelerate", "python"):
        return words[words.index("exgra_med") + 1 :]
    return None
