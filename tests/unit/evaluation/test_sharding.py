"""Parts of several processes become one file, and none is lost."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from exgra_med.evaluation.answers import Prediction, PredictionWriter, read_predictions
from exgra_med.evaluation.engines import Processes, join_parts, launched_processes


def test_one_process_writes_the_common_file() -> None:
    assert launched_processes() == Processes(0, 1)
    assert Processes(0, 1).part(Path("a/b.jsonl")) == Path("a/b.jsonl")
    assert Processes(2, 4).part(Path("a/b.jsonl")) == Path("a/b.part-2.jsonl")


def test_parts_are_joined_once_and_another_files_parts_are_left(tmp_path: Path) -> None:
    out = tmp_path / "vqa.jsonl"
    for name, ids in (("vqa", "ab"), ("vqa.part-0", "bc"), ("vqa.part-1", "d"), ("x.part-0", "z")):
        with PredictionWriter(tmp_path / f"{name}.jsonl") as writer:
            writer.append([Prediction(each, each) for each in ids])
    with (tmp_path / "vqa.part-1.jsonl").open("ab") as stream:
        stream.write(b'{"id": "torn')
    assert join_parts(out) == 2
    assert [each.id for each in read_predictions(out).predictions] == list("abcd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vqa.jsonl", "x.part-0.jsonl"]
    assert join_parts(out) == 0


@pytest.mark.slow
def test_two_processes_answer_every_question_once(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    code = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_predict import RECORDS, echo
        from exgra_med.evaluation.engines import predict_all
        made = predict_all(echo, RECORDS, Path({str(out)!r}), 3, {{}})
        assert made == 10, made
        """
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    workers = []
    for rank in ("0", "1"):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "WORLD_SIZE": "2",
            "RANK": rank,
            "LOCAL_RANK": rank,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "ACCELERATE_USE_CPU": "true",
        }
        workers.append(subprocess.Popen([sys.executable, "-c", code], env=environment))
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    ids = sorted(int(each.id) for each in read_predictions(out).predictions)
    assert ids == list(range(20))
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["a.jsonl"]
