"""SIGKILL at random moments, then the same command again: the result is that of no kill."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What commands import, once for all of them.
import exgra_med.captions.generate
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

    def kill(self, numbers: random.Random) -> None:
        """End it at once; of several processes one of them, or all."""
        children = Path(f"/proc/{self.id}/task/{self.id}/children")
        workers = [int(each) for each in children.read_text("ascii").split()]
        if workers and os.getpgid(self.id) == self.id and numbers.random() < 0.5:
            os.kill(numbers.choice(workers), signal.SIGKILL)
        elif os.getpgid(self.id) == self.id:
            os.killpg(self.id, signal.SIGKILL)
        else:
            os.kill(self.id, signal.SIGKILL)


def start(words: list[str], place: Path, num_processes: int = 1) -> Process:
    """Begin a command in a folder."""
    # Beside the folder: that one may be full, or may not be written.
    said = place.parent / f"said-{time.monotonic_ns()}.txt"
    if num_processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc_per_node", str(num_processes), "-m", "exgra_med"]
        own = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        with said.open("w", encoding="utf-8") as stream:
            group = subprocess.Popen(
                [*launcher, *words],
                cwd=place,
                env=os.environ | own,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        return Process(group.pid, said)
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
    num_processes: int = 1

    def start(self, words: list[str], place: Path) -> Process:
        """Begin the command."""
        return start(words, place, self.num_processes)


class Service(BaseHTTPRequestHandler):
    """A language model that answers the same request with the same words."""

    def do_POST(self) -> None:
        """Answer after a moment, so that kills fall between answers."""
        asked = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(0.02)
        words = json.dumps({"revision": f"In more words: {sha256(asked).hexdigest()}."})
        message = {"role": "assistant", "content": words}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 100, "completion_tokens": 20}
        raw = json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


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


def _extended(place: Path) -> Any:
    # In the order in which the answers came, and each line has the SHA-256 of those before it.
    records = map(json.loads, (place / "long.jsonl").read_text("utf-8").splitlines())
    return sorted(({**each, "sha256": ""} for each in records), key=lambda each: each["id"])


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
    # A process of its own: copies of one with threads may find their locks taken.
    service = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    # Who asks is killed.
    service.handle_error = lambda *_: None
    multiprocessing.get_context("fork").Process(target=service.serve_forever, daemon=True).start()
    captions = ["captions", "generate", "bundled:vqa-rad-sample", "--out", "long.jsonl"]
    captions += ["--model", "m", "--base-url", f"http://127.0.0.1:{service.server_port}/v1"]
    captions += ["--concurrency", "2", "--cache", "answers.jsonl"]
    spread = [*train, "--set", "stages.connector=null", "--set", "stages.vqa.max_steps=4"]
    return [
        Work("train", train, [*train, "--resume"], _trained),
        Work("captions", captions, captions, _extended),
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
        Work("two processes", spread, [*spread, "--resume"], _trained, num_processes=2),
    ]


def kill_at_random(
    place: Path, count: int, seed: int = 0, only: str | None = None
) -> Iterator[tuple[str, str]]:
    """Kill `count` times, one kind of work after the other, the long ones every ninth time.

    Yields:
        What was killed and when, and what was not right about what came of it.
    """
    numbers = random.Random(seed)
    chosen = [each for each in works(place / "common") if only in (None, each.name)]
    if only is None:
        # What starts processes of its own takes as long as all the others.
        *short, study, spread = chosen
        chosen = [*short, *short, study, *short, *short, spread]
    wanted: dict[str, tuple[float, Any]] = {}
    for number in range(count):
        work = chosen[number % len(chosen)]
        if work.name not in wanted:
            wanted[work.name] = undisturbed(work, place / f"whole-{work.name}")
        seconds, result = wanted[work.name]
        delay = numbers.uniform(0, seconds)
        where = place / "killed"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        work.before(where)
        process = work.start(work.first, where)
        time.sleep(delay)
        process.kill(numbers)
        process.wait()
        yield f"{work.name}, killed after {delay:.2f} s", again(work, where, result)


def undisturbed(work: Work, place: Path) -> tuple[float, Any]:
    """Seconds and result of a command that nothing happens to."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    work.before(place)
    started = time.monotonic()
    process = work.start(work.first, place)
    assert process.wait() in work.codes, process.said.read_text("utf-8")
    return time.monotonic() - started, work.result(place)


def again(work: Work, place: Path, result: Any) -> str:
    """The same command once more; what is not right about it."""
    for attempt in range(20):
        process = work.start(work.again, place)
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
