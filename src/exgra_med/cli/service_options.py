"""Options of verbs that ask a language-model service, and the settings they make."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from exgra_med.llm.service import ServiceSettings


class Engine(StrEnum):
    """Who answers."""

    exgra = "exgra"
    openai = "openai"


EngineOption = Annotated[
    Engine, typer.Option("--engine", help="The run's checkpoint, or an OpenAI-compatible server.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", help="Of the server that answers, e.g. http://localhost:8000/v1."),
]
Model = Annotated[str | None, typer.Option("--model", help="Name of the model at that server.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests under way at once.")]
AllowRemote = Annotated[
    bool, typer.Option("--allow-remote", help="Questions and images may leave this machine.")
]
Force = Annotated[bool, typer.Option("--force", help="Send text that seems to identify patients.")]
MaxCost = Annotated[float | None, typer.Option(help="Stop before more US dollars.")]
Price = Annotated[
    tuple[float, float] | None,
    typer.Option("--price", help="US dollars for a million tokens: prompt, completion."),
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="File of paid answers; the user's cache else.")
]


def answering_service(
    model: str | None,
    base_url: str | None,
    allow_remote: bool,
    concurrency: int,
    max_tokens: int,
    max_cost: float | None = None,
    price: tuple[float, float] | None = None,
) -> "ServiceSettings":
    """The service that answers questions, greedily.

    Raises:
        ServiceError: no model is named.
    """
    from exgra_med.errors import ServiceError

    if not model:
        raise ServiceError(
            "--engine openai needs the name of a model.",
            "Give --model NAME and --base-url http://localhost:8000/v1.",
        )
    return service(
        model, base_url, allow_remote, concurrency, max_tokens, max_cost, price, attempts=6
    )


def service(
    model: str,
    base_url: str | None,
    allow_remote: bool,
    concurrency: int,
    max_tokens: int,
    max_cost: float | None,
    price: tuple[float, float] | None,
    *,
    attempts: int,
    seed: int = 0,
    cache: Path | None = None,
    force: bool = False,
) -> "ServiceSettings":
    """A service asked for the likeliest words, with a seed for servers that know one."""
    from exgra_med.llm.budget import Price as PriceOfTokens
    from exgra_med.llm.request import Sampling
    from exgra_med.llm.service import ServiceSettings

    return ServiceSettings(
        model=model,
        base_url=base_url,
        concurrency=concurrency,
        attempts=attempts,
        price=None if price is None else PriceOfTokens(*price),
        max_cost=max_cost,
        sampling=Sampling(max_tokens=max_tokens, temperature=0.0, seed=seed),
        cache=cache,
        allow_remote=allow_remote,
        force=force,
    )
