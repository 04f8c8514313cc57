"""A disk that fills up at a random moment, or may not be written, and then the same command again.

Needs mounts of its own: `unshare --map-root-user --mount` before the command.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kills import Work, again, undisturbed, works

ROOM = "size=1g"
PAGE = 4096
KINDS = ("small", "full later", "small", "full later", "read-only")
REASONS = ("No space left", "disk is full", "the disk has", "Read-only", "readonly")


@dataclass(frozen=True)
class Disk:
    """A disk in memory, and a work that is done on it."""

    place: Path
    work: Work
    whole: Path
    """The folder of the work that nothing happened to."""
    seconds: float
    """What that took."""

    def becomes(self, kind: str, numbers: random.Random) -> tuple[str, str]:
        """What was done with it, and what was not right about what came of it."""
        self.work.before(self.place)
        taken, delay = shutil.disk_usage(self.place).used, 0.0
        if kind == "read-only":
            _mount("-o", "remount,ro", self.place)
        elif kind == "small":
            needed = sum(each.stat().st_size + PAGE for each in self.whole.rglob("*"))
            room = max(taken, int(numbers.uniform(PAGE, needed)))
            _mount("-o", f"remount,size={room}", self.place)
        else:
            delay = numbers.uniform(0, self.seconds)
        case = f"{self.work.name}, {kind}" + (f" ({delay:.2f} s)" if delay else "")
        process = self.work.start(self.work.first, self.place)
        if delay:
            time.sleep(delay)
            # Hardly a page more than it has; no size at all would be any size.
            room = max(shutil.disk_usage(self.place).used, PAGE)
            _mount("-o", f"remount,size={room}", self.place)
        code, said = process.wait(), process.said.read_text("utf-8")
        _mount("-o", f"remount,rw,{ROOM}", self.place)
        result = self.work.result(self.whole)
        if code in self.work.codes and "Error:" not in said:
            return case, "" if self._result() == result else f"another result: {said[-300:]}"
        if "Traceback" in said or "Error:" not in said or not any(map(said.__contains__, REASONS)):
            return case, f"exit code {code}, and no reason: {said.strip()[-500:]}"
        return case, again(self.work, self.place, result)

    def _result(self) -> Any:
        try:
            return self.work.result(self.place)
        except (OSError, KeyError, ValueError):
            return None


def full_at_random(
    place: Path, count: int, seed: int = 0, only: str | None = None
) -> Iterator[tuple[str, str]]:
    """Fill `count` disks, one kind of work after the other; every fifth may not be written at all.

    Yields:
        What was done and what was not right about what came of it.
    """
    numbers = random.Random(seed)
    # What starts processes of its own takes as long as all the others together.
    long = () if only else ("study", "two processes")
    chosen = [
        each
        for each in works(place / "common")
        if each.name not in long and only in (None, each.name)
    ]
    seconds = {each.name: undisturbed(each, place / f"whole-{each.name}")[0] for each in chosen}
    for number in range(count):
        work = chosen[number // len(KINDS) % len(chosen)]
        disk = Disk(place / "disk", work, place / f"whole-{work.name}", seconds[work.name])
        disk.place.mkdir(exist_ok=True)
        _mount("-t", "tmpfs", "-o", ROOM, "disk", disk.place)
        try:
            yield disk.becomes(KINDS[number % len(KINDS)], numbers)
        finally:
            subprocess.run(["umount", disk.place], check=True)


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)
