"""Arguments and options that several verbs of `exgra-med captions` share."""

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    str, typer.Argument(metavar="IN", help="Records, the original's JSON, or a prepared folder.")
]
Model = Annotated[str, typer.Option("--model", help="Name of the model at the service.")]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", help="OpenAI-compatible address, e.g. http://localhost:8000/v1."),
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="File of paid answers; the user's cache else.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first records.")]
PerMillion = Annotated[
    tuple[float, float] | None,
    typer.Option("--price", help="US dollars for a million tokens: prompt, completion."),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Longest reply.")]
Temperature = Annotated[float | None, typer.Option("--temperature", help="The service's else.")]
