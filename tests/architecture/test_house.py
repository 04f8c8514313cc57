"""Rules of the house that a machine can hold."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import exgra_med

ROOT = Path(exgra_med.__file__).parent


@pytest.mark.parametrize("arguments", [["--help"], ["recipe", "list"], ["data", "--help"]])
def test_the_command_line_answers_without_loading_torch(arguments: list[str]) -> None:
    program = (
        "import sys; from exgra_med.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'matplotlib', 'numba'}\n"
        # What a recipe may hold takes as long to load as all else; help needs none of it.
        "heavy |= {'exgra_med.recipe.schema'} if '--help' in sys.argv else set()\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT.parent), "PATH": "", "COLUMNS": "100"},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def commands(group: object, path: str) -> list[tuple[str, object]]:
    """Every command below a group, with its path."""
    found = []
    for name, command in group.commands.items():
        here = f"{path} {name}"
        found += commands(command, here) if hasattr(command, "commands") else [(here, command)]
    return found


def test_every_command_shows_an_example() -> None:
    from typer.main import get_command

    from exgra_med.cli.main import app

    for path, command in commands(get_command(app), "exgra-med"):
        text = f"{command.epilog or ''} {command.help or ''}"
        assert "exgra-med " in text, f"{path} has no example in its help"


def test_no_help_has_a_placeholder_that_vanishes() -> None:
    """Terminals take `[name]` for a style and the documentation takes `<name>` for HTML."""
    from typer.main import get_command

    from exgra_med.cli.main import app

    lost = re.compile(r"<[a-z/][^<>]*>|(?<![\w.=`\"'])\[/?[a-z][a-z0-9_ -]*\]")
    for path, command in commands(get_command(app), "exgra-med"):
        texts = [command.help, command.epilog, *(each.help for each in _with_help(command))]
        for text in filter(None, texts):
            assert not lost.search(text), f"{path}: {text!r}"


def _with_help(command: object) -> list:
    return [each for each in command.params if getattr(each, "help", None)]


@pytest.mark.parametrize(
    "name", [".env", "data/vqa-rad/test.jsonl", "mine/a.png", "extended.jsonl"]
)
def test_what_a_user_writes_into_a_checkout_is_not_committed(name: str) -> None:
    checkout = ROOT.parents[1]
    if shutil.which("git") is None or not (checkout / ".git").exists():
        pytest.skip("there is no git here")

    def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False
        )

    assert git("check-ignore", "--quiet", "--no-index", name).returncode == 0
    assert git("ls-files", "-ci", "--exclude-standard").stdout == ""
