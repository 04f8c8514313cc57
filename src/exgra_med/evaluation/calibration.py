"""Whether stated confidence can be trusted: calibration error, Brier score, risk and coverage."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def softmax(scores: Sequence[float]) -> list[float]:
    """Scores (log-likelihoods) as probabilities that sum to one."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def calibration(
    confidence: Sequence[float], is_right: Sequence[bool], num_bins: int = 10
) -> dict[str, Any]:
    """Calibration of the chosen option's probability.

    Args:
        confidence: probability of the option that was chosen, from 0 to 1.
        is_right: whether it was right.
        num_bins: bins of equal count for the expected calibration error.

    Returns:
        `expected_calibration_error` (mean gap between confidence and accuracy over bins, weighted),
        `brier` (mean squared gap), `area_under_risk_coverage` (mean error rate when only the most
        confident share is answered, over all shares), `bins` (confidence, accuracy, count), and
        `risk_at_coverage` for a half, three quarters and all of the questions.
    """
    if not len(confidence):
        return {"num": 0}
    confident = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(is_right, dtype=np.float64)
    order = np.argsort(confident, kind="stable")
    bins = [
        {
            "confidence": float(confident[part].mean()),
            "accuracy": float(right[part].mean()),
            "num": len(part),
        }
        for part in np.array_split(order, min(num_bins, len(order)))
    ]
    falling = order[::-1]
    risk = np.cumsum(1 - right[falling]) / np.arange(1, len(falling) + 1)
    gaps = sum(each["num"] * abs(each["confidence"] - each["accuracy"]) for each in bins)
    return {
        "num": len(confident),
        "expected_calibration_error": gaps / len(confident),
        "brier": float(np.mean((confident - right) ** 2)),
        "area_under_risk_coverage": float(risk.mean()),
        "risk_at_coverage": {
            str(share): float(risk[max(0, math.ceil(share * len(risk)) - 1)])
            for share in (0.5, 0.75, 1.0)
        },
        "bins": bins,
    }
