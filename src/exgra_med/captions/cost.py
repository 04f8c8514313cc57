"""What extending a file would cost, before anything is sent."""

from typing import Any

from exgra_med.captions.question import PROMPT, SCHEMA, messages_for, pairs_of
from exgra_med.captions.source import Source
from exgra_med.llm.budget import Price
from exgra_med.llm.cache import AnswerCache
from exgra_med.llm.openai_transport import request_body
from exgra_med.llm.prompt import load_prompt
from exgra_med.llm.request import ChatRequest, Sampling, estimate_tokens

EXPLANATION_TOKENS = 130
"""Five checks of a sentence each, with their names and the JSON around them."""


def estimate(
    source: Source, model: str, sampling: Sampling, price: Price | None, cache: AnswerCache
) -> dict[str, Any]:
    """Requests, tokens and money for what is not in the cache, and one full request.

    Tokens are estimates (`llm/request.py`); an extended answer is taken to be as long as the
    prompt's length rule allows on average.

    Args:
        source: the records.
        model: its name at the service.
        sampling: as it will be asked with.
        price: None leaves the cost out.
        cache: stored answers cost nothing.
    """
    prompt = load_prompt(PROMPT)
    answers = prompt_tokens = completion_tokens = cached = 0
    example: dict[str, Any] | None = None
    asked: set[str] = set()
    for record in source.iterate():
        for question, answer in pairs_of(record):
            answers += 1
            request = ChatRequest(model, messages_for(prompt, question, answer), sampling, SCHEMA)
            if example is None:
                example = request_body(request, with_schema=True)
            if request.key in asked or cache.get(request.key) is not None:
                cached += 1
                continue
            asked.add(request.key)
            prompt_tokens += request.prompt_tokens
            revision = max(60, min(400, 2 * estimate_tokens(answer)))
            completion_tokens += min(sampling.max_tokens, EXPLANATION_TOKENS + revision)
    return {
        "records": source.total,
        "answers": answers,
        "requests": answers - cached,
        "from_cache": cached,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost": None if price is None else price.cost(prompt_tokens, completion_tokens),
        "model": model,
        "prompt": prompt.label,
        "example": example,
    }
