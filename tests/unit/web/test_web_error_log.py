"""Faults are told without the words that a visitor sent."""

import asyncio
import logging
import traceback
import warnings

import pytest

from exgra_med.web.error_log import type_and_place, without_error_text

SECRET = "what a visitor wrote"


def fail() -> None:
    raise ValueError(SECRET)


def test_tracebacks_logs_and_warnings_lose_their_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logging.StreamHandler()
    logger = logging.getLogger("uvicorn.error")
    # A server that another test has started may have made it quieter.
    monkeypatch.setattr(logger, "level", logging.ERROR)
    monkeypatch.setattr(logger, "disabled", False)
    logger.addHandler(handler)
    with without_error_text():
        handler.setStream(__import__("sys").stderr)
        try:
            fail()
        except ValueError:
            traceback.print_exc()
            logger.exception("in %s", SECRET)
        warnings.warn(SECRET, stacklevel=1)
        logging.getLogger("asyncio").error(SECRET)
    logger.removeHandler(handler)
    told = capsys.readouterr().err
    assert SECRET not in told
    assert told.count("ValueError at test_web_error_log.py:") == 2


def test_afterwards_everything_is_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    with without_error_text():
        pass
    try:
        fail()
    except ValueError:
        traceback.print_exc()
    assert SECRET in capsys.readouterr().err


def test_an_error_without_a_place_still_has_a_kind() -> None:
    assert type_and_place(asyncio.CancelledError()) == "CancelledError"
    assert type_and_place(None) == "an error"
