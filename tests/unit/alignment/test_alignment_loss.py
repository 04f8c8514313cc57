"""The module from pooled views to a loss."""

import numpy as np
import pytest
import torch

from exgra_med.alignment import MatchingError, MultiGraphAlignment


def views(batch: int, dim: int = 32, seed: int = 0, noise: float | None = None):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(batch, dim, generator=generator)
    made = [torch.randn(batch, dim, generator=generator) for _ in range(3)]
    if noise is not None:
        made = [base + noise * view for view in made]
    return [view.requires_grad_() for view in made]


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_gradients_are_finite_at_any_size(batch: int) -> None:
    align = MultiGraphAlignment(32)
    given = views(batch)
    output = align(*given, generator=0)
    output.loss.backward()
    assert output.num_nodes == batch
    assert all(torch.isfinite(view.grad).all() for view in given)
    assert all(torch.isfinite(weight.grad).all() for weight in align.parameters())
    if batch == 1:
        assert output.loss == 0
    if batch == 7:
        assert all(view.grad.abs().max() > 0 for view in given)
        assert align.message_passing.conv1.lin_rel.weight.grad.abs().max() > 0


def test_aligned_views_match_and_random_views_do_not() -> None:
    align = MultiGraphAlignment(32)
    assert align.matching_accuracy(*views(12, noise=0.1)) > 0.95
    assert align(*views(12, noise=0.1), generator=0).loss < 0.4
    assert align(*views(12), generator=0).loss > 0.5


def test_equal_generators_give_equal_bits() -> None:
    align = MultiGraphAlignment(32)
    generator = np.random.default_rng(3)
    state = generator.bit_generator.state
    first = [align(*views(8), generator=generator).loss.item() for _ in range(3)]
    generator.bit_generator.state = state
    torch.manual_seed(99)
    again = [align(*views(8), generator=generator).loss.item() for _ in range(3)]
    assert first == again
    assert len(set(first)) > 1


def test_without_a_generator_torch_seeds_the_step() -> None:
    align = MultiGraphAlignment(32)
    torch.manual_seed(5)
    first = align(*views(8)).loss
    torch.manual_seed(5)
    assert torch.equal(align(*views(8)).loss, first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_costs_are_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    align = MultiGraphAlignment(32).to(dtype)
    given = [view.detach().to(dtype).requires_grad_() for view in views(8)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pending = align.begin(*given, generator=0)
    output = pending.result()
    assert pending.matching is not None
    assert pending.matching.unary.dtype == output.loss.dtype == torch.float32
    output.loss.backward()
    assert given[0].grad is not None and given[0].grad.dtype == dtype


def test_accuracy_draws_nothing_and_leaves_the_mode_alone() -> None:
    align = MultiGraphAlignment(32)
    state = torch.get_rng_state()
    assert align.matching_accuracy(*views(8)) == align.matching_accuracy(*views(8))
    assert torch.equal(torch.get_rng_state(), state)
    assert align.training


def test_duplicate_samples_give_small_finite_gradients() -> None:
    given = [view.detach() for view in views(8)]
    for view in given:
        view[3] = view[1]
    given = [view.requires_grad_() for view in given]
    align = MultiGraphAlignment(32, dropout=0.0)
    align(*given, generator=0).loss.backward()
    largest = max(float(view.grad.abs().max()) for view in given)
    assert 0 < largest < 10


@pytest.mark.parametrize("objective", ["pairwise", "all"])
def test_other_pairs_of_graphs(objective: str) -> None:
    align = MultiGraphAlignment(32, objective=objective)
    assert len(align.pairs) == {"pairwise": 6, "all": 12}[objective]
    given = views(6)
    align(*given, generator=0).loss.backward()
    assert all(view.grad.abs().max() > 0 for view in given)


@pytest.mark.parametrize("graph", ["radius", "full"])
def test_other_graphs(graph: str) -> None:
    given = views(6)
    MultiGraphAlignment(32, graph=graph)(*given, generator=0).loss.backward()
    assert all(torch.isfinite(view.grad).all() for view in given)


@pytest.mark.parametrize("objective", ["infonce", "siglip", "optimal-transport"])
def test_controls_fall_when_views_agree(objective: str) -> None:
    align = MultiGraphAlignment(32, objective=objective)
    near, far = align(*views(8, noise=0.1)), align(*views(8))
    assert near.loss < far.loss
    assert near.matching_accuracy == 1.0 > far.matching_accuracy
    assert not list(align.parameters())


@pytest.mark.parametrize("objective", ["barycenter", "pairwise", "infonce", "optimal-transport"])
def test_one_sample_has_nobody_to_be_confused_with(objective: str) -> None:
    align = MultiGraphAlignment(32, objective=objective)
    assert align(*views(1), generator=0).loss.item() == pytest.approx(0, abs=1e-6)
    assert align.matching_accuracy(*views(1)) == 1.0


def test_without_noise_and_dropout_training_is_what_evaluation_measures() -> None:
    align = MultiGraphAlignment(32, noise_scale=0.0, dropout=0.0)
    assert align(*views(8), generator=0).loss == align(*views(8), generator=1).loss
    assert align(*views(8)).matching_accuracy == align.matching_accuracy(*views(8))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"objective": "nothing"}, "objective"),
        ({"solver": "nothing"}, "solver"),
        ({"perturbation": 0.0}, "perturbation"),
        ({"dropout": 1.0}, "dropout"),
        ({"estimator": "nothing"}, "estimator"),
        ({"noise_samples": 2}, "imle"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict, word: str) -> None:
    with pytest.raises(MatchingError, match=word):
        MultiGraphAlignment(8, **settings)


def test_views_that_do_not_fit_are_refused() -> None:
    align = MultiGraphAlignment(32)
    with pytest.raises(MatchingError, match="shapes"):
        align(*views(4)[:2], views(5)[2])


def test_several_noise_samples_average() -> None:
    align = MultiGraphAlignment(
        32, estimator="imle", noise_samples=4, noise_scale=1.0, perturbation=10.0
    )
    given = views(6)
    pending = align.begin(*given, generator=0)
    output = pending.result()
    assert pending.matching is not None and pending.matching.unary.shape[0] == 4 * 6
    output.loss.backward()
    assert all(view.grad.abs().max() > 0 for view in given)
