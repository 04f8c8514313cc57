"""BLEU, intervals and tests against nltk, scipy and exact counting."""

import math
import random
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest

from exgra_med.evaluation.metrics import BLEU_WEIGHTS, sentence_bleu
from exgra_med.evaluation.statistics import interval, mcnemar, paired_permutation, wilson
from exgra_med.evaluation.tasks.reports import bleu_counts, bleu_of


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


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 9), (40, 61), (500, 600)])
def test_mcnemar_equals_counting_every_outcome(first: int, second: int) -> None:
    total = first + second
    as_extreme = sum(
        math.comb(total, heads)
        for heads in range(total + 1)
        if abs(2 * heads - total) >= abs(first - second)
    )
    assert mcnemar(first, second) == pytest.approx(float(Fraction(as_extreme, 2**total)), rel=1e-9)


@pytest.mark.parametrize(("hits", "total"), [(0, 5), (7, 9), (90, 272)])
def test_wilson_solves_its_equation(hits: int, total: int) -> None:
    """The bounds are the shares p from which the hits are just 1.96 standard errors away."""
    z = NormalDist().inv_cdf(0.975)
    bounds = wilson(hits, total)
    assert bounds is not None
    for p in bounds:
        assert (hits / total - p) ** 2 == pytest.approx(z * z * p * (1 - p) / total, abs=1e-12)


@pytest.mark.parametrize("num_clusters", [5, 6, 21, 146])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_is_expanded_by_students_quantile(num_clusters: int, level: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    samples = np.random.default_rng(num_clusters).normal(0.6, 0.1, 4000)
    quantile = stats.t(num_clusters - 1).isf((1 - level) / 2)
    tail = stats.norm.sf(quantile * math.sqrt(num_clusters / (num_clusters - 1)))
    expected = np.quantile(samples, [tail, 1 - tail])
    assert interval(samples, num_clusters, level) == pytest.approx(tuple(expected), abs=1e-9)


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


@pytest.mark.filterwarnings("ignore")
def test_bleu_of_reports_equals_nltk_and_sacrebleu() -> None:
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    sacrebleu = pytest.importorskip("sacrebleu")
    drawn = random.Random(5)
    pairs = [
        ([drawn.choice("abcdef") for _ in range(drawn.randint(5, 30))] for _ in range(2))
        for _ in range(40)
    ]
    known, said = zip(*(tuple(pair) for pair in pairs), strict=True)
    counts = np.array([bleu_counts(a, b) for a, b in zip(known, said, strict=True)])
    lines = [[" ".join(each) for each in side] for side in (known, said)]
    for order in (1, 2, 3, 4):
        weights = [1 / order] * order
        mine = bleu_of(counts, order)
        single = [nltk.sentence_bleu([a], b, weights) for a, b in zip(known, said, strict=True)]
        # Without smoothing nltk leaves about 1e-77 where an n-gram is absent.
        assert mine == pytest.approx(single, abs=1e-12)
        metric = sacrebleu.metrics.BLEU(
            max_ngram_order=order, tokenize="none", smooth_method="none", force=True
        )
        whole = metric.corpus_score(lines[1], [lines[0]]).score / 100
        assert float(bleu_of(counts.sum(axis=0), order)) == pytest.approx(whole, abs=1e-12)
