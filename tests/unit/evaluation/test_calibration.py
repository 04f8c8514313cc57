"""Calibration by hand."""

import pytest

from exgra_med.evaluation.tasks.multiple_choice import calibration, softmax


def test_softmax_survives_large_scores() -> None:
    assert softmax([-1000.0, -1000.0]) == [0.5, 0.5]
    assert sum(softmax([3.0, -2.0, 0.5])) == pytest.approx(1.0)


def test_a_confident_and_half_right_answerer() -> None:
    result = calibration([0.9, 0.9, 0.6, 0.6], [True, True, False, True], num_bins=2)
    assert [each["accuracy"] for each in result["bins"]] == [0.5, 1.0]
    assert result["expected_calibration_error"] == pytest.approx(0.1)
    assert result["brier"] == pytest.approx((0.01 + 0.01 + 0.36 + 0.16) / 4)
    assert result["risk_at_coverage"]["0.5"] == 0.0
    assert result["risk_at_coverage"]["1.0"] == 0.25
    assert calibration([], []) == {"num": 0}


def test_confidence_that_orders_answers_lowers_the_area() -> None:
    right = [True] * 8 + [False] * 2
    ordered = calibration([0.9] * 8 + [0.1] * 2, right)
    reversed_ = calibration([0.1] * 8 + [0.9] * 2, right)
    assert ordered["area_under_risk_coverage"] < reversed_["area_under_risk_coverage"]
