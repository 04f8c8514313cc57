"""Replies of servers of many kinds, read into text, thoughts and the reason why it ended."""

import asyncio
from typing import Any

import pytest

from exgra_med.llm.openai_transport import FaultError, reply_of, request_body
from exgra_med.llm.request import ChatRequest, ReplyError, Sampling
from exgra_med.llm.vllm_transport import VllmTransport

ASK = [{"role": "user", "content": "question"}]


def completion(message: Any, ended: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": ended}], **more}


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "yes"}, "yes", ""),
        ({"content": "yes", "reasoning_content": "no? yes"}, "yes", "no? yes"),
        ({"content": "yes", "reasoning": "no? yes", "reasoning_content": None}, "yes", "no? yes"),
        ({"content": "yes", "reasoning": {"summary": "x"}}, "yes", ""),
        ({"content": [{"type": "text", "text": "y"}, {"type": "text", "text": "es"}]}, "yes", ""),
        ({"content": [{"text": "yes"}]}, "yes", ""),
        (
            {"content": [{"type": "thinking", "thinking": "no?"}, {"type": "text", "text": "yes"}]},
            "yes",
            "no?",
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "no?"}]},
                    {"type": "reference", "reference_ids": [1]},
                    {"type": "text", "text": "yes"},
                ]
            },
            "yes",
            "no?",
        ),
        ({"content": "yes", "refusal": None, "tool_calls": []}, "yes", ""),
    ],
)
def test_the_answer_is_the_text_and_not_the_thoughts(
    message: dict[str, Any], text: str, reasoning: str
) -> None:
    for keep_cut in (False, True):
        reply = reply_of(completion(message), 5, keep_cut)
        assert (reply.text, reply.reasoning, reply.finish_reason) == (text, reasoning, "stop")


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (None, "stop"), ("stop", "stop"), ("eos", "stop"), ("end_turn", "stop"),
        ("length", "length"), ("max_tokens", "length"), ("MAX_TOKENS", "length"),
        ("content_filter", "content_filter"), ("SAFETY", "content_filter"), (7, "stop"),
    ],
)  # fmt: skip
def test_why_it_ended(ended: Any, expected: str) -> None:
    assert reply_of(completion({"content": "yes"}, ended), 5, True).finish_reason == expected
    if expected != "stop":
        with pytest.raises(ReplyError, match=expected):
            reply_of(completion({"content": "yes"}, ended), 5)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (completion({"content": None}), "empty"),
        (completion({"content": "  "}), "empty"),
        (completion({"content": None, "reasoning_content": "hm"}), "thoughts and no answer"),
        (completion({"content": ""}, "length"), "more tokens"),
        (completion({"content": None, "refusal": "I cannot"}), "refused"),
        (completion({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"), "a tool"),
        (completion({"content": 5}), "type int"),
        (completion({"content": {"text": "yes"}}), "type dict"),
        ({"choices": []}, "no choice"),
        ({"choices": None}, "no choice"),
        ({"id": "x"}, "no choice"),
        ({"choices": ["yes"]}, "no message"),
        ({"choices": [{"text": "yes"}]}, "no message"),
    ],
)
def test_what_holds_no_answer_says_why(value: Any, says: str) -> None:
    with pytest.raises(ReplyError, match=says):
        reply_of(value, 5)


@pytest.mark.parametrize(
    "value",
    [
        {"error": {"message": "odd", "code": 400}},
        {"error": "odd"},
        {"error": {"message": "odd"}, "choices": []},
        completion({"content": None}, error={"message": "odd"}),
        {"choices": [{"message": {"content": "half"}, "error": {"message": "odd"}}]},
        {"object": "error", "message": "odd", "code": 400},
        {"detail": "odd"},
        {"success": False, "errors": [{"message": "odd"}]},
        {"base_resp": {"status_code": 1, "status_msg": "odd"}},
        [{"error": {"message": "odd"}}],
        "odd",
    ],
)
def test_an_error_in_a_good_reply_is_an_error(value: Any) -> None:
    for keep_cut in (False, True):
        with pytest.raises(FaultError) as caught:
            reply_of(value, 5, keep_cut)
        assert caught.value.fault.sentence == "odd"


def test_an_error_without_words_beside_an_answer_is_none() -> None:
    for error in (None, "", {}, {"message": "", "code": None}):
        assert reply_of(completion({"content": "yes"}, error=error), 5).text == "yes"


def test_a_cost_that_is_none_is_not_believed() -> None:
    for cost in (-1.0, float("nan"), float("inf"), "1", None):
        assert reply_of(completion({"content": "yes"}, usage={"cost": cost}), 5).cost is None
    assert reply_of(completion({"content": "yes"}, usage={"cost": 0.5}), 5).cost == 0.5


def test_names_of_a_service_are_those_of_the_body_and_of_the_key() -> None:
    plain = ChatRequest("m", ASK, Sampling(9, 0.0, seed=3), {"type": "object"})
    body = request_body(plain)
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.0, 3)
    assert body["response_format"]["type"] == "json_schema"
    assert request_body(plain, "api.openai.com")["max_completion_tokens"] == 9
    names = {"max_tokens": "max_completion_tokens", "temperature": None, "response_format": None}
    other = ChatRequest("m", ASK, Sampling(9, 0.0, seed=3), {"type": "object"}, names=names)
    assert request_body(other) == {
        "model": "m", "messages": ASK, "max_completion_tokens": 9, "seed": 3
    }  # fmt: skip
    assert other.key != plain.key == ChatRequest("m", ASK, Sampling(9, 0.0, seed=3)).key
    assert other.key == ChatRequest("m", ASK, Sampling(9, seed=3)).key


def test_a_cut_answer_of_vllm_is_kept_where_it_may_be() -> None:
    class Output:
        prompt_token_ids, token_ids = [1, 2], [3]
        text, finish_reason = "", "length"

        @property
        def outputs(self) -> list[Any]:
            return [self]

    transport = VllmTransport.__new__(VllmTransport)
    transport._waiting, transport._runner = [], None
    transport._chat = lambda requests: [Output() for _ in requests]
    reply = asyncio.run(transport.send(ChatRequest("m", ASK, keep_cut=True)))
    assert (reply.text, reply.finish_reason) == ("", "length")
    with pytest.raises(ReplyError, match="length"):
        asyncio.run(transport.send(ChatRequest("m", ASK)))
