"""The black-box gradient: its formula, and how it meets a factor on the loss."""

import pytest
import torch

from exgra_med.alignment import MultiGraphAlignment, solve_matching
from exgra_med.alignment.blackbox import PendingMatching, blackbox_gradient, hamming, hamming_slope
from exgra_med.alignment.matching import MatchingResult
from exgra_med.alignment.solvers.protocol import matching_objective


def costs(nodes: int = 8, problems: int = 2, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    links = (~torch.eye(nodes, dtype=torch.bool)).nonzero().T[:, ::2].contiguous()
    unary = torch.randn(problems, nodes, nodes, generator=generator, requires_grad=True)
    quadratic = torch.randn(
        problems, links.shape[1], links.shape[1], generator=generator
    ).requires_grad_()
    return unary, quadratic, links.expand(problems, -1, -1)


def solver(links: torch.Tensor):
    return lambda unary, quadratic, start: solve_matching(
        unary, quadratic, links, start=start, effort="thorough"
    )


def gradients(factor: float, compatible: bool = False):
    unary, quadratic, links = costs()
    pending = PendingMatching(
        unary, quadratic, links, solver(links), perturbation=20.0, compatible=compatible
    )
    (factor * pending.loss()).backward()
    return unary.grad, quadratic.grad


def test_hamming_counts_wrong_and_missing() -> None:
    found = torch.tensor([[0, 1, 2], [1, 0, 2], [0, -1, 2], [-1, -1, -1]])
    assert hamming(found).tolist() == pytest.approx([0, 4 / 3, 1 / 3, 1])


def test_slope_is_the_derivative_of_the_mean_hamming_loss() -> None:
    def loss(x):
        eye = torch.eye(4)
        return ((x * (1 - eye) + (1 - x) * eye).sum((1, 2)) / 4).mean()

    at = torch.rand(3, 4, 4, requires_grad=True)
    loss(at).backward()
    assert torch.allclose(at.grad, hamming_slope(3, 4, at.device).expand(3, -1, -1))


def test_gradient_is_the_difference_of_two_solutions() -> None:
    unary, quadratic, links = costs()
    found = solver(links)(unary, quadratic, None).assignment
    pushed = unary.detach() + 20.0 * hamming_slope(2, 8, unary.device)
    other = solver(links)(pushed, quadratic, found).assignment
    assert not torch.equal(found, other)
    by_unary, by_quadratic = gradients(1.0)
    expected = blackbox_gradient(found, other, links, 20.0)
    assert torch.equal(by_unary, expected[0]) and torch.equal(by_quadratic, expected[1])
    ones = by_unary[by_unary != 0].abs()
    assert torch.allclose(ones, torch.full_like(ones, 1 / 20))


def test_it_is_the_gradient_of_the_interpolated_objective() -> None:
    """d/dU, d/dQ of [cost(X') - cost(X)] / lambda at fixed matchings, by finite differences."""
    unary, quadratic, links = (part.detach() for part in costs())
    found = torch.stack([torch.randperm(8), torch.randperm(8)])
    other = found.clone()
    other[0, :3] = found[0, [1, 2, 0]]
    other[1, 2] = -1

    def linearised(u, q):
        before = matching_objective(u, q, links, found)
        return (matching_objective(u, q, links, other) - before).sum() / 20.0

    by_unary, by_quadratic = blackbox_gradient(found, other, links, 20.0)
    step = 1e-3
    for given, gradient in ((unary, by_unary), (quadratic, by_quadratic)):
        numeric = torch.zeros_like(given, dtype=torch.float64)
        for number in range(given.numel()):
            up, down = given.double().clone(), given.double().clone()
            up.view(-1)[number] += step
            down.view(-1)[number] -= step
            if given is unary:
                rise = linearised(up, quadratic.double()) - linearised(down, quadratic.double())
            else:
                rise = linearised(unary.double(), up) - linearised(unary.double(), down)
            numeric.view(-1)[number] = rise / (2 * step)
        assert torch.allclose(numeric, gradient.double(), atol=1e-7)


def test_no_gradient_when_nothing_changes() -> None:
    unary = (-10 * torch.eye(5)).expand(2, -1, -1).clone().requires_grad_()
    links = torch.tensor([[[0, 1], [1, 2]]]).expand(2, -1, -1)
    quadratic = torch.zeros(2, 2, 2, requires_grad=True)
    pending = PendingMatching(unary, quadratic, links, solver(links), perturbation=1.0)
    pending.loss().backward()
    assert unary.grad.abs().max() == 0 == quadratic.grad.abs().max()


@pytest.mark.parametrize("factor", [0.25, 3.0, 65536.0])
def test_a_factor_on_the_loss_is_a_factor_on_the_gradient(factor: float) -> None:
    for one, scaled in zip(gradients(1.0), gradients(factor), strict=True):
        assert one.abs().max() > 0
        assert torch.allclose(scaled, one * factor)


def test_the_compatible_gradient_ignores_the_size_of_a_factor() -> None:
    """As in the original: the perturbed problem sees it, the gradient stays near 1 / lambda."""
    assert torch.equal(gradients(1.0)[0], gradients(1.0, compatible=True)[0])
    scaled = gradients(65536.0, compatible=True)[0]
    assert scaled.abs().max() == pytest.approx(1 / 20)
    assert not torch.allclose(scaled, 65536.0 * gradients(1.0, compatible=True)[0])


def step_gradients(align, views, *, scale=1.0, parts=1, dtype=torch.float32):
    given = [view.detach().clone().to(dtype).requires_grad_() for view in views]
    align.zero_grad()
    for _ in range(parts):
        (scale * align(*given, generator=0).loss / parts).backward()
    return [view.grad.float() for view in given] + [w.grad.clone() for w in align.parameters()]


def test_accumulation_and_alpha_scale_the_step() -> None:
    align = MultiGraphAlignment(16)
    views = [torch.randn(6, 16) for _ in range(3)]
    one = step_gradients(align, views)
    for other in (
        step_gradients(align, views, parts=4),
        [gradient / 0.5 for gradient in step_gradients(align, views, scale=0.5)],
        [gradient / 2**16 for gradient in step_gradients(align, views, scale=2.0**16)],
    ):
        for mine, expected in zip(other, one, strict=True):
            assert torch.allclose(mine, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.005)])
def test_half_precision_views_give_the_same_gradient_up_to_rounding(dtype, tolerance) -> None:
    align = MultiGraphAlignment(16)
    views = [torch.randn(6, 16).to(dtype).float() for _ in range(3)]
    scale = 2.0**10 if dtype == torch.float16 else 1.0
    exact = step_gradients(align, views)
    half = step_gradients(align, views, dtype=dtype, scale=scale)
    for mine, expected in zip(half, exact, strict=True):
        error = (mine / scale - expected).abs().max()
        assert error <= tolerance * expected.abs().max()


def test_noise_samples_average_their_gradients() -> None:
    unary, quadratic, links = costs()
    copies = links.repeat(3, 1, 1)
    pending = PendingMatching(
        unary.repeat(3, 1, 1),
        quadratic.repeat(3, 1, 1),
        copies,
        solver(copies),
        perturbation=20.0,
        samples=3,
    )
    pending.loss().backward()
    expected = gradients(1.0)
    assert torch.allclose(unary.grad, expected[0], atol=1e-7)
    assert torch.allclose(quadratic.grad, expected[1], atol=1e-7)


def test_an_error_in_the_worker_reaches_the_caller() -> None:
    def broken(unary, quadratic, start) -> MatchingResult:
        raise RuntimeError("out of matchings")

    unary, quadratic, links = costs()
    with pytest.raises(RuntimeError, match="out of matchings"):
        PendingMatching(unary, quadratic, links, broken, perturbation=1.0).loss()
