"""Own BLEU and tests against nltk and scipy."""

import random

import numpy as np
import pytest

from exgra_med.evaluation.metrics.legacy import BLEU_WEIGHTS, sentence_bleu
from exgra_med.evaluation.statistics import mcnemar, paired_permutation, student_quantile, wilson


@pytest.mark.filterwarnings("ignore")
def test_bleu_equals_nltk_to_the_last_bit() -> None:
    oracle = pytest.importorskip("nltk.translate.bleu_score")
    numbers = random.Random(0)
    for _ in range(400):
        reference = numbers.choices("abcd", k=numbers.randint(0, 9))
        hypothesis = numbers.choices("abcde", k=numbers.randint(0, 9))
        ours = sentence_bleu(reference, hypothesis)
        for name, weights in BLEU_WEIGHTS.items():
            assert ours[name] == oracle.sentence_bleu([reference], hypothesis, weights=weights)


def test_paired_tests_equal_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for first, second in [(0, 1), (3, 9), (40, 61), (500, 600)]:
        expected = stats.binomtest(first, first + second, 0.5).pvalue
        assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    for hits, total in [(0, 5), (7, 9), (90, 272)]:
        expected = stats.binomtest(hits, total).proportion_ci(method="wilson")
        assert wilson(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-12)
    for freedom in (5, 20, 145):
        exact = stats.t.ppf(0.975, freedom)
        assert student_quantile(0.975, freedom) == pytest.approx(exact, abs=0.01)


def test_permutation_equals_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for size in (9, 60):
        differences = generator.normal(0.25, 1.0, size)
        expected = stats.permutation_test(
            (differences, np.zeros(size)),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=20_000,
            vectorized=True,
            rng=1,
        ).pvalue
        ours = paired_permutation(differences, np.arange(size), 20_000, seed=1)
        assert ours == pytest.approx(expected, abs=0.012 if size > 20 else 1e-9)
