"""The statistics refuse in a sentence what would give a wrong number, and take lists."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from exgra_med.errors import ScoreError
from exgra_med.evaluation.answers import Prediction, Question
from exgra_med.evaluation.score import score_vqa
from exgra_med.evaluation.statistics import (
    cluster_bootstrap,
    cluster_codes,
    holm,
    interval,
    mcnemar,
    paired_permutation,
    smallest_difference,
    wilson,
)

TWO = np.ones((20, 2))
FAULTS: list[tuple[Callable[[], Any], str]] = [
    (lambda: cluster_bootstrap([1.0, 0.0], [-1, 0]), "whole numbers from 0 on"),
    (lambda: cluster_bootstrap([1.0, 0.0], [0, 7]), "without a gap"),
    (lambda: cluster_bootstrap([1.0, 0.0], [0.0, 1.0]), "whole numbers"),
    (lambda: cluster_bootstrap([1.0, 0.0], [0, 1, 2]), r"2 items, and clusters .* \(3,\)"),
    (lambda: cluster_bootstrap([], []), r"shape \(0,\)"),
    (lambda: cluster_bootstrap(np.ones((0, 2)), []), "at least one item"),
    (lambda: cluster_bootstrap(np.ones((2, 2, 2)), [0, 1]), r"\(2, 2, 2\)"),
    (lambda: cluster_bootstrap(["yes", "no"], [0, 1]), "not an array of numbers"),
    (lambda: cluster_bootstrap([1.0, np.inf], [0, 1]), "infinite"),
    (lambda: cluster_bootstrap([1.0, 0.0], [0, 1], num_samples=-1), "num_samples=-1"),
    (lambda: interval(TWO, 20), r"one measure is needed.*samples\[:, 0\]"),
    (lambda: interval(TWO[:, 0], 20, level=95), "level=95 .*0.95"),
    (lambda: interval(TWO[:, 0], 20, level=float("nan")), "level=nan"),
    (lambda: interval(TWO[:, 0], -3), "num_clusters=-3"),
    (lambda: interval(TWO[:, 0], 2.5), "num_clusters=2.5"),
    (lambda: wilson(5, 3), "hits=5 is more than total=3"),
    (lambda: wilson(-1, 3), "hits=-1"),
    (lambda: wilson(1, 3, level=95), "level=95"),
    (lambda: mcnemar(-1, 3), "only_first=-1"),
    (lambda: mcnemar(1, 3.5), "only_second=3.5"),
    (lambda: holm([1.5, 0.2]), "1.5 is no p-value"),
    (lambda: holm([0.1, -0.2]), "-0.2 is no p-value"),
    (lambda: holm([0.1, float("nan")]), "nan is no p-value"),
    (lambda: paired_permutation(TWO, np.arange(20)), "one measure"),
    (lambda: paired_permutation([], []), "at least one item"),
    (lambda: paired_permutation([1.0], [0], num_samples=0), "num_samples=0"),
    (lambda: smallest_difference(-1.0), "standard_error=-1.0"),
    (lambda: smallest_difference(1.0, power=80), "power=80"),
]


@pytest.mark.parametrize(("call", "sentence"), FAULTS)
def test_a_wrong_number_in_gives_a_sentence(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ScoreError, match=sentence):
        call()


def test_lists_give_what_arrays_give() -> None:
    values, names = [1, 0, 1, 1, 0, 1], ["a", "a", "b", "c", "d", "e"]
    codes = cluster_codes(names)
    samples = cluster_bootstrap(np.array(values, float), codes, 200, seed=3)
    assert np.array_equal(samples, cluster_bootstrap(values, codes.tolist(), 200, seed=3))
    assert interval(samples, codes) == interval(samples[:, 0].tolist(), 5)
    differences = np.array(values, float) - 0.5
    assert paired_permutation(differences, codes) == paired_permutation(
        differences.tolist(), codes.tolist()
    )


def test_codes_of_a_part_of_the_clusters_are_counted() -> None:
    samples = np.linspace(0, 1, 50)
    assert interval(samples, [3, 3, 8, 9, 1]) is None
    assert interval(samples, [3, 3, 8, 9, 1, 2, 30]) == interval(samples, 6)


def test_no_resamples_give_no_interval() -> None:
    samples = cluster_bootstrap(TWO, np.arange(20), 0)
    assert samples.shape == (0, 2)
    assert interval(samples[:, 0], 20) is None


@pytest.mark.parametrize("number", [-1, 1.5, True])
def test_a_score_refuses_a_number_of_resamples_that_is_none(number: Any) -> None:
    question = Question("1", "Is it?", "yes", "CLOSED")
    with pytest.raises(ScoreError, match="num_bootstrap_samples"):
        score_vqa([Prediction("1", "yes")], [question], num_bootstrap_samples=number)
