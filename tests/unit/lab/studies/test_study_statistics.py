"""Statistics of a study against values worked out by hand or by another route."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from exgra_med.lab.studies.compare import (
    Mean,
    Resampling,
    detectable,
    mean_over_seeds,
    metric,
    p_values,
    reached_fraction,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("quantile", "freedom", "power"),
    # Published tables of Student's t: the 97.5 % and the 80 % quantile.
    [(12.7062, 1, 1.3764), (4.3027, 2, 1.0607), (3.1824, 3, 0.9785), (2.2281, 10, 0.8791)],
)
def test_errors_are_students(quantile: float, freedom: float, power: float) -> None:
    difference = Mean(quantile * 0.5, [], None, 0.5, freedom, True)
    # Many images that mostly agree: the permutation leaves the word to the seeds.
    values = np.where(np.arange(40) % 8, 0.1, -0.1)[None, :, None]
    tests = p_values(difference, values, resampling())
    assert tests["p_images"] < 0.001
    assert tests["p"] == pytest.approx(0.05, abs=2e-5)
    assert detectable(difference) == pytest.approx(0.5 * (quantile + power), abs=2e-4)


def test_p_values_equal_closed_forms() -> None:
    values = np.where(np.arange(40) % 8, 0.1, -0.1)[None, :, None]
    for size in (0.2, 1.5, 3.0):
        for freedom, below in (
            (1, 0.5 + math.atan(size) / math.pi),
            (2, 0.5 + size / (2 * math.sqrt(2 + size * size))),
        ):
            difference = Mean(-size, [], None, 1.0, freedom, True)
            p = p_values(difference, values, resampling())["p"]
            assert p == pytest.approx(2 * (1 - below), abs=1e-12)


def test_the_metric_is_the_mean_of_its_parts_and_not_of_all_questions() -> None:
    # Three open questions at 1, 0.5, 0 and one closed at 1: (50 + 100) / 2.
    values = np.array([[[1, NAN], [0.5, NAN], [0, NAN], [NAN, 1]]])
    assert metric(values) == [75.0]


def by_seed(offsets: list[float], num_images: int = 40) -> np.ndarray:
    """A score of one part: images alternate between 0.2 and 0.6, seeds add their offset."""
    images = np.where(np.arange(num_images) % 2, 0.6, 0.2)
    return np.stack([images + offset for offset in offsets])[:, :, None]


def resampling(num_images: int = 40, num_samples: int = 4000) -> Resampling:
    return Resampling(np.arange(num_images), num_samples, 0)


def test_errors_of_images_and_of_seeds_add_up() -> None:
    offsets = [-0.03, 0.0, 0.03]
    mean = mean_over_seeds(by_seed(offsets), resampling())
    assert mean.value == pytest.approx(40) and mean.each == pytest.approx([37, 40, 43])
    images = 20 / math.sqrt(39)  # deviation 20 points, unbiased, over 40 images
    seeds = 3 / math.sqrt(3)
    assert mean.standard_error == pytest.approx(math.hypot(images, seeds), rel=0.03)
    freedom = (images**2 + seeds**2) ** 2 / (images**4 / 39 + seeds**4 / 2)
    assert mean.freedom == pytest.approx(freedom, rel=0.1)
    assert mean.interval is not None
    stats = pytest.importorskip("scipy.stats")
    half = stats.t.ppf(0.975, freedom) * math.hypot(images, seeds)
    assert mean.interval[0] == pytest.approx(40 - half, abs=0.8)
    assert mean.interval[1] == pytest.approx(40 + half, abs=0.8)


def test_seeds_that_differ_much_leave_two_degrees_of_freedom() -> None:
    values = np.ones((3, 40, 1)) * np.array([0.2, 0.4, 0.6])[:, None, None]
    mean = mean_over_seeds(values, resampling())
    assert mean.freedom == pytest.approx(2)
    assert mean.standard_error == pytest.approx(20 / math.sqrt(3))
    assert mean.interval is not None and mean.interval[0] < 0


def test_one_seed_knows_of_images_only_and_says_so() -> None:
    mean = mean_over_seeds(by_seed([0.0]), resampling())
    assert not mean.seeds_counted
    assert mean.standard_error == pytest.approx(20 / math.sqrt(39), rel=0.03)
    assert mean_over_seeds(by_seed([0.0], 4), resampling(4)).interval is None


def test_a_real_difference_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (3, 40, 1))
    for shift, found in ((0.2, True), (0.0, False)):
        difference = noise + shift
        mean = mean_over_seeds(difference, resampling())
        tests = p_values(mean, difference, resampling())
        assert (tests["p"] < 0.01) is found
        assert tests["p"] >= tests["p_images"]


def test_a_difference_that_only_one_seed_has_is_not_a_finding() -> None:
    # For these three models the images leave no doubt; another seed might do anything.
    difference = np.ones((3, 40, 1)) * np.array([0.0, 0.01, 0.3])[:, None, None]
    mean = mean_over_seeds(difference, resampling())
    tests = p_values(mean, difference, resampling())
    assert tests["p_images"] < 0.001 and tests["p"] > 0.3


def test_with_one_seed_the_permutation_over_images_decides() -> None:
    # Six images, all in favour: 2 of 64 sign patterns are as extreme.
    difference = np.full((1, 6, 1), 0.1)
    small = Resampling(np.arange(6), 200, 0)
    tests = p_values(mean_over_seeds(difference, small), difference, small)
    assert tests["p"] == tests["p_images"] == pytest.approx(2 / 64)


def test_intervals_hold_what_they_promise() -> None:
    """Simulated studies of 3 seeds and 30 images with known truth: 95 % must cover, within what
    300 studies can tell; the crossed bootstrap errs on the wide side."""
    rng = np.random.default_rng(1)
    covered = 0
    for study in range(300):
        seeds, images = rng.normal(0, 0.05, (3, 1, 1)), rng.normal(0, 0.2, (1, 30, 1))
        values = 0.5 + seeds + images + rng.normal(0, 0.2, (3, 30, 1))
        mean = mean_over_seeds(values, Resampling(np.arange(30), 300, study))
        assert mean.interval is not None
        covered += mean.interval[0] <= 50 <= mean.interval[1]
    assert covered / 300 > 0.93


def test_the_detectable_difference_is_that_of_a_two_sided_test() -> None:
    values = by_seed([0.0], 400)
    mean = mean_over_seeds(values, resampling(400))
    normal = NormalDist()
    expected = (normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) * mean.standard_error
    assert detectable(mean) == pytest.approx(expected, rel=0.01)


def test_the_fraction_that_reaches_a_goal() -> None:
    # 99 resamples and the observation, which comes last.
    goal = np.full(100, 60.0)
    low = np.where(np.arange(100) < 50, 61.0, 55.0)
    curve = [(0.1, low), (0.4, np.full(100, 62.0)), (1.0, np.full(100, 70.0))]
    assert reached_fraction(curve, goal) == (0.4, [0.1, 0.4], 1.0)
    never = [(0.1, np.full(100, 40.0)), (1.0, np.full(100, 59.0))]
    assert reached_fraction(never, goal) == (None, [None, None], 0.0)
    # A larger share that falls below the goal again does not take the smaller one back.
    dips = [(0.1, np.full(100, 61.0)), (0.4, np.full(100, 50.0))]
    assert reached_fraction(dips, goal)[0] == 0.1


def test_no_spread_over_images_and_seeds_is_no_certainty() -> None:
    """All of 40 images wrong under every seed: the exact binomial bound, 1 - 0.025^(1/40)."""
    others = 100 * (1 - 0.025 ** (1 / 40))
    nothing = np.zeros((2, 40, 1))
    assert mean_over_seeds(nothing, resampling()).interval == pytest.approx((0.0, others))
    difference = mean_over_seeds(nothing, resampling(), -1.0)
    assert difference.interval == pytest.approx((-others, others))
