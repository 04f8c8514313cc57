import pytest
import torch

from exgra_med.llm.request import Sampling
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import chooser, generate, greedy, nucleus, write

CPU = torch.device("cpu")
PROBABILITIES = torch.tensor([[0.1, 0.5, 0.1, 0.3]])


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.01, {1}),
        (0.5, {1}),
        (0.51, {1, 3}),
        (0.8, {1, 3}),
        (0.85, {0, 1, 3}),
        (1.0, {0, 1, 2, 3}),
    ],
)
def test_the_nucleus_is_the_smallest_set_with_that_probability(
    top_p: float, kept: set[int]
) -> None:
    found = nucleus(PROBABILITIES, top_p)
    assert set(found[0].nonzero().flatten().tolist()) == kept
    assert torch.equal(found[found > 0], PROBABILITIES[found > 0])


@pytest.mark.parametrize("temperature", [None, 0.0])
def test_no_temperature_is_greedy(temperature: float | None) -> None:
    assert chooser(Sampling(temperature=temperature, seed=3), CPU) is greedy


def test_draws_follow_the_probabilities_at_their_temperature() -> None:
    logits = PROBABILITIES.log().expand(40_000, -1)
    drawn = chooser(Sampling(temperature=0.5, seed=1), CPU)(logits)
    expected = PROBABILITIES[0] ** 2 / (PROBABILITIES**2).sum()
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    # Four standard deviations of a share of 40,000 draws.
    assert torch.allclose(shares, expected, atol=4 * (0.25 / 40_000) ** 0.5)


def test_equal_seeds_write_equal_answers(make_bundle, pictures) -> None:
    bundle: Bundle = make_bundle("none", seed=3)
    prompt = [1, 5, 6, 7]

    def answer(seed: int, temperature: float) -> str:
        choose = chooser(Sampling(temperature=temperature, top_p=0.95, seed=seed), CPU)
        return "".join(piece.text for piece in write(bundle, prompt, [], 12, choose))

    assert answer(1, 1.0) == answer(1, 1.0)
    assert len({answer(seed, 1.0) for seed in range(4)}) > 1
    assert answer(1, 0.0) == generate(bundle, [prompt], [[]], 12)[0].text


def test_the_last_piece_says_why_it_is_the_last(make_bundle) -> None:
    bundle: Bundle = make_bundle("none", seed=3)
    *before, last = write(bundle, [1, 5, 6, 7], [], 5)
    assert all(piece.finish_reason is None for piece in before)
    assert last.finish_reason in ("stop", "length")
    assert last.num_tokens <= 5
