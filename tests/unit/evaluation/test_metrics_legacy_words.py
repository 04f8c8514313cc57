"""The published cleaning on the corners that the stored answers leave out."""

import pytest

from exgra_med.evaluation.metrics import published_words


@pytest.mark.parametrize("spelling", ["couldnt've", "couldn'tve", "shouldnt've", "theyd've"])
def test_a_double_contraction_is_known_with_either_apostrophe_missing(spelling: str) -> None:
    assert published_words(spelling).count("'") == 2


def test_a_mark_at_one_edge_goes_everywhere_without_a_blank() -> None:
    assert published_words("x- y-z") == published_words("x -y-z") == "x yz"
    assert published_words("x-y-z") == "x y z"
