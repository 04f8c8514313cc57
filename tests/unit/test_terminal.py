"""The line of long work: exact on a clock that is set by hand, few lines in a pipe."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from exgra_med import terminal
from exgra_med.terminal import RichReporter, counting, spoken_time, waiting_for


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def in_a_pipe() -> tuple[RichReporter, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return RichReporter(Console(file=stream, width=80), clock=clock), stream, clock


def test_rate_and_time_left_are_exact() -> None:
    line, _, clock = in_a_pipe()
    line.start("answers", 1200, 200, "questions")
    assert line.figures() == "200/1,200 questions"
    clock.now += 10
    line.advance(300, "")
    # 100 in 10 seconds: what was there before is no part of the rate.
    assert line.figures() == "300/1,200 questions  10/s  1 min 30 s left"
    clock.now += 5
    # Nothing came since; the rest of the time passes.
    assert line.figures() == "300/1,200 questions  10/s  1 min 25 s left"
    line.advance(1200, "")
    assert line.figures() == "1,200/1,200 questions  67/s"


def test_the_rate_is_that_of_the_last_minute() -> None:
    line, _, clock = in_a_pipe()
    line.start("a", 10_000, 0, "steps")
    for done in range(1, 11):  # ten slow ones, then a minute and more of fast ones
        clock.now += 20
        line.advance(done, "")
    assert "3.0/min" in line.figures()
    for done in range(11, 81):
        clock.now += 1
        line.advance(done, "")
    assert line.figures() == "80/10,000 steps  1.0/s  2.8 h left"


def test_work_that_knows_better_says_how_long_it_takes() -> None:
    line, _, clock = in_a_pipe()
    line.start("study", 4, 1, "nodes")
    clock.now += 100
    line.advance(2, "1 running", left=500.0)
    assert line.figures() == "2/4 nodes  8 min left"
    line.advance(2, "1 running", left=float("inf"))
    assert line.figures() == "2/4 nodes"


def test_work_of_unknown_length_has_a_rate_and_no_end() -> None:
    line, _, clock = in_a_pipe()
    line.start("preparing", None, 0, "pictures")
    clock.now += 4
    line.advance(1000, "")
    assert line.figures() == "1,000 pictures  250/s"


def test_a_pipe_gets_few_whole_lines_and_no_carriage_return() -> None:
    line, stream, clock = in_a_pipe()
    line.start("aligned", 1000, 0, "steps")
    for done in range(1, 1001):
        clock.now += 0.125
        line.advance(done, f"language loss {1000 / done:.3f}")
    line.finish()
    line.finish()
    said = stream.getvalue()
    assert "\r" not in said and "\x1b" not in said
    assert said.splitlines() == [
        "aligned: 0/1,000 steps",
        "aligned: 240/1,000 steps  8.0/s  1 min 35 s left  language loss 4.167",
        "aligned: 480/1,000 steps  8.0/s  1 min 5 s left  language loss 2.083",
        "aligned: 720/1,000 steps  8.0/s  35 s left  language loss 1.389",
        "aligned: 960/1,000 steps  8.0/s  5 s left  language loss 1.042",
        "aligned: 1,000/1,000 steps in 2 min 5 s  language loss 1.000",
    ]


def test_patient_work_says_nothing_before_two_seconds() -> None:
    for pause, num_lines in ((0.01, 0), (0.5, 2)):
        line, stream, clock = in_a_pipe()
        line.start("checking", 10, 0, "pictures", patient=True)
        for done in range(1, 11):
            clock.now += pause
            line.advance(done, "")
        line.finish()
        assert len(stream.getvalue().splitlines()) == num_lines


def test_names_and_notes_steer_nothing_and_are_no_markup() -> None:
    line, stream, _ = in_a_pipe()
    line.start("answers to [red]\x1b[2J", 1, 0, "questions")
    line.advance(1, "a\nb\x07")
    line.finish()
    assert stream.getvalue().splitlines()[-1].startswith("answers to [red]�[2J: 1/1 questions in")
    assert stream.getvalue().endswith("a; b�\n")


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_live_line_fits_the_terminal(width: int) -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    line = RichReporter(console, clock=clock)
    line.start("answers to vqa-rad/test", 451, 0, "questions")
    try:
        clock.now += 10
        line.advance(45, "language loss 3.600  alignment loss 0.512  matched 70%\ncells/a: 3/50")
        rows = [str(each) for each in line._rows().renderables]
    finally:
        line.finish()
    assert rows[0].startswith("answers to vqa-rad/test  ━───────────  45/451 questions  4.5/s")
    assert rows[-1] == "  cells/a: 3/50"
    # Beside it where there is room, else below.
    assert len(rows) == (2 if width == 160 else 3)
    drawn = io.StringIO()
    Console(file=drawn, width=width).print(line._rows())
    assert len(drawn.getvalue().splitlines()) == len(rows)
    assert max(map(len, drawn.getvalue().splitlines())) <= width


def test_a_count_goes_to_standard_error_and_only_when_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting("checking") as count:
        for done in range(1, 4):
            count("pictures", done, 3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(terminal, "PATIENCE_SECONDS", 0.0)
    with counting("fetching") as count:
        count("MB of a.whl", 1, 2)
        count("MB of b.whl", 1, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert [each.partition(" in ")[0] for each in err.splitlines()] == [
        "fetching: 1/2 MB of a.whl", "fetching: 1/2 MB of a.whl",
        "fetching: 1/3 MB of b.whl", "fetching: 1/3 MB of b.whl",
    ]  # fmt: skip


def test_a_word_comes_where_something_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with waiting_for("Loading"):
        pass
    with waiting_for("Importing", is_true=lambda: False):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with waiting_for("Loading"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "Loading ...\n"


def test_a_pipe_gets_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PATIENCE_SECONDS", 0.0)
    with waiting_for("Loading"):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_what_is_being_imported_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exgra_med.cli.main import _is_importing

    assert not _is_importing()
    (tmp_path / "gradio").mkdir()
    (tmp_path / "gradio" / "__init__.py").write_text(
        "from exgra_med.cli.main import _is_importing\nseen = _is_importing()\n"
    )
    for name in [each for each in sys.modules if each.partition(".")[0] == "gradio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    import gradio

    assert gradio.seen
    monkeypatch.delitem(sys.modules, "gradio")


def test_help_loads_none_of_the_slow_packages() -> None:
    look = (
        "import sys\nsys.argv = ['exgra-med', '--help']\nfrom exgra_med.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\n"
        "slow = {'torch', 'transformers', 'numpy', 'gradio', 'matplotlib', 'scipy', 'numba'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_durations() -> None:
    assert [spoken_time(each) for each in (0, 59.6, 299, 301, 5399, 5400)] == [
        "0 s", "1 min 0 s", "4 min 59 s", "5 min", "89 min", "1.5 h",
    ]  # fmt: skip
