"""A great many answers: no question is looked at once for every other one."""

import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_med.data.records import Record, Turn, write_records
from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import (
    Joined,
    Prediction,
    PredictionsAside,
    PredictionWriter,
    pair,
    question_of,
    read_predictions,
)
from exgra_med.evaluation.engines import predict_all
from exgra_med.evaluation.existence import existence
from exgra_med.evaluation.score import counts_of, score_files, score_vqa
from exgra_med.evaluation.statistics import cluster_codes


def question(number: int) -> Record:
    turns = [
        Turn(role="user", text="Is there a nodule?"),
        Turn(role="assistant", text=("yes", "no")[number % 2]),
    ]
    return Record(id=str(number), image=f"{number % 50}.png", turns=turns, answer_type="CLOSED")


def test_time_grows_with_the_answers_and_not_with_their_square() -> None:
    number = 16_000
    pairing = pair(
        [Prediction(str(each), ("yes", "no")[each % 3 % 2]) for each in range(number)],
        [question_of(question(each)) for each in range(number)],
    )
    start = time.process_time()
    counts, found = counts_of(pairing), existence(pairing, 50)
    # With a list of all answers for each of them it takes seven seconds, now a tenth of one.
    assert time.process_time() - start < 2
    assert counts["questions"] == counts["usable"] == number
    assert found is not None and found["all"]["num_absent"] == number // 2


def test_codes_of_repeated_names_are_those_of_the_whole_list() -> None:
    names = ["c", "a\nb", "c", "b", "d\na", "e", "c\ne", "d"]
    assert cluster_codes(names).tolist() == [0, 1, 0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("torn", [b'{"id": "2", "te', b'{"id": "2", "text": "yes"}'])
def test_a_long_last_line_is_found_behind_many(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    long = "long " * 40_000  # longer than what is read at a time
    with PredictionWriter(path) as writer:
        writer.append([Prediction("0", long), Prediction("1", "no")])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    if torn.endswith(b"}"):
        # A whole answer without its line end and digest is of nobody who writes digests.
        path.write_bytes(b'{"id": "0", "text": "no"}\n' + torn)
    with PredictionWriter(path) as writer:
        done = {each for each in "012" if each in writer.done}
        assert done == ({"0", "2"} if torn.endswith(b"}") else {"0", "1"})
    if not torn.endswith(b"}"):
        assert path.read_bytes() == whole
        path.write_bytes(whole[:-1])
        with PredictionWriter(path) as writer:
            writer.append([Prediction("2", "yes")])
        assert path.read_bytes().startswith(whole)


NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])


@given(
    asked=st.lists(NAMES, min_size=1, unique=True),
    said=st.lists(st.tuples(NAMES, st.sampled_from(["yes", "no", " "])), min_size=1),
)
def test_answers_find_their_questions_as_by_a_table_of_names(
    asked: list[str], said: list[tuple[str, str]]
) -> None:
    questions = [replace(question_of(question(0)), id=name) for name in asked]
    predictions = [Prediction(*each) for each in said]
    texts: dict[str, list[str]] = {}
    for name, text in said:
        texts.setdefault(name, []).append(text)
    if not texts.keys() & set(asked):
        with pytest.raises(ScoreError, match="No prediction has the id of a question"):
            pair(predictions, questions)
        return
    found = pair(predictions, questions)
    expected = [texts[n][0] if n in texts and len({*texts[n]}) == 1 else None for n in asked]
    assert list(found.answers) == found.answers[:] == expected
    assert found.counts == {
        "questions": len(asked),
        "predictions": len(said),
        "missing": len(set(asked) - texts.keys()),
        "extra": len(texts.keys() - set(asked)),
        "duplicate": sum(len(texts.get(name, ())) > 1 for name in asked),
        "contradictory": sum(len({*texts.get(name, ())}) > 1 for name in asked),
        "empty": sum(each == " " for each in expected),
    }
    first = [name for name in texts if name in asked]
    assert found.same_order == (first == [name for name in asked if name in texts])


@given(st.lists(st.integers(-1, 9), max_size=20))
def test_joined_answers_are_those_of_their_rows(rows: list[int]) -> None:
    predictions = [Prediction(str(n), f"answer {n}") for n in range(10)]
    for kept in (predictions, PredictionsAside(predictions)):
        joined = Joined(kept, np.array(rows, dtype=np.int64))
        assert list(joined) == joined[:] == [None if n < 0 else predictions[n] for n in rows]


def files(folder: Path, number: int) -> tuple[Path, Path]:
    write_records(folder / "asked.jsonl", (question(each) for each in range(number)))
    with PredictionWriter(folder / "answers.jsonl") as writer:
        writer.append([Prediction(str(n), ("yes", "no", "Hm")[n % 3]) for n in range(number)])
    return folder / "answers.jsonl", folder / "asked.jsonl"


def test_files_score_as_lists_in_memory_do(tmp_path: Path) -> None:
    answers, asked = files(tmp_path, 300)
    from_files = score_files(answers, asked, num_bootstrap_samples=50)
    from_memory = score_vqa(
        list(read_predictions(answers).predictions),
        [question(each) for each in range(300)],
        num_bootstrap_samples=50,
    )
    assert from_memory.items() <= from_files.items()


def test_a_further_question_takes_few_bytes(tmp_path: Path) -> None:
    most = []
    for number in (2000, 6000):
        folder = tmp_path / str(number)
        folder.mkdir()
        answers, asked = files(folder, number)
        tracemalloc.start()
        score_files(answers, asked, num_bootstrap_samples=0)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Held in memory, a question and its answer take 2,400.
    assert (most[1] - most[0]) / 4000 < 500


def test_questions_of_a_picture_share_a_batch(tmp_path: Path) -> None:
    def asked(number: int, image: str | None) -> Record:
        turns = [
            Turn(role="user", text="Is it" + " so" * (number * 7 % 5)),
            Turn(role="assistant", text="yes"),
        ]
        return Record(id=str(number), image=image, turns=turns)

    names = ["b", None, "a", "once", "b", None, "a", "also once", "b"]
    records = [asked(number, name) for number, name in enumerate(names)]
    times = Counter(record.image_group for record in records if record.id != "3")
    expected = sorted(
        (number for number, record in enumerate(records) if record.id != "3"),
        key=lambda number: (
            len(records[number].images),
            names[number] or "" if times[records[number].image_group] > 1 else "",
            len(records[number].question),
        ),
    )
    answered: list[str] = []

    def make(batch: Sequence[Record]) -> list[Prediction]:
        answered.extend(record.id for record in batch)
        return [Prediction(record.id, "yes") for record in batch]

    out = tmp_path / "answers.jsonl"
    predict_all(make, records[3:4], out, 4, {})
    answered.clear()
    predict_all(make, records, out, 4, {})
    assert answered == [str(number) for number in expected]
