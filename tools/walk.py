"""Print the project files that one training step, or one question of an evaluation, runs through.

    python tools/walk.py step        # one step of the aligned stage of the demo
    python tools/walk.py question    # from `evaluate vqa` to the number in report.html

A file counts when one of its functions runs; importing it does not count. Compiled solvers run as
plain Python here, so that they are seen too. The order is that of the first call.
"""

import os

# Read when numba is imported: compiled functions are invisible to the profiler.
os.environ["NUMBA_DISABLE_JIT"] = "1"

import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType

import exgra_med

ROOT = Path(exgra_med.__file__).parent
_IS_FUNCTION = 0x1  # CO_OPTIMIZED: bodies of modules and classes lack it.
_COMPREHENSIONS = {"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"}
STEP = "StageTraining._step"
"""The function that is one optimizer step."""


class Walk:
    """Files in the order in which they are first entered, and the code that ran in each.

    Args:
        within: only what this function calls counts; everything where it is empty.
    """

    def __init__(self, within: str = "") -> None:
        self.functions: dict[str, set[str]] = {}
        self._within, self._depth = within, 0 if within else 1

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """What the interpreter calls at every call and return."""
        code = frame.f_code
        if event not in ("call", "return") or not code.co_flags & _IS_FUNCTION:
            return
        if self._within and code.co_qualname == self._within:
            self._depth += 1 if event == "call" else -1
        outside = frame
        while outside.f_code.co_name in _COMPREHENSIONS:
            outside = outside.f_back
        if not outside.f_code.co_flags & _IS_FUNCTION:
            return  # A comprehension at the level of a module runs when that is imported.
        if event == "call" and self._depth and code.co_filename.startswith(str(ROOT)):
            name = Path(code.co_filename).relative_to(ROOT).as_posix()
            self.functions.setdefault(name, set()).add(code.co_qualname)

    def follow(self, work: Callable[[], object]) -> None:
        """Watch everything that `work` calls, in its threads too."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def tell(self) -> str:
        """The files, one a line, and a summary."""
        lines = [f"{name}  {len(found)}" for name, found in self.functions.items()]
        folders = [str(Path(name).parent) for name in self.functions]
        seen: set[str] = set()
        returns = 0
        for before, folder in zip(["", *folders], folders, strict=False):
            returns += folder != before and folder in seen
            seen.add(folder)
        length = sum(len((ROOT / name).read_text().splitlines()) for name in self.functions)
        summary = (
            f"{len(self.functions)} files, {length} lines in them, "
            f"{sum(map(len, self.functions.values()))} functions, "
            f"{len(seen)} folders, {returns} returns to a folder already left"
        )
        return "\n".join([*lines, summary])


def command(*words: str) -> None:
    """One call of the command line, in this process."""
    from exgra_med.cli.main import app

    with redirect_stdout(sys.stderr):
        app(list(words), standalone_mode=False)


def main() -> None:
    """Run what is walked through, on a model of some kilobytes."""
    if sys.argv[1:] not in (["step"], ["question"]):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        train = ["train", "demo" if sys.argv[1] == "step" else "debug/tiny", "--out", run]
        if sys.argv[1] == "step":
            walk = Walk(STEP)
            only = ["connector=null", "vqa=null", "aligned.max_steps=1"]
            words = [word for each in only for word in ("--set", f"stages.{each}")]
            walk.follow(lambda: command(*train, *words))
        else:
            walk = Walk()
            # A model of four steps answers nothing, which is an error.
            learn = ["connector=null", "aligned=null", "vqa.max_steps=40", "vqa.learning_rate=0.01"]
            words = [word for each in learn for word in ("--set", f"stages.{each}")]
            command(*train, *words)
            walk.follow(lambda: command("evaluate", "vqa", run))
            walk.follow(lambda: command(*REPORT, run))
    print(walk.tell())


REPORT = ("evaluate", "report")

if __name__ == "__main__":
    main()
