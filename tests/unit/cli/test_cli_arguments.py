"""No value of an argument or option ends in a traceback: each verb, each parameter, odd values.

An odd value is a folder for a file, a file for a folder, wrong UTF-8, an empty text, a number out
of range. A call may succeed where the value is good after all. Where it fails, it says so in a
sentence and a hint, with exit code 2, or 1 where the work itself failed.
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from exgra_med.cli import main
from exgra_med.cli.main import app, verbs

ROOT = get_command(app)
BUNDLED = "bundled:vqa-rad-sample"
GOOD = {
    "data": BUNDLED,
    "recipe": "debug/tiny",
    "first": "debug/tiny",
    "second": "demo",
    "study": "data-efficiency",
    "source": BUNDLED,
    "captions": "captions.jsonl",
    "record": "0",
    "fraction": "0.1",
    "shortest": "16",
    "out": "out",
    "name": "vqa-rad",
}
"""Values by parameter that let a verb get far; everything else is missing."""
ALWAYS = {
    "train": ["--dry-run"],
    "study run": ["--dry-run"],
    "captions generate": ["--dry-run", "--base-url", "http://localhost:9/v1"],
    "demo": ["--set", "stages=none"],
}
"""So that a call which succeeds ends at once."""
SLOW = {"doctor", "bench matching", "bench step", "checkpoint parts"}
"""These need nothing and measure, or download; only what they refuse at once can be tried."""
NUMBERS = ("-1", "0", "nan", "9" * 5000, "ten", "inf", "1e400")
TEXTS = (
    "wrong-utf-8-run", "wrong-utf-8", "~none", "\udcff", "9" * 5000,
    "", "..", "a\nb", "☃" * 300, "[/x]", "missing/deep/file", "=", "a=b", "a.b=[", "http://[::1",
    "bundled:", "bundled:none", "file", "folder", "wrong-json", "wrong-run", "file/below",
    "no-rights",
)  # fmt: skip
NUM_FIRST = 5
"""So many values of each kind are tried in the default run: those that found faults."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with odd files and folders, to stand in."""
    here = tmp_path / "here"
    (here / "folder" / "inner").mkdir(parents=True)
    (here / "file").write_text("text\n")
    (here / "captions.jsonl").write_text('{"id": "x", "extended": ["y"]}\n')
    (here / "wrong-utf-8").write_bytes(b"\xff\xfe\x00{")
    (here / "wrong-json").write_text('{"a": [1, 2')
    (here / "no-rights").write_text("x")
    (here / "no-rights").chmod(0)
    names = (
        "recipe.yaml", "record.json", "results.json", "manifest.json", "train.jsonl", "config.json",
        "test.jsonl", "study.yaml",
    )  # fmt: skip
    for run, content in (("wrong-run", b"[1, 2]"), ("wrong-utf-8-run", b"\xff\xfe\x00{")):
        (here / run).mkdir()
        for name in names:
            (here / run / name).write_bytes(content)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for key in ("OPENROUTER_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENROUTER_ENDPOINT"):
        monkeypatch.delenv(key, raising=False)
    for name in ("torchao", "torch.utils._pytree"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    return here


def command(path: str) -> Any:
    found: Any = ROOT
    for word in path.split():
        found = found.commands[word]
    return found


def calls(path: str, num_values: int | None) -> Iterator[list[str]]:
    """The words of every call of a verb that is tried, with so many odd values of each kind."""
    parameters = [each for each in command(path).params if not getattr(each, "is_flag", False)]
    needed = {each.name: each for each in parameters if each.required}
    if needed:
        yield path.split()
    for odd in parameters:
        for value in _odd_values(odd)[:num_values]:
            # What is always given comes first, as the last of a repeated option counts.
            words = [*path.split(), *ALWAYS.get(path, [])]
            arguments = []
            for each in parameters:
                if each is not odd and each.name not in needed:
                    if each.param_type_name == "argument" and odd.param_type_name == "argument":
                        break
                    continue
                good = GOOD.get(each.name, "1" if _is_number(each) else "missing")
                given = value if each is odd else good
                if each.param_type_name == "argument":
                    arguments.append(given)
                else:
                    words += [each.opts[0], *[given] * each.nargs]
            yield [*words, "--", *arguments]


def _is_number(parameter: Any) -> bool:
    return any(kind in str(_annotation(parameter)) for kind in ("int", "float"))


def _annotation(parameter: Any) -> Any:
    described = getattr(parameter, "type_descriptor", None)
    return parameter.type if described is None else described.annotation


def _odd_values(parameter: Any) -> tuple[str, ...]:
    return NUMBERS if _is_number(parameter) else TEXTS


@pytest.mark.parametrize("num_values", [NUM_FIRST, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("path", sorted(set(verbs(ROOT)) - SLOW))
def test_an_odd_value_is_answered_with_a_sentence(
    path: str, num_values: int | None, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(main, "app", lambda: ROOT())
    wrong = []
    for words in calls(path, num_values):
        monkeypatch.setattr(sys, "argv", ["exgra-med", *words])
        code: Any = 0
        try:
            main.run()
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:
            wrong.append(f"{words}: {error!r}"[:400])
            continue
        finally:
            said = capfd.readouterr()
        lines = said.err.strip().splitlines()
        told = code == 0 or lines[:1] == [] or any(line.startswith("Error: ") for line in lines)
        if code not in (0, 1, 2) or "Traceback" in said.err or not told or len(lines) > 40:
            wrong.append(f"{words}: {code} {said.err}"[:400])
    assert not wrong, "\n".join(wrong)
