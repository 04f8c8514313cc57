"""Answers are made once, in any batch, and go on after a kill."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from exgra_med.data.records import Record
from exgra_med.errors import DataError, RunError
from exgra_med.evaluation.answers import Prediction, read_predictions
from exgra_med.evaluation.engines import facts_path, predict_all, shown_question


def record(number: int, **meta: object) -> Record:
    return Record.model_validate(
        {
            "id": str(number),
            "turns": [
                {"role": "user", "text": "Why? " * (number % 7 + 1)},
                {"role": "assistant", "text": "yes"},
            ],
            "meta": meta,
        }
    )


RECORDS = [record(number) for number in range(20)]


def echo(records: Sequence[Record]) -> list[Prediction]:
    return [Prediction(each.id, f"answer {each.id}") for each in records]


def test_every_record_gets_its_own_answer_and_lengths_share_a_batch(tmp_path: Path) -> None:
    batches: list[list[int]] = []

    def answer(records: Sequence[Record]) -> list[Prediction]:
        batches.append([len(each.question) for each in records])
        return echo(records)

    out = tmp_path / "predictions" / "a.jsonl"
    seen: list[tuple[int, int]] = []
    made = predict_all(answer, RECORDS, out, 6, {}, lambda a, b: seen.append((a, b)))
    assert made == 20
    found = {each.id: each.text for each in read_predictions(out).predictions}
    assert found == {str(i): f"answer {i}" for i in range(20)}
    flat = [length for batch in batches for length in batch]
    assert flat == sorted(flat)
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    assert seen == [(0, 20), (6, 20), (12, 20), (18, 20), (20, 20)]


def test_answers_on_disk_are_not_made_again(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"

    def fail_after_two(records: Sequence[Record]) -> list[Prediction]:
        if out.exists() and out.read_bytes().count(b"\n") >= 8:
            raise KeyboardInterrupt
        return echo(records)

    with pytest.raises(KeyboardInterrupt):
        predict_all(fail_after_two, RECORDS, out, 4, {"seed": 1})
    with out.open("ab") as stream:
        stream.write(b'{"id": "torn')
    assert predict_all(echo, RECORDS, out, 4, {"seed": 1}) == 12
    assert sorted(int(each.id) for each in read_predictions(out).predictions) == list(range(20))
    assert predict_all(echo, RECORDS, out, 4, {"seed": 1}) == 0


def test_answers_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    predict_all(echo, RECORDS[:3], out, 2, {"checkpoint": "a", "template": "exgra"})
    with pytest.raises(RunError, match="another checkpoint"):
        predict_all(echo, RECORDS, out, 2, {"checkpoint": "b", "template": "exgra"})
    facts_path(out).unlink()
    with pytest.raises(RunError, match="nothing says how"):
        predict_all(echo, RECORDS, out, 2, {"checkpoint": "b"})


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="repeat"):
        predict_all(echo, [RECORDS[0], RECORDS[0]], tmp_path / "a.jsonl", 2, {})


def test_the_stored_prompt_names_the_options() -> None:
    shown = shown_question(record(0, options=["Yes", "No"]))
    assert shown == 'Why? (Answer with either "Yes" or "No").'


def test_a_killed_process_loses_at_most_the_batch_it_was_in(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    code = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_predict import RECORDS, echo
        from exgra_med.evaluation.engines import predict_all
        def answer(records):
            if any(int(each.id) == 19 for each in records):
                os.kill(os.getpid(), signal.SIGKILL)
            return echo(records)
        predict_all(answer, RECORDS, Path({str(out)!r}), 3, {{}})
        """
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    before = out.read_bytes()
    assert before.count(b"\n") % 3 == 0
    made = predict_all(echo, RECORDS, out, 3, {})
    assert made == 20 - before.count(b"\n")
    assert out.read_bytes().startswith(before)
