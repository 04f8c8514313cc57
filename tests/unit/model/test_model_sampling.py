import pytest
import torch

from exgra_med.llm.request import Sampling
from exgra_med.model.bundle import Bundle
from exgra_med.model.generate import Draw, generate, stream

CPU = torch.device("cpu")
PROBABILITIES = torch.tensor([[0.1, 0.5, 0.1, 0.3]])
NUM_DRAWS = 40_000
PROMPT = [1, 5, 6, 7]


def shares(sampling: Sampling) -> torch.Tensor:
    """How often each of the four tokens is drawn."""
    logits = PROBABILITIES.log().expand(NUM_DRAWS, -1)
    left = Draw(sampling, CPU)(torch.zeros(NUM_DRAWS, 0, dtype=torch.long), logits)
    assert ((left == 0).sum(1) == 1).all()
    return torch.bincount(left.argmax(1), minlength=4) / NUM_DRAWS


# Four standard deviations of a share of so many draws.
TOLERANCE = 4 * (0.25 / NUM_DRAWS) ** 0.5


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, {1}), (0.49, {1}), (0.51, {1, 3}), (0.85, {0, 1, 3}), (1.0, None)]
)
def test_only_the_smallest_set_with_that_probability_is_drawn(
    top_p: float, kept: set[int] | None
) -> None:
    found = shares(Sampling(temperature=1.0, top_p=top_p, seed=2))
    drawn = set(found.nonzero().flatten().tolist())
    # Two tokens have the same probability: which of them is kept is not said.
    assert len(drawn) == len(kept or range(4)) and {1} <= drawn
    left = PROBABILITIES[0] * torch.tensor([token in drawn for token in range(4)])
    assert torch.allclose(found, left / left.sum(), atol=TOLERANCE)


def test_draws_follow_the_probabilities_at_their_temperature() -> None:
    expected = PROBABILITIES[0] ** 2 / (PROBABILITIES**2).sum()
    assert torch.allclose(shares(Sampling(temperature=0.5, seed=1)), expected, atol=TOLERANCE)


def answer(bundle: Bundle, **settings: float) -> str:
    sampling = Sampling(max_tokens=12, **settings)  # type: ignore
    return "".join(chunk.text for chunk in stream(bundle, PROMPT, [], sampling))


def test_equal_seeds_write_equal_answers(make_bundle) -> None:
    bundle: Bundle = make_bundle("none", seed=3)
    first = answer(bundle, temperature=1.0, top_p=0.95, seed=1)
    state = torch.random.get_rng_state()
    assert answer(bundle, temperature=1.0, top_p=0.95, seed=1) == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len({answer(bundle, temperature=1.0, seed=seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0, "seed": 3, "top_p": 0.5}])
def test_no_temperature_is_greedy(make_bundle, settings: dict[str, float]) -> None:
    bundle: Bundle = make_bundle("none", seed=3)
    assert answer(bundle, **settings) == generate(bundle, [PROMPT], [[]], 12)[0].text


def test_the_last_chunk_says_why_it_is_the_last(make_bundle) -> None:
    bundle: Bundle = make_bundle("none", seed=3)
    *before, last = stream(bundle, PROMPT, [], Sampling(max_tokens=5))
    assert all(chunk.finish_reason is None for chunk in before)
    assert last.finish_reason in ("stop", "length")
    assert last.num_tokens <= 5
