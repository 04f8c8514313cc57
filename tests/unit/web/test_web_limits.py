from dataclasses import fields

import pytest

from exgra_med.errors import RecipeError
from exgra_med.web.limits import Limits, RateLimiter, with_limits


def test_a_limit_is_set_by_its_name() -> None:
    limits = with_limits(["max_pixels=1000", "max_queue=3"])
    assert (limits.max_pixels, limits.max_queue) == (1000, 3)
    assert limits.max_turns == Limits().max_turns


@pytest.mark.parametrize("wrong", ["max_pixel=3", "max_pixels", "max_pixels=0", "max_pixels=-1"])
def test_what_is_no_limit_is_refused(wrong: str) -> None:
    with pytest.raises(RecipeError, match=r"limit"):
        with_limits([wrong])


def test_every_limit_says_its_unit() -> None:
    units = (
        "megabytes kilobytes pixels minutes characters tokens turns per_answer queue at_once "
        "per_minute connections sessions pictures"
    ).split()
    for field in fields(Limits):
        assert field.name.endswith(tuple(units)), field.name


def test_an_address_may_ask_so_often_and_then_again_after_a_while() -> None:
    now = [0.0]
    rate = RateLimiter(3, lambda: now[0])
    assert [rate.wait_seconds("a") for _ in range(3)] == [0, 0, 0]
    assert rate.wait_seconds("a") == pytest.approx(20)
    assert rate.wait_seconds("b") == 0
    now[0] = 19.9
    assert rate.wait_seconds("a") == pytest.approx(0.1)
    now[0] = 20.1
    assert rate.wait_seconds("a") == 0
    now[0] = 1000
    assert [rate.wait_seconds("a") == 0 for _ in range(4)] == [True, True, True, False]


def test_addresses_are_not_remembered_without_end() -> None:
    rate = RateLimiter(1, lambda: 0.0)
    for number in range(10_000):
        rate.wait_seconds(str(number))
    assert len(rate._buckets) == 4096
