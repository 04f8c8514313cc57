"""SIGTERM and the first Ctrl-C are requests; the second Ctrl-C is none."""

import os
import signal

import pytest

from exgra_med.training.loop import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_request_and_a_second_ctrl_c_ends_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as stops:
        assert not stops
        os.kill(os.getpid(), number)
        assert stops
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops[0] == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nothing_has_to_be_finished_the_first_signal_ends_at_once(
    number: signal.Signals,
) -> None:
    begun = False
    with stop_on_signal(at_once=lambda: not begun) as stops:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        # A second one does not disturb what cleans up.
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops == [number, signal.SIGTERM]
    with stop_on_signal(at_once=lambda: not begun) as stops:
        begun = True
        os.kill(os.getpid(), number)
        assert stops == [number]
