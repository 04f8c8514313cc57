"""Intervals cover what they promise; tests agree with hand counts."""

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from exgra_med.evaluation.statistics import (
    cluster_bootstrap,
    cluster_codes,
    holm,
    interval,
    mcnemar,
    mean_interval,
    paired_permutation,
    paired_tests,
    scores_of,
    smallest_difference,
    wilson,
    without_spread,
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


@pytest.mark.parametrize("num_clusters", [40, pytest.param(200, marks=pytest.mark.slow)])
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


@pytest.mark.parametrize(("num_clusters", "share"), [(22, 0.08), (60, 0.03), (22, 0.92)])
def test_intervals_near_an_end_cover_too(num_clusters: int, share: float) -> None:
    """Questions about one image hang together; plain resamples cover 88 to 91 % of such shares."""
    generator = np.random.default_rng(num_clusters)
    covered, runs = 0, 250
    for run in range(runs):
        sizes = generator.integers(1, 6, num_clusters)
        chance = np.repeat(generator.beta(share, 1 - share, num_clusters), sizes)
        values = (generator.random(len(chance)) < chance).astype(float)
        codes = np.repeat(np.arange(num_clusters), sizes)
        samples = cluster_bootstrap(values, codes, 400, seed=run)
        low, high = mean_interval(samples, [float(values.mean())], [num_clusters]) or (0.0, 0.0)
        covered += low <= share <= high
    assert covered / runs >= 0.94


def test_one_hit_of_22_reaches_further_than_none_and_than_its_resamples() -> None:
    """No jump from the exact bounds of 0 of 22 back to those that resamples of one hit reach."""
    reach = []
    for hits in range(8):
        values = np.r_[np.ones(hits), np.zeros(22 - hits)]
        samples = cluster_bootstrap(values, np.arange(22), 4000, seed=1)
        low, high = mean_interval(samples, [hits / 22], [22]) or (0.0, 0.0)
        exact = binomtest(hits, 22).proportion_ci(0.95, method="exact")
        if 0 < hits < 5:
            assert low <= exact.low + 0.002 and high >= exact.high - 0.02
        reach.append(high)
    assert reach == sorted(reach)


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


def oracle_p(differences: np.ndarray, weights: np.ndarray, shift: float) -> float:
    """scipy's exact sign-flip test of clusters, `shift` taken off every item."""
    found = permutation_test(
        (differences - shift * weights,),
        lambda flipped, axis: np.abs(flipped.sum(axis=axis)),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
        alternative="greater",
    )
    return float(found.pvalue)


@pytest.mark.parametrize("level", [0.95, 0.9, 0.99])
def test_an_interval_is_all_that_the_sign_flip_test_does_not_refuse(level: float) -> None:
    generator = np.random.default_rng(3)
    for size in (8, 10):
        weights = generator.integers(1, 6, size) / 1.0
        weights /= weights.sum()
        own = generator.normal(0.15, 0.4, size) * weights
        (test,) = paired_tests(own, weights, np.arange(size))
        assert test.value == pytest.approx(own.sum())
        assert test.p == pytest.approx(oracle_p(own, weights, 0.0))
        low, high = test.interval(level) or (0.0, 0.0)
        if low > -1:
            assert oracle_p(own, weights, low + 1e-6) >= 1 - level - 1e-12
            assert oracle_p(own, weights, low - 1e-6) < 1 - level
        if high < 1:
            assert oracle_p(own, weights, high - 1e-6) >= 1 - level - 1e-12
            assert oracle_p(own, weights, high + 1e-6) < 1 - level


def test_too_few_images_leave_every_difference_open() -> None:
    """With 5 images no flip test reaches 0.05: 2 / 32 is its smallest p-value."""
    own = np.array([0.2, 0.1, 0.2, 0.2, 0.1])
    (test,) = paired_tests(own, np.full(5, 0.2), np.arange(5))
    assert test.p == 2 / 32 and test.interval() == (-1.0, 1.0)
    (test,) = paired_tests(own[:4], np.full(4, 0.25), np.arange(4))
    assert test.interval() is None


def test_random_flips_agree_with_all_of_them() -> None:
    generator = np.random.default_rng(0)
    own = generator.normal(0.3, 1, 12) / 12
    weights = np.full(12, 1 / 12)
    (exact,) = paired_tests(own, weights, np.arange(12))
    (drawn,) = paired_tests(own, weights, np.arange(12), num_samples=4000, seed=1)
    assert len(exact.lows) == 4096 and len(drawn.lows) == 4001
    assert drawn.p == pytest.approx(exact.p, abs=0.02)
    assert drawn.interval() == pytest.approx(exact.interval(), abs=0.04)


def test_the_interval_of_a_difference_covers_it() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        own = (generator.random(30) < 0.6) * 1.0 - (generator.random(30) < 0.4)
        (test,) = paired_tests(own / 30, np.full(30, 1 / 30), np.arange(30), 500)
        low, high = test.interval() or (0.0, 0.0)
        covered += low <= 0.2 <= high
    assert covered / 300 > 0.92


@pytest.mark.parametrize("num", [1, 5, 22, 60])
def test_a_proportion_without_spread_has_the_exact_binomial_bounds(num: int) -> None:
    for hits in (0, num):
        exact = binomtest(hits, num).proportion_ci(0.95, method="exact")
        found = without_spread(hits / num, num)
        assert found == pytest.approx((exact.low, exact.high))
    # By hand: 1 - 0.025^(1/8) = 1 - e^(-3.6889 / 8) = 0.3694.
    assert without_spread(0.0, 8)[1] == pytest.approx(0.3694, abs=1e-4)
    # All images half right: others may be wholly wrong, or right.
    low, high = without_spread(0.5, num)
    assert (low, high) == pytest.approx((0.5 - (0.5 - 0.0) * exact_others(num),
                                         0.5 + 0.5 * exact_others(num)))  # fmt: skip


def exact_others(num: int) -> float:
    return 1 - 0.025 ** (1 / num)


def test_the_same_difference_everywhere_is_no_certainty() -> None:
    """One run right on all of n images and the other wrong: p is that of n fair coins."""
    for num in (6, 20):
        (test,) = paired_tests(np.full(num, 1 / num), np.full(num, 1 / num), np.arange(num))
        assert test.p == pytest.approx(2 / 2**num)
        assert test.interval() == pytest.approx((1 - 2 * exact_others(num), 1.0))
    (test,) = paired_tests(np.full(9, -0.1 / 9), np.full(9, 1 / 9), np.arange(9))
    for level in (0.5, 0.9, 0.95):
        low, high = test.interval(level) or (0.0, 0.0)
        assert (low <= 0 <= high) == (test.p >= 1 - level)


def test_a_mean_with_a_part_without_spread_is_as_wide_as_that_part_is_unsure() -> None:
    generator = np.random.default_rng(0)
    closed = generator.normal(0.6, 0.05, 4000)
    samples = np.stack([np.zeros(4000), closed], axis=1)
    low, high = mean_interval(samples, [0.0, 0.6], [8, 8], 8) or (0.0, 0.0)
    own = interval(closed, 8) or (0.0, 0.0)
    assert low == pytest.approx(0.3 - (0.6 - own[0]) / 2)
    assert high == pytest.approx(0.3 + np.hypot(exact_others(8), own[1] - 0.6) / 2)
    varied = np.stack([generator.normal(0.3, 0.05, 4000), closed], axis=1)
    assert mean_interval(varied, [0.3, 0.6], [8, 8], 8) == interval(varied.mean(axis=1), 8)
    assert mean_interval(samples, [0.0, 0.6], [3, 3], 3) is None


def test_a_ratio_without_spread_has_no_interval() -> None:
    """A grade may be above that of the reference, so nothing bounds what was not seen."""
    values = np.stack([np.full(8, 1.25), np.zeros(8)], axis=1)
    found = scores_of(values, ("grade", "win"), np.arange(8), 200, 0, ratios=("grade",))
    assert found["grade"] == {"value": 125.0, "interval": None, "count": 8}
    assert found["win"]["interval"] == pytest.approx([0.0, 100 * exact_others(8)])
    values[0, 0] = 0.5
    found = scores_of(values, ("grade", "win"), np.arange(8), 200, 0, ratios=("grade",))
    assert found["grade"]["interval"][1] >= 125.0
