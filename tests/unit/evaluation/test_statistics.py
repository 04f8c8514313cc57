"""Intervals cover what they promise; tests agree with hand counts."""

import numpy as np
import pytest

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


def test_clusters_are_numbered_in_order_of_appearance() -> None:
    assert cluster_codes(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


def test_values_that_do_not_count_stay_out_of_the_mean() -> None:
    values = np.array([[1.0, np.nan], [np.nan, 0.0], [1.0, 0.0]])
    samples = cluster_bootstrap(values, np.array([0, 1, 2]), 500, seed=1)
    assert set(samples[~np.isnan(samples[:, 0]), 0]) == {1.0}
    assert set(samples[~np.isnan(samples[:, 1]), 1]) == {0.0}
    assert np.isnan(samples).any()


def test_resampling_draws_whole_clusters() -> None:
    values = np.array([0.0, 0.0, 1.0, 1.0])
    samples = cluster_bootstrap(values, np.array([0, 0, 1, 1]), 400, seed=2)
    assert set(samples[:, 0]) == {0.0, 0.5, 1.0}


def test_chunks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50)
    clusters = np.arange(50) // 5
    whole = cluster_bootstrap(values, clusters, 64, seed=5)
    monkeypatch.setattr("exgra_med.evaluation.statistics._CHUNK_NUMBERS", 70)
    assert np.array_equal(whole, cluster_bootstrap(values, clusters, 64, seed=5))


def _coverage(num_clusters: int, runs: int) -> float:
    generator = np.random.default_rng(num_clusters)
    covered = 0
    for run in range(runs):
        # Clusters of one to five questions whose chance of a hit they share; the mean is 0.6.
        sizes = generator.integers(1, 6, num_clusters)
        chance = np.repeat(generator.beta(3, 2, num_clusters), sizes)
        clusters = np.repeat(np.arange(num_clusters), sizes)
        values = (generator.random(len(chance)) < chance).astype(float)
        samples = cluster_bootstrap(values, clusters, 1000, seed=run)
        bounds = interval(samples[:, 0], num_clusters)
        assert bounds is not None
        covered += bounds[0] <= 0.6 <= bounds[1]
    return covered / runs


@pytest.mark.parametrize("num_clusters", [40, 200])
def test_intervals_of_95_percent_cover_93_to_97(num_clusters: int) -> None:
    assert 0.93 <= _coverage(num_clusters, runs=1000) <= 0.97


def test_ignoring_clusters_would_cover_too_little() -> None:
    generator = np.random.default_rng(9)
    covered = 0
    for run in range(300):
        chance = np.repeat(generator.beta(0.6, 0.4, 60), 8)
        values = (generator.random(480) < chance).astype(float)
        bounds = interval(cluster_bootstrap(values, np.arange(480), 400, seed=run)[:, 0], 480)
        assert bounds is not None
        covered += bounds[0] <= 0.6 <= bounds[1]
    assert covered / 300 < 0.8


def test_a_few_clusters_have_no_interval() -> None:
    assert interval(np.linspace(0, 1, 10), 4) is None
    assert interval(np.linspace(0, 1, 10), 5) is not None
    assert interval(np.full(10, np.nan), 5) is None


def test_wilson_by_hand() -> None:
    bounds = wilson(8, 10)
    assert bounds == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(0, 0) is None


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar(3, 3) == 1.0


def test_permutation_by_hand() -> None:
    # Three clusters that all favour the first run: 2 of the 8 sign patterns are as extreme.
    differences = np.array([1.0, 0.5, 0.5, 1.0])
    assert paired_permutation(differences, np.array([0, 1, 1, 2])) == pytest.approx(0.25)
    assert paired_permutation(np.zeros(4), np.arange(4)) == 1.0
    assert paired_permutation(np.array([np.nan, 1.0]), np.arange(2)) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_smallest_difference_by_hand() -> None:
    # 1.95996 + 0.84162
    assert smallest_difference(1.0) == pytest.approx(2.8016, abs=1e-3)


def test_an_interval_widens_for_few_clusters_by_hand() -> None:
    samples = np.linspace(0, 1, 10_001)
    # Student's 97.5 % quantile is 2.2281 with 10 degrees of freedom; times sqrt(11 / 10) it is
    # 2.3369, which a normal value stays below with a chance of 0.00972.
    assert interval(samples, 11) == pytest.approx((0.00972, 0.99028), abs=1e-5)
    assert interval(samples, 10**6) == pytest.approx((0.025, 0.975), abs=1e-5)
