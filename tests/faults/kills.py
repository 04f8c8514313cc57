"""SIGKILL at random moments, then the same command again: the result is that of no kill."""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

# What commands import, once for all of them.
import exgra_med.data.prepare
import exgra_med.evaluation.held_out
import exgra_med.evaluation.tasks.vqa
import exgra_med.lab.phantom.make
import exgra_med.model.native
import exgra_med.training.preflight
import exgra_med.training.stages  # noqa: F401
from exgra_med.cli import main

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Nodes of a study are processes of their own.
os.environ["PYTHONPATH"] = str(SOURCE)
STUDY = """
name: killed
description: One cell, to be killed.
recipe: debug/tiny
methods:
  plain: {title: Plain, set: {stages.aligned.alignment: null}}
fractions: [1.0]
seeds: [0]
baseline: plain
evaluation: {num_bootstrap_samples: 20}
"""


@dataclass(frozen=True)
class Process:
    """A command in a copy of this process, so that kills fall into its work, not its imports."""

    id: int
    said: Path

    def wait(self) -> int:
        """The exit code; of a signal, its number with a minus."""
        _, status = os.waitpid(self.id, 0)
        return os.waitstatus_to_exitcode(status)


def start(words: list[str], place: Path) -> Process:
    """Begin a command in a folder."""
    said = place / f"said-{time.monotonic_ns()}.txt"
    child = os.fork()
    if child:
        return Process(child, said)
    os.chdir(place)
    with said.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.argv = ["exgra-med", *words]
    code: Any = 1
    try:
        main.run()
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


@dataclass(frozen=True)
class Work:
    """A command that is killed, the one that goes on, and what both are for."""

    name: str
    first: list[str]
    again: list[str]
    result: Callable[[Path], Any]
    codes: tuple[int, ...] = (0,)
    """Exit codes of a command that got to its end."""
    before: Callable[[Path], None] = lambda place: None


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _events(run: Path) -> list[Any]:
    passing = ("tokens_per_second", "sha256")
    events = map(json.loads, (run / "log.jsonl").read_text("utf-8").splitlines())
    return [{name: each[name] for name in each if name not in passing} for each in events]


def _trained(place: Path) -> Any:
    run = place / "run"
    return _hashes(run / "checkpoints" / "vqa" / "final"), _events(run)


def _answered(place: Path) -> Any:
    run = place / "run"
    lines = (run / "predictions/vqa/vqa-rad-sample/test.jsonl").read_text("utf-8").splitlines()
    answers = sorted((each["id"], each["text"]) for each in map(json.loads, lines))
    (entry,) = json.loads((run / "results.json").read_text("utf-8"))["results"]
    return answers, entry["scores"]


def _studied(place: Path) -> Any:
    results = json.loads((place / "study" / "results.json").read_text("utf-8"))
    cells = [(cell["value"], cell["num_steps"]) for cell in results["cells"]]
    return cells, results["missing"]


def works(place: Path) -> list[Work]:
    """What is killed; `place` gets what all of it needs."""
    place.mkdir(parents=True, exist_ok=True)
    train = ["train", "debug/tiny", "--out", "run"]
    model = place / "trained"
    if not model.is_dir():
        process = start(["train", "debug/tiny", "--out", str(model)], place)
        assert process.wait() == 0, process.said.read_text("utf-8")
    (place / "study.yaml").write_text(STUDY, encoding="utf-8")
    evaluate = ["evaluate", "vqa", "run"]
    # Pictures are drawn: there is something to be killed in.
    prepare = ["data", "prepare", "phantom", "--out", "data", "--option", "num_images=400"]
    study = ["study", "run", str(place / "study.yaml"), "--out", "study"]
    return [
        Work("train", train, [*train, "--resume"], _trained),
        # A model of four steps answers nothing that can be used, which is exit code 1.
        Work(
            "evaluate",
            evaluate,
            evaluate,
            _answered,
            (0, 1),
            lambda where: shutil.copytree(model, where / "run") and None,
        ),
        Work("prepare", prepare, prepare, lambda where: _hashes(where / "data")),
        Work("study", study, study, _studied, (0, 1)),
    ]


def kill_at_random(
    place: Path, count: int, seed: int = 0, only: str | None = None
) -> Iterator[tuple[str, str]]:
    """Kill `count` times, one kind of work after the other, a study every seventh time.

    Yields:
        What was killed and when, and what was not right about what came of it.
    """
    numbers = random.Random(seed)
    chosen = [each for each in works(place / "common") if only in (None, each.name)]
    if only is None:
        # A study is many processes, and takes as long as all the others.
        *short, study = chosen
        chosen = [*short, *short, study]
    wanted: dict[str, tuple[float, Any]] = {}
    for number in range(count):
        work = chosen[number % len(chosen)]
        if work.name not in wanted:
            wanted[work.name] = _undisturbed(work, place / f"whole-{work.name}")
        seconds, result = wanted[work.name]
        delay = numbers.uniform(0, seconds)
        where = place / "killed"
        shutil.rmtree(where, ignore_errors=True)
        yield f"{work.name}, killed after {delay:.2f} s", _killed(work, where, delay, result)


def _undisturbed(work: Work, place: Path) -> tuple[float, Any]:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    work.before(place)
    started = time.monotonic()
    process = start(work.first, place)
    assert process.wait() in work.codes, process.said.read_text("utf-8")
    return time.monotonic() - started, work.result(place)


def _killed(work: Work, place: Path, delay: float, result: Any) -> str:
    place.mkdir()
    work.before(place)
    process = start(work.first, place)
    time.sleep(delay)
    os.kill(process.id, signal.SIGKILL)
    process.wait()
    for attempt in range(20):
        process = start(work.again, place)
        code, said = process.wait(), process.said.read_text("utf-8")
        # The nodes of a killed study finish the step that they are in, and then end.
        if "is being written by" not in said:
            break
        time.sleep(0.5 * attempt)
    if code not in work.codes:
        return f"exit code {code}: {said.strip()[-300:]}"
    if "Traceback" in said:
        return f"a traceback: {said.strip()[-300:]}"
    return "" if work.result(place) == result else f"another result: {said.strip()[-500:]}"
