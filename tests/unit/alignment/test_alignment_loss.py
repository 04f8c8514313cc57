"""The module from pooled views to a loss."""

import threading
import time

import numpy as np
import pytest
import torch

from exgra_med.alignment import MatchingError, MultiGraphAlignment
from exgra_med.alignment.solvers import state


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


def test_the_full_graph() -> None:
    given = views(6)
    MultiGraphAlignment(32, graph="full")(*given, generator=0).loss.backward()
    assert all(torch.isfinite(view.grad).all() for view in given)


@pytest.mark.parametrize("objective", ["infonce", "siglip", "optimal-transport"])
def test_controls_fall_when_views_agree(objective: str) -> None:
    align = MultiGraphAlignment(32, objective=objective)
    near, far = align(*views(8, noise=0.1)), align(*views(8))
    assert near.loss < far.loss
    assert near.matching_accuracy == 1.0 > far.matching_accuracy
    assert not list(align.parameters())


@pytest.mark.parametrize("objective", ["barycenter", "pairwise", "infonce", "optimal-transport"])
@pytest.mark.parametrize("samples", [0, 1])
def test_one_sample_has_nobody_to_be_confused_with(objective: str, samples: int) -> None:
    align = MultiGraphAlignment(32, objective=objective)
    output = align(*views(samples), generator=0)
    assert output.loss.item() == pytest.approx(0, abs=1e-6)
    assert output.num_nodes == samples
    assert align.matching_accuracy(*views(samples)) == 1.0


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
        ({"noise_samples": 0, "estimator": "imle"}, "noise_samples"),
        ({"objective": "barycentre"}, "'infonce', 'siglip' or 'optimal-transport'"),
        ({"estimator": "bb"}, "'blackbox', 'compatible' or 'imle'"),
        ({"effort": "slow"}, "'fast' or 'thorough'"),
        ({"graph": "kn"}, "'knn' or 'full'"),
        ({"scope": "here"}, "'local' or 'global'"),
        ({"views": "two"}, "image-answer"),
        ({"num_layers": -1}, "num_layers"),
        ({"neighbours": 2.5}, "neighbours"),
        ({"neighbours": 0}, "neighbours"),
        ({"perturbation": float("nan")}, "perturbation"),
        ({"noise_scale": float("nan")}, "noise_scale"),
        ({"noise_scale": float("inf")}, "noise_scale"),
        ({"neighbour": 3}, "Did you mean `neighbours`"),
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


@pytest.mark.parametrize("objective", ["barycenter", "infonce"])
@pytest.mark.parametrize(("view", "name"), [(0, "image"), (1, "answer"), (2, "extended")])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(objective: str, view: int, name: str, value: float) -> None:
    align = MultiGraphAlignment(32, objective=objective)
    given = [each.detach().clone() for each in views(6)]
    given[view][4, 1] = value
    for call in (align, align.matching_accuracy):
        with pytest.raises(MatchingError, match=rf"'{name}' holds NaN or infinity in rows 4:"):
            call(*given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda v: (v[0][:, :8], v[1][:, :8], v[2][:, :8]), "have 8 features each; .* made for 32"),
        (lambda v: (v[0], v[1][:5], v[2]), r"image \[6, 32\], answer \[5, 32\], extended"),
        (lambda v: (v[0], v[1], v[2].detach().numpy()), "'extended' is ndarray, not a tensor"),
    ],
)
def test_views_that_do_not_fit_are_named(given, words: str) -> None:
    with pytest.raises(MatchingError, match=words):
        MultiGraphAlignment(32)(*given(views(6)))


@pytest.mark.parametrize("generator", [-1, 1.5, "seed"])
def test_what_is_no_source_of_randomness_is_refused(generator) -> None:
    with pytest.raises(MatchingError, match="numpy or torch generator"):
        MultiGraphAlignment(32)(*views(4), generator=generator)


def test_a_torch_generator_seeds_a_step() -> None:
    align = MultiGraphAlignment(32)
    losses = [
        align(*views(8), generator=torch.Generator().manual_seed(seed)).loss.item()
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_slow_first_call_says_why(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(state, "_first_call", threading.Event())
    with state.told_when_slow(0.01):
        time.sleep(0.2)
    with state.told_when_slow(0.01):
        time.sleep(0.1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "compiles it" in caplog.text


@pytest.mark.parametrize("dim", [0, -3, 1.5, "16"])
def test_a_module_has_a_whole_number_of_features(dim) -> None:
    with pytest.raises(MatchingError, match="dim="):
        MultiGraphAlignment(dim)
