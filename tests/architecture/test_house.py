"""Rules of the house that a machine can hold."""

import subprocess
import sys
from pathlib import Path

import pytest

import exgra_med

ROOT = Path(exgra_med.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
MAX_LINES = 350


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_a_reader_can_hold(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("arguments", [["--help"], ["recipe", "list"], ["data", "--help"]])
def test_the_command_line_answers_without_loading_torch(arguments: list[str]) -> None:
    program = (
        "import sys; from exgra_med.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'matplotlib', 'numba'}\n"
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


def test_every_command_shows_an_example() -> None:
    from typer.main import get_command

    from exgra_med.cli.main import app

    def commands(group: object, path: str) -> list[tuple[str, object]]:
        found = []
        for name, command in group.commands.items():
            here = f"{path} {name}"
            found += commands(command, here) if hasattr(command, "commands") else [(here, command)]
        return found

    for path, command in commands(get_command(app), "exgra-med"):
        text = f"{command.epilog or ''} {command.help or ''}"
        assert "exgra-med " in text, f"{path} has no example in its help"
