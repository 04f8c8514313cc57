"""A model that thinks aloud before it extends an answer; a run in which everything fails."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_server import BadServer
from test_captions_generate import generate, lines

from exgra_med.captions.question import revision_of
from exgra_med.llm.prompt import reply_fault
from exgra_med.llm.request import ReplyError

Records = Callable[..., Path]
DRAFT = '{"revision": "The LEFT lung is clear."}'
GOOD = '{"revision": "A fracture is seen."}'


@pytest.mark.parametrize(
    "reply",
    [
        f"Draft {DRAFT} no, that is wrong.</think> A fracture is seen.",
        f"<think>Draft: {DRAFT} not supported",
        f"[THINK]{DRAFT}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|>",
        f"analysisWe could say {DRAFT}",
        f"<reasoning>{DRAFT}</reasoning>",
    ],
)
def test_a_draft_is_never_taken(reply: str) -> None:
    with pytest.raises(ReplyError):
        revision_of(reply)


@pytest.mark.parametrize(
    "reply",
    [
        f"Draft {DRAFT} no.</think>{GOOD}",
        f"<think>{DRAFT}</think>\n```json\n{GOOD}\n```",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|channel|>final<|message|>{GOOD}",
        f"[THINK]{DRAFT}[/THINK]{GOOD}",
        f"<answer>{GOOD}</answer>",
    ],
)
def test_what_comes_behind_a_thought_is_taken(reply: str) -> None:
    assert revision_of(reply) == "A fracture is seen."


def test_what_became_of_a_reply() -> None:
    assert reply_fault("invalid reply", "empty") == "empty"
    assert reply_fault("invalid reply", "the reply ended early (length)") == "cut"
    assert reply_fault("invalid reply", "no JSON object with 'revision'") == "unparsed"
    assert reply_fault("timeout", "3 s") == "failed"


def test_a_run_in_which_all_fail_is_no_success(records: Records, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with BadServer() as server:
        server.replies = [f"<think>{DRAFT}"] * 2
        summary = generate(records(2), server, out, "--attempts", 1, failing=True)
        assert (summary["done"], summary["failed"]) == (0, 2)
        assert summary["faults"] == {"empty": 2}
        assert len(lines(tmp_path / "out.failures.jsonl")) == 2
        # One of two: the run did something.
        server.replies = [json.dumps({"revision": "good"}), "nothing"]
        summary = generate(records(2), server, out, "--attempts", 1)
        assert (summary["done"], summary["failed"], summary["faults"]) == (1, 1, {"unparsed": 1})
