"""Memory while a million records pass by stays flat."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = r"""
import re, sys
from pathlib import Path
from exgra_med.data.records import iterate_records, write_records
from exgra_med.data.records import Record, Turn

def peak():
    # Not `ru_maxrss`: a process that is started takes over the one of the process that starts it.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

def make(n):
    question = Turn(role="user", text=f"What is shown in figure {n}? " * 4)
    turns = [question, Turn(role="assistant", text="A scan. " * 10)]
    more = {"image": f"{n}.jpg", "extended": ["Long. " * 40]}
    return Record(id=f"synthetic/train/{n}", turns=turns, **more)

path, count = Path(sys.argv[1]), int(sys.argv[2])
start = peak()
assert write_records(path, (make(n) for n in range(count))) == count
assert sum(1 for _ in iterate_records(path)) == count
print(peak() - start, peak())
"""


pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="the system does not tell peak memory"
)


def megabytes(folder: Path, count: int) -> tuple[float, float]:
    """What writing and reading take, and the most of the whole process."""
    arguments = [sys.executable, "-c", CODE, str(folder / "train.jsonl"), str(count)]
    result = subprocess.run(arguments, check=True, capture_output=True, text=True)
    growth, peak = map(float, result.stdout.split())
    return growth, peak


def test_ten_thousand_records_take_few_megabytes(tmp_path: Path) -> None:
    # Held in memory they would take about 30 MB.
    assert megabytes(tmp_path, 10_000)[0] < 10


@pytest.mark.slow
def test_a_million_records_take_less_than_500_megabytes(tmp_path: Path) -> None:
    growth, peak = megabytes(tmp_path, 1_000_000)
    assert growth < 500 and peak < 700
