"""The losses without graphs against their definitions, term by term in float64."""

import math

import numpy as np
import pytest
import torch

from exgra_med.alignment.controls import (
    CONTROLS,
    control_loss,
    infonce,
    optimal_transport,
    retrieval_accuracy,
    siglip,
)

B = 5


def pair_of_views(seed: int) -> tuple[torch.Tensor, torch.Tensor, list[list[float]]]:
    """Two views [B, 8], rows of any length, and their cosines."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, B, 8)) * rng.uniform(0.5, 3.0, (2, B, 1))
    cosines = [
        [float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)) for b in second] for a in first
    ]
    return torch.tensor(first), torch.tensor(second), cosines


@pytest.mark.parametrize("seed", range(3))
def test_infonce_is_the_cross_entropy_of_both_directions(seed: int) -> None:
    first, second, cosines = pair_of_views(seed)
    total = 0.0
    for b in range(B):
        own = math.exp(cosines[b][b] / 0.07)
        total -= math.log(own / sum(math.exp(cosines[b][c] / 0.07) for c in range(B)))
        total -= math.log(own / sum(math.exp(cosines[c][b] / 0.07) for c in range(B)))
    assert float(infonce(first, second)) == pytest.approx(total / (2 * B), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_siglip_is_a_yes_or_no_for_each_pair(seed: int) -> None:
    first, second, cosines = pair_of_views(seed)
    total = 0.0
    for b in range(B):
        for c in range(B):
            sign = 1 if b == c else -1
            total += math.log(1 + math.exp(-sign * (10 * cosines[b][c] - 10)))
    assert float(siglip(first, second)) == pytest.approx(total / B, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_transport_scales_rows_and_columns_in_turn(seed: int) -> None:
    first, second, cosines = pair_of_views(seed)
    plan = np.exp(np.array(cosines) / 0.05)
    for _ in range(20):
        plan /= plan.sum(1, keepdims=True)
        plan /= plan.sum(0, keepdims=True)
    expected = -np.log(np.diag(plan)).mean()
    assert float(optimal_transport(first, second)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", CONTROLS)
def test_three_views_are_the_mean_of_their_pairs(name: str) -> None:
    image, answer, _ = pair_of_views(0)
    extended, _, _ = pair_of_views(1)
    pairs = [(image, answer), (image, extended), (answer, extended)]
    expected = sum(float(CONTROLS[name](*pair)) for pair in pairs) / 3
    assert float(control_loss(name, image, answer, extended)) == pytest.approx(expected)


def test_retrieval_counts_both_directions() -> None:
    first = torch.eye(3)
    # Every row of the first view finds its own; the middle one of the second finds the first.
    second = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    towards_second, towards_first = 3 / 3, 2 / 3
    assert retrieval_accuracy(first, second) == pytest.approx((towards_second + towards_first) / 2)
