"""Killed preparing, and readers beside a writer: a folder is seen whole or not at all."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from exgra_med.data.prepare import prepare
from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError

PREPARE = """
import sys, time
from pathlib import Path
from exgra_med.data.prepare import prepare

def slowly(unit, done, total):
    Path(sys.argv[3]).write_text(str(done))
    time.sleep(0.05 if len(sys.argv) > 4 else 0)

prepare("vqa-rad", Path(sys.argv[1]), Path(sys.argv[2]), progress=slowly, overwrite=True)
"""

READ = """
import sys
from pathlib import Path
from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError

folder, until = Path(sys.argv[1]), Path(sys.argv[2])
whole = 0
while not until.exists() or not whole:
    try:
        prepared = open_prepared(folder)
        records = {split: prepared.records(split) for split in prepared.splits}
    except DataError as error:
        assert "no such folder" in str(error), error
        continue
    assert {s: len(r) for s, r in records.items()} == prepared.manifest["counts"]
    for split in records.values():
        for record in split:
            prepared.image_folder(10_000).open(record.images[0])
    whole += 1
print(whole)
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_leaves_no_folder_and_the_next_run_is_equal(
    rad: Path, tmp_path: Path
) -> None:
    reference = prepare("vqa-rad", rad, tmp_path / "reference")
    mark = tmp_path / "mark"
    process = start(PREPARE, rad, tmp_path / "out", mark, "slowly")
    while not (mark.exists() and mark.read_text() >= "2"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    with pytest.raises(DataError, match="no such folder"):
        open_prepared(tmp_path / "out")
    assert list(tmp_path.glob(".out*"))
    assert prepare("vqa-rad", rad, tmp_path / "out").fingerprint == reference.fingerprint
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_readers_beside_a_writer_see_a_whole_folder_or_none(rad: Path, tmp_path: Path) -> None:
    done = tmp_path / "done"
    readers = [start(READ, tmp_path / "out", done) for _ in range(2)]
    writer = start(PREPARE, rad, tmp_path / "out", tmp_path / "mark", "slowly")
    _, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, errors
    done.write_text("")
    for reader in readers:
        output, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors
        assert int(output) >= 1
