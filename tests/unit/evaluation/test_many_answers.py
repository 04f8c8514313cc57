"""A great many answers: no question is looked at once for every other one."""

import time
from pathlib import Path

import pytest

from exgra_med.data.records import Record, Turn
from exgra_med.evaluation.answers import Prediction, PredictionWriter, pair, question_of
from exgra_med.evaluation.existence import existence
from exgra_med.evaluation.score import counts_of
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
    assert pairing.answers is pairing.answers
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
        assert writer.done == ({"0", "2"} if torn.endswith(b"}") else {"0", "1"})
    if not torn.endswith(b"}"):
        assert path.read_bytes() == whole
        path.write_bytes(whole[:-1])
        with PredictionWriter(path) as writer:
            writer.append([Prediction("2", "yes")])
        assert path.read_bytes().startswith(whole)
