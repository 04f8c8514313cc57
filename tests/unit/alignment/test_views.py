"""The control without extended answers: two graphs, and a barycenter of two views."""

import pytest
import torch

from exgra_med.alignment import MatchingError, MultiGraphAlignment
from exgra_med.alignment.controls import infonce
from exgra_med.alignment.diagnostics import cosine_histograms, view_diagnostics
from exgra_med.alignment.loss import ANSWER, BARYCENTER, EXTENDED, IMAGE, directed_pairs

OBJECTIVES = ["barycenter", "pairwise", "all", "infonce", "siglip", "optimal-transport"]


def draw(rows: int = 6) -> list[torch.Tensor]:
    return [torch.randn(rows, 8, requires_grad=True) for _ in range(3)]


def test_pairs_with_the_extended_view_are_left_out() -> None:
    both = directed_pairs("all", "image-answer")
    assert set(both) == {
        (IMAGE, BARYCENTER),
        (BARYCENTER, IMAGE),
        (ANSWER, BARYCENTER),
        (BARYCENTER, ANSWER),
        (IMAGE, ANSWER),
        (ANSWER, IMAGE),
    }
    assert not any(EXTENDED in pair for pair in both)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_views_never_look_at_the_third(objective: str) -> None:
    image, answer, extended = draw()
    align = MultiGraphAlignment(8, objective=objective, views="image-answer")
    without = align(image, answer, None, generator=0).loss
    with_other = align(image, answer, extended, generator=0).loss
    assert torch.equal(without, with_other)
    with_other.backward()
    assert extended.grad is None
    assert image.grad is not None
    assert answer.grad is not None


def test_exchanged_views_are_those_of_the_next_sample() -> None:
    views = [torch.randn(6, 8, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    exchanged = MultiGraphAlignment(8, views="exchanged", num_layers=0)
    plain = MultiGraphAlignment(8, num_layers=0)
    image, answer, extended = views
    found = exchanged(image, answer, extended, generator=3)
    assert torch.equal(found.loss, plain(image, answer, extended.roll(-1, 0), generator=3).loss)
    assert not torch.equal(found.loss, plain(*views, generator=3).loss)
    with pytest.raises(MatchingError):
        exchanged(image, answer, None)


def test_three_views_need_three() -> None:
    image, answer, _ = draw()
    with pytest.raises(MatchingError, match="'extended' is none"):
        MultiGraphAlignment(8)(image, answer, None)


def test_infonce_of_two_views_is_that_of_their_only_pair() -> None:
    image, answer, _ = draw()
    loss = MultiGraphAlignment(8, objective="infonce", views="image-answer")(image, answer, None)
    assert torch.equal(loss.loss, infonce(image, answer))


def test_the_barycenter_of_two_views_is_their_mean() -> None:
    """Equal views have an equal barycenter: without noise every node finds itself."""
    image, _, extended = draw()
    align = MultiGraphAlignment(8, views="image-answer", num_layers=0).eval()
    assert align.matching_accuracy(image, image, extended) == 1.0


def test_diagnostics_of_two_views_have_their_only_pair() -> None:
    image, answer, extended = draw()
    two, three = view_diagnostics(image, answer, None), view_diagnostics(image, answer, extended)
    assert len(two) == 5
    assert all(three[name] == value for name, value in two.items())
    assert list(cosine_histograms(image, answer, None)) == ["image_answer"]
