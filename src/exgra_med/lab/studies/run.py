"""Run whatever of a study is not finished: every node its own process, several at a time.

A node that fails stops only what needs it. Whoever asks this process to stop, by SIGINT or SIGTERM,
asks the nodes: they save where they are, and the next run goes on from there.
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exgra_med.errors import ExgraMedError
from exgra_med.lab.studies.folder import (
    Attempt,
    is_finished,
    last_line,
    log_path,
    read_attempt,
    remaining_seconds,
    states,
    write_attempt,
    write_status,
)
from exgra_med.lab.studies.plan import Node, seed_after_seed
from exgra_med.lab.studies.schema import Study
from exgra_med.terminal import Reporter

_POLL_SECONDS = 0.1
_TELL_SECONDS = 2.0
"""Between two looks at what the nodes say of themselves."""


class StudyStopped(ExgraMedError):
    """The study was asked to stop; what was begun can go on."""

    exit_code = 143


class StudyFailed(ExgraMedError):
    """Some nodes failed; all that did not need them were run."""

    exit_code = 1


@dataclass(frozen=True)
class Resources:
    """How nodes share the machine."""

    jobs: int = 1
    """Nodes at the same time."""
    processes: int = 1
    """Processes of one node, each with its own GPU; several need `torch.distributed`."""
    threads: int = 1
    """Threads of one process."""
    gpus: Sequence[str] = ()
    """Devices as `CUDA_VISIBLE_DEVICES` names them."""

    def environment(self, slot: int) -> dict[str, str]:
        """What the node in a slot is told: its threads, and its GPUs where there are some."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        told = dict.fromkeys(names, str(self.threads))
        told["TOKENIZERS_PARALLELISM"] = "false"
        if self.gpus:
            first = slot * self.processes
            own = [self.gpus[(first + n) % len(self.gpus)] for n in range(self.processes)]
            told["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(own))
        return told


def share_machine(jobs: int, processes: int, gpus: Sequence[str]) -> Resources:
    """Divide the processor's cores, as far as this process may use them, and the GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // (jobs * processes))
    return Resources(jobs, processes, threads, tuple(gpus))


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Names of the GPUs of this machine that may be used."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [each.strip() for each in named.split(",") if each.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def node_command(folder: Path, node: str, processes: int = 1) -> list[str]:
    """Arguments of the process that does a node."""
    launcher = []
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *launcher, "-m", "exgra_med", "study", "node", str(folder), node]


def _ends_with_this_process() -> Callable[[], None] | None:
    """What a node runs before its program, so that Linux asks it to stop when this process dies,
    even by SIGKILL. Elsewhere it goes on alone, and its lock says so."""
    if sys.platform != "linux":
        return None
    # Loaded here: after the fork there may be no memory to be had.
    control, own = ctypes.CDLL(None).prctl, os.getpid()

    def prepare() -> None:
        control(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != own:
            os._exit(1)  # it died in between

    return prepare


_SET_PARENT_DEATH_SIGNAL = 1


def run_study(
    folder: Path,
    study: Study,
    nodes: Sequence[Node],
    resources: Resources,
    reporter: Reporter,
    command: Callable[[Path, str, int], list[str]] = node_command,
) -> None:
    """Run the nodes that are not finished.

    Raises:
        StudyFailed: one sentence per failed node, after all others were run.
        StudyStopped: a signal came; everything that was begun can go on.
    """
    asked: list[int] = []
    earlier = {
        each: signal.signal(each, lambda number, _: asked.append(number))
        for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        _Scheduler(folder, study, nodes, resources, reporter, command).run(asked)
    finally:
        for each, handler in earlier.items():
            signal.signal(each, handler)


@dataclass
class _Scheduler:
    folder: Path
    study: Study
    nodes: Sequence[Node]
    resources: Resources
    reporter: Reporter
    command: Callable[[Path, str, int], list[str]]
    running: dict[int, tuple[Node, subprocess.Popen[bytes]]] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Node -> sentence, also of those that were not run because of another one."""
    log_begins: dict[str, int] = field(default_factory=dict)
    """Node -> bytes of its log that an earlier attempt wrote."""
    left: float | None = None
    """Expected seconds until all is done, at the time of `counted_at`."""
    counted_at: float = 0.0
    told_at: float = 0.0

    def run(self, signals: Sequence[int]) -> None:
        """Run until all is done, or one of the growing `signals` asks to stop, a second to kill."""
        self.finished = {each.id for each in self.nodes if self._is_done(each)}
        waiting = [each for each in seed_after_seed(self.nodes) if each.id not in self.finished]
        self.reporter.start(self.study.name, len(self.nodes), len(self.finished), "nodes")
        self._tell()  # a damaged report of an attempt is said before anything begins
        asked = 0
        try:
            while waiting or self.running:
                if len(signals) > asked:
                    asked = len(signals)
                    self._pass_on(signal.SIGTERM if asked == 1 else signal.SIGKILL)
                if not asked:
                    waiting = self._begin(waiting)
                elif not self.running:
                    break
                self._reap(bool(asked))
                if time.monotonic() - self.told_at > _TELL_SECONDS:
                    self._show()
                time.sleep(_POLL_SECONDS)
        finally:
            # Also where this process meets a fault of its own, no node is left alone.
            self._pass_on(signal.SIGTERM)
            for _, process in self.running.values():
                process.wait()
            self.reporter.finish()
        write_status(self.folder, self.study, self.nodes)
        if asked:
            raise StudyStopped(
                f"Stopped with {len(self.finished)} of {len(self.nodes)} nodes finished.",
                "Start again with the same command to go on.",
            )
        if self.failed:
            raise StudyFailed(
                f"{len(self.failed)} of {len(self.nodes)} nodes are not finished.\n"
                + "\n".join(f"  {name}: {sentence}" for name, sentence in self.failed.items()),
                f"Logs are in {self.folder / 'logs'}; the same command runs them again.",
            )

    def _is_done(self, node: Node) -> bool:
        return is_finished(self.folder, node, self.study)

    def _begin(self, waiting: list[Node]) -> list[Node]:
        """Start what can start; give up what needs a failed node. Returns what still waits."""
        left = []
        for node in waiting:
            lost = next((need for need in node.needs if need in self.failed), None)
            if lost is not None:
                self._give_up(node, "not run", f"Not run, because {lost} is not finished.")
            elif len(self.running) < self.resources.jobs and self.finished.issuperset(node.needs):
                self._start(node)
            else:
                left.append(node)
        return left

    def _start(self, node: Node) -> None:
        slot = next(n for n in range(self.resources.jobs) if n not in self.running)
        log = log_path(self.folder, node.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            self.log_begins[node.id] = stream.tell()
            process = subprocess.Popen(
                self.command(self.folder, node.id, self.resources.processes),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | self.resources.environment(slot),
                # A Ctrl-C at the terminal reaches this process alone, which asks nodes politely.
                start_new_session=True,
                preexec_fn=_ends_with_this_process(),
            )
        self.running[slot] = (node, process)
        self._tell()

    def _reap(self, stopping: bool) -> None:
        for slot, (node, process) in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[slot]
            if code == 0 and self._is_done(node):
                self.finished.add(node.id)
            elif stopping:
                write_attempt(self.folder, node.id, Attempt("stopped"))
            else:
                self._give_up(node, "failed", self._sentence(node, code))
            write_status(self.folder, self.study, self.nodes)
            self._tell()

    def _sentence(self, node: Node, code: int) -> str:
        attempt = read_attempt(self.folder, node.id)
        if attempt is not None and attempt.state == "failed" and attempt.sentence:
            return attempt.sentence
        how = f"signal {-code} ended it" if code < 0 else f"it ended with exit code {code}"
        log = log_path(self.folder, node.id)
        return f"{how[0].upper()}{how[1:]}; see {log}."

    def _give_up(self, node: Node, state: str, sentence: str) -> None:
        self.failed[node.id] = sentence
        write_attempt(self.folder, node.id, Attempt(state, sentence=sentence))
        self._tell()

    def _pass_on(self, number: int) -> None:
        """Signal the nodes; each leads its own session, so a launcher's processes get it too."""
        for _, process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, number)

    def _tell(self) -> None:
        """Count anew what is done and how long the rest will take."""
        found = states(self.folder, self.study, self.nodes)
        self.left = remaining_seconds(self.nodes, found, self.resources.jobs)
        self.counted_at = time.monotonic()
        self._show()

    def _show(self) -> None:
        parts = [f"{len(self.running)} running"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed or not run")
        lines = [", ".join(parts)]
        for _, (node, _process) in sorted(self.running.items()):
            said = last_line(self.folder, node.id, self.log_begins[node.id])
            lines.append(f"{node.id}: {said or 'starting'}")
        self.told_at = time.monotonic()
        passed = self.told_at - self.counted_at
        # Nodes differ: a rate over those that made data would say nothing of the runs.
        left = math.inf if self.left is None else max(0.0, self.left - passed)
        self.reporter.advance(len(self.finished), "\n".join(lines), left)
