"""Two machines, made of network namespaces with a cable between them, and the documented launch.

    python -m pytest -m slow tests/invariant/test_training_hosts.py -s

Each machine has a name, an address and mounts of its own. They share a disk, on which the second
one may only read, so that nothing passes if it writes. Needs Linux and the right to make
namespaces; says why where there is none.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from exgra_med.training.log import read_log

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorials" / "several-machines.md"
TINY = ["--set", "stages.connector=null", "--set", "stages.vqa=null"]
TINY += ["--set", "stages.aligned={max_steps: 40, save_every_steps: 4, evaluate_every_steps: null}"]

pytestmark = pytest.mark.slow


def documented(rank: int) -> list[str]:
    """The launch of the page, with one process on each machine, up to the verb."""
    (line,) = re.findall(r"^torchrun --nnodes 2 .*$", PAGE.read_text(encoding="utf-8"), re.M)
    launcher, _, _ = line.partition(" pretrain/")
    launcher = launcher.replace("--node_rank 0", f"--node_rank {rank}")
    launcher = launcher.replace("--nproc_per_node 4", "--nproc_per_node 1")
    _, *rest = shlex.split(launcher)
    return [sys.executable, "-m", "torch.distributed.run", *rest]


@dataclass
class Host:
    """A machine; `holder` is the process whose namespaces are its own."""

    rank: int
    holder: int
    cache: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the documented launch of `exgra-med train debug/tiny`."""
        own = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        own |= {"XDG_CACHE_HOME": str(self.cache), "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [*self.enter(), *documented(self.rank), "debug/tiny", *TINY, *arguments],
            env=os.environ | own,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def enter(self) -> list[str]:
        """What runs a command on this machine."""
        return ["nsenter", "-t", str(self.holder), "-U", "-n", "-u", "-m", "--preserve-credentials"]

    def run(self, script: str) -> None:
        """Run a line of shell as this machine's root."""
        subprocess.run([*self.enter(), "sh", "-ec", script], check=True, capture_output=True)


def hold(*before: str, namespaces: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start a process that does nothing in namespaces of its own."""
    call = [*before, "unshare", *namespaces, "sh", "-c", "echo ready; exec sleep infinity"]
    holder = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert holder.stdout is not None and holder.stderr is not None
    if holder.stdout.readline() != b"ready\n":
        pytest.skip(f"no namespaces here: {holder.stderr.read().decode().strip()}")
    return holder


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """host-a at 10.0.0.1 and host-b at 10.0.0.2, which only reads in `disk`."""
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no namespaces here: {', '.join(missing)} is not installed")
    own = ("--net", "--uts", "--mount")
    first = hold(namespaces=("--user", "--map-root-user", *own))
    made = [first]
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        host_a = Host(0, first.pid, tmp_path / "cache-a")
        made.append(hold(*host_a.enter(), namespaces=own))
        host_b = Host(1, made[1].pid, tmp_path / "cache-b")
        host_a.run(f"ip link add cable type veth peer name cable netns {host_b.holder}")
        for host, name, address in ((host_a, "a", "10.0.0.1"), (host_b, "b", "10.0.0.2")):
            up = "ip link set lo up; ip link set cable up"
            host.run(f"hostname host-{name}; {up}; ip addr add {address}/24 dev cable")
        host_b.run(f"mount --bind {disk} {disk}; mount -o remount,bind,ro {disk}")
        yield [host_a, host_b]
    finally:
        for each in reversed(made):
            each.kill()
            each.wait()


def launch(hosts: list[Host], *arguments: str) -> list[subprocess.Popen[str]]:
    """The same command on every machine."""
    return [host.start(*arguments) for host in hosts]


def end(processes: list[subprocess.Popen[str]], seconds: float = 400) -> list[str]:
    """What each machine showed, when all have ended."""
    try:
        return [each.communicate(timeout=seconds)[0] for each in processes]
    finally:
        for each in processes:
            kill(each)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a launcher and what it started, which it leaves alone when it dies."""
    if process.poll() is None:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()


def train(hosts: list[Host], folder: Path, *arguments: str) -> None:
    """A launch that ends well."""
    processes = launch(hosts, "--out", str(folder), *arguments)
    shown = end(processes)
    assert [each.returncode for each in processes] == [0, 0], "\n".join(shown)


def wait_for_step(folder: Path, step: int, processes: list[subprocess.Popen[str]]) -> None:
    """Return when a step is in the log."""
    log, deadline = folder / "log.jsonl", time.monotonic() + 300
    while not (log.is_file() and f'"step": {step}' in log.read_text()):
        assert time.monotonic() < deadline and all(each.poll() is None for each in processes)
        time.sleep(0.005)


def errors(shown: str) -> list[str]:
    """The sentences for a person among what the launcher says."""
    return [line for line in shown.splitlines() if line.startswith("Error: ")]


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same weights and the same log, bit for bit."""
    first, second = (
        load_file(folder / "checkpoints" / "aligned" / "final" / "model.safetensors")
        for folder in (one, other)
    )
    logs = [
        [(e["step"], e["loss"]) for e in read_log(folder / "log.jsonl") if e["kind"] == "train"]
        for folder in (one, other)
    ]
    assert len(logs[0]) == 40
    return logs[0] == logs[1] and all(torch.equal(first[name], second[name]) for name in first)


def test_two_machines_are_killed_asked_to_stop_and_resumed(hosts: list[Host]) -> None:
    disk = hosts[0].cache.parent / "disk"
    train(hosts, disk / "whole")

    processes = launch(hosts, "--out", str(disk / "killed"))
    wait_for_step(disk / "killed", 10, processes)
    kill(processes[1])
    died = time.monotonic()
    shown = end(processes)[0]
    print(f"host-a ended {time.monotonic() - died:.1f} s after host-b was killed:\n{shown}")
    assert len(errors(shown)) == 1, shown
    assert "launch on 10.0.0.2 has ended" in errors(shown)[0] and "--resume" in shown
    train(hosts, disk / "killed", "--resume")
    assert same(disk / "whole", disk / "killed")

    processes = launch(hosts, "--out", str(disk / "stopped"))
    wait_for_step(disk / "stopped", 10, processes)
    processes[1].terminate()
    shown_a, shown_b = end(processes)
    print(shown_a, shown_b)
    for shown in (shown_a, shown_b):
        assert len(errors(shown)) == 1, shown
        assert "the checkpoint is written" in errors(shown)[0]
    train(hosts, disk / "stopped", "--resume")
    assert same(disk / "whole", disk / "stopped")


def test_shards_of_two_machines_are_killed_and_resumed(hosts: list[Host]) -> None:
    disk = hosts[0].cache.parent / "disk"
    hosts[1].run(f"mount -o remount,bind,rw {disk}")
    shards = ["--set", "stages.aligned.sharding=full"]
    train(hosts, disk / "whole", *shards)
    processes = launch(hosts, "--out", str(disk / "killed"), *shards)
    wait_for_step(disk / "killed", 10, processes)
    kill(processes[0])
    shown = end(processes)[1]
    print(shown)
    assert len(errors(shown)) == 1 and "launch on 10.0.0.1 has ended" in shown, shown
    train(hosts, disk / "killed", *shards, "--resume")
    assert same(disk / "whole", disk / "killed")


def test_a_machine_that_falls_silent_is_given_up(hosts: list[Host]) -> None:
    """A cable that is pulled sends nothing, so only the time that has passed tells."""
    disk = hosts[0].cache.parent / "disk"
    processes = launch(hosts, "--out", str(disk / "run"), "--timeout-minutes", "1")
    wait_for_step(disk / "run", 10, processes)
    hosts[1].run("ip link set cable down")
    pulled = time.monotonic()
    shown = end(processes)
    print(f"both ended {time.monotonic() - pulled:.0f} s after the cable was pulled")
    for each in shown:
        print(each)
        assert len(errors(each)) == 1 and "Another process of this launch" in each, each


def test_a_run_folder_that_is_not_shared_is_refused(hosts: list[Host]) -> None:
    disk = hosts[0].cache.parent / "disk"
    hosts[1].run(f"mount -t tmpfs none {disk}")
    for each in end(launch(hosts, "--out", str(disk / "run"))):
        print(each)
        (error,) = errors(each)
        assert "run on host-b is another folder than that of the main process" in error
