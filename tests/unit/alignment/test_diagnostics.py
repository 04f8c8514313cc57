"""Diagnostics of embeddings, on cases worked by hand."""

import pytest
import torch

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.alignment.diagnostics import cosine_histograms, view_diagnostics


def test_equal_views() -> None:
    view = torch.eye(6, 8)
    found = view_diagnostics(view, 2 * view, view)
    assert len(found) == 15
    assert found["image_answer/cosine_own"] == pytest.approx(1)
    assert found["image_answer/cosine_other"] == pytest.approx(0)
    assert found["answer_extended/gap"] == pytest.approx(0)
    assert found["image_extended/recall_1"] == 1


def test_a_shared_shift_is_a_gap_and_a_rotation_of_rows_is_a_miss() -> None:
    view = torch.eye(6, 8)
    moved = view + torch.tensor([0.0] * 7 + [10.0])
    found = view_diagnostics(view, moved, view.roll(1, 0))
    assert found["image_answer/gap"] > 0.9
    assert found["image_extended/recall_1"] == 0
    assert found["image_extended/cosine_own"] == pytest.approx(0)


def test_cosines_of_other_samples_are_the_mean_of_all_off_the_diagonal() -> None:
    first = torch.eye(3)
    second = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.6, 0.8], [-1.0, 0.0, 0.0]])
    found = view_diagnostics(first, second, None)
    assert found["image_answer/cosine_own"] == pytest.approx((0.6 + 0.6 + 0.0) / 3)
    assert found["image_answer/cosine_other"] == pytest.approx((0.8 + 0.8 - 1.0) / 6)
    means = torch.tensor([1.0, 1.0, 1.0]) / 3, torch.tensor([-0.4, 1.4, 0.8]) / 3
    assert found["image_answer/gap"] == pytest.approx(float((means[0] - means[1]).norm()))
    counts = cosine_histograms(first, second, None)["image_answer"]
    assert len(counts["own"]) == len(counts["other"]) == 20
    assert counts["other"][0] == 1 and sum(counts["other"][17:19]) == 2


def test_one_sample() -> None:
    found = view_diagnostics(*(torch.ones(1, 4) for _ in range(3)))
    assert found["image_answer/recall_5"] == 1 and found["image_answer/cosine_other"] == 0


def test_histograms_count_every_pair_once() -> None:
    histograms = cosine_histograms(*(torch.randn(7, 4) for _ in range(3)))
    assert set(histograms) == {"image_answer", "image_extended", "answer_extended"}
    for counts in histograms.values():
        assert sum(counts["own"]) == 7 and sum(counts["other"]) == 42
    equal = cosine_histograms(*(torch.eye(3) for _ in range(3)))["image_answer"]
    assert equal["own"][-1] == 3


def test_matching_the_bare_embeddings_ignores_the_layers() -> None:
    base = torch.randn(8, 16)
    views = [base + 0.1 * torch.randn(8, 16) for _ in range(3)]
    align = MultiGraphAlignment(16)
    plain = align.matching_accuracy(*views, message_passing=False)
    with torch.no_grad():
        for weight in align.parameters():
            weight.zero_()
    assert align.matching_accuracy(*views, message_passing=False) == plain > 0.9
    assert align.matching_accuracy(*views) < 0.5
