"""Arguments and options that several verbs share: the same thing has the same flag everywhere.

Each is an `Annotated` type. A verb names the parameter and gives the default:

    def check(data: DataArgument, split: Split = "test", as_json: Json = False) -> None: ...

Options that several verbs take together are fields of a dataclass such as `Service`, and `grouped`
gives them to a verb.
Options that belong together stand in a panel of the help (`SERVICE`, `COST`, `PLAN`).
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exgra_med.errors import DataError
from exgra_med.terminal import remark

if TYPE_CHECKING:
    from exgra_med.llm.request import Sampling
    from exgra_med.llm.service import ServiceSettings

SERVICE = "Service"
COST = "Cost and privacy"
PLAN = "With --dry-run"
of_service = partial(typer.Option, rich_help_panel=SERVICE)
of_cost = partial(typer.Option, rich_help_panel=COST)

DataArgument = Annotated[
    str, typer.Argument(metavar="DATA", help="Prepared folder, or `bundled:vqa-rad-sample`.")
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Run folder, checkpoint folder or hub name.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]

_DATA_HELP = "Prepared folder, or `bundled:vqa-rad-sample`."
Data = Annotated[str, typer.Option("--data", metavar="DATA", help=_DATA_HELP)]
OptionalData = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="DATA", help=f"{_DATA_HELP} The default is the one in the recipe."
    ),
]
_SEVERAL = "May be repeated: all are answered by one start of the model."
DataFolders = Annotated[
    list[str], typer.Option("--data", metavar="DATA", help=f"{_DATA_HELP} {_SEVERAL}")
]
OptionalDataFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help=f"{_DATA_HELP} {_SEVERAL} The default is the one in the recipe.",
    ),
]
Images = Annotated[Path | None, typer.Option("--images", help="Folder of the images.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N records.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a recipe value, such as `stages.vqa.epochs=2`. May be repeated.",
    ),
]
VerbOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Change a setting. May be repeated."),
]


def pairs(texts: list[str], example: str) -> dict[str, str]:
    """Name -> value of an option that may be repeated; the last one of a name counts.

    Args:
        texts: each `NAME=VALUE`.
        example: the option with one of them, for the message.

    Raises:
        DataError: a name or a value is missing.
    """
    found = {text.partition("=")[0]: text.partition("=")[2] for text in texts}
    if not all(found) or not all(found.values()):
        option = example.partition(" ")[0]
        raise DataError(f"{option} needs NAME=VALUE.", f"For example {example}.")
    return found


Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Start of the random numbers.")
]
_SPLIT_HELP = "Split of the prepared folder."
Split = Annotated[str, typer.Option("--split", help=_SPLIT_HELP)]
OptionalSplit = Annotated[
    str | None, typer.Option("--split", help=f"{_SPLIT_HELP} The default is the one in the recipe.")
]
Template = Annotated[
    str, typer.Option("--template", metavar="NAME", help="Chat template. A wrong name lists all.")
]
OptionalTemplate = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="NAME",
        help="Chat template. The default is the model's own. A wrong name lists all.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder to make.")]
OutFile = Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.")]
OptionalOutFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="File to write. The default is to print."),
]
OutRun = Annotated[Path, typer.Option("--out", metavar="RUN", help="Run folder.")]
OptionalOutRun = Annotated[Path | None, typer.Option("--out", metavar="RUN", help="Run folder.")]

Device = Annotated[
    str,
    typer.Option("--device", help="`auto` (an accelerator if there is one), `cpu`, `cuda:N`, ..."),
]


def device_for(wanted: str) -> str:
    """The device of `--device`; it is said on standard error.

    Raises:
        CommandError: there is no such device here.
    """
    from exgra_med.model.bundle import choose_device, device_sentence

    device = choose_device(wanted)
    remark(device_sentence(device))
    return device


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it costs. Do nothing.")
]
Gpu = Annotated[
    str,
    typer.Option(
        "--gpu", rich_help_panel=PLAN, help="GPU to plan for: h100, h200, a100-80, l40s, ..."
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in the folder, if there is one.")
]

EngineOption = Annotated[
    str,
    of_service(
        "--engine",
        metavar="NAME",
        help="Who answers: `checkpoint`, `openai` (a server), `vllm`, or an engine of a package.",
    ),
]


def _utf8(value: str | None) -> str | None:
    """A name that is sent to a service; bytes of a command line may be no UTF-8."""
    if value is not None and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise typer.BadParameter("not UTF-8 text") from error
    return value


_MODEL_HELP = "Name of the model at the service."
Model = Annotated[str, of_service("--model", metavar="NAME", callback=_utf8, help=_MODEL_HELP)]
BaseUrl = Annotated[
    str | None,
    of_service(
        "--base-url",
        metavar="URL",
        help="OpenAI-compatible address, such as http://localhost:8000/v1.",
    ),
]
Concurrency = Annotated[
    int, of_service("--concurrency", min=1, max=4096, help="Requests at the same time.")
]
Attempts = Annotated[int, of_service("--attempts", min=1, help="Requests for one answer.")]
OptionalMaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        min=1,
        help="Tokens of an answer, at most. The default is the one in the recipe.",
    ),
]
MaxNewTokens = Annotated[
    int, of_service("--max-new-tokens", min=1, help="Tokens of an answer, at most.")
]
Temperature = Annotated[
    float | None,
    of_service(
        "--temperature",
        min=0,
        max=10,
        help="Sampling temperature of a service. The default is 0 (greedy) in an evaluation, and "
        "the service's own for captions.",
    ),
]
ServiceSeed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=2**32 - 1,
        help="Start of the random numbers. A service is sent it too. The default is 0 in an "
        "evaluation, and none for captions.",
    ),
]
AllowRemote = Annotated[
    bool, of_cost("--allow-remote", help="Texts and images may leave this machine.")
]
Force = Annotated[bool, of_cost("--force", help="Also use text that seems to identify patients.")]


def _money(value: Any) -> Any:
    """US dollars; a cap that is no number, or a price below zero, would never stop a run."""
    amounts = value if isinstance(value, tuple | list) else [value]
    if not all(each is None or (math.isfinite(each) and each >= 0) for each in amounts):
        raise typer.BadParameter("not an amount of money")
    return value


MaxCost = Annotated[
    float | None,
    of_cost("--max-cost", min=0, callback=_money, help="Stop at this many US dollars."),
]
Price = Annotated[
    tuple[float, float] | None,
    of_cost(
        "--price",
        metavar="PROMPT COMPLETION",
        callback=_money,
        help="US dollars for a million tokens of each.",
    ),
]
Cache = Annotated[
    Path | None,
    of_cost(
        "--cache",
        metavar="FILE",
        help="File of stored answers. The default lies in the user's cache folder.",
    ),
]


def grouped(group: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a verb take the fields of a dataclass as options, in place of its `**` parameter."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            each.replace(kind=each.KEYWORD_ONLY)
            for each in inspect.signature(command).parameters.values()
            if each.kind is not each.VAR_KEYWORD
        ]
        shown = [*own, *inspect.signature(group).parameters.values()]
        command.__signature__ = inspect.Signature(shown)  # pyrefly: ignore
        command.__annotations__ = {each.name: each.annotation for each in shown}
        return command

    return add


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that is asked, and what may be sent there."""

    base_url: BaseUrl = None
    concurrency: Concurrency = 8
    max_new_tokens: MaxNewTokens = 1024
    temperature: Temperature = None
    seed: ServiceSeed = None
    allow_remote: AllowRemote = False
    force: Force = False

    def greedy(self, max_tokens: int) -> "Sampling":
        """How an evaluation asks: for the likeliest words, unless the options say otherwise."""
        from exgra_med.llm.request import Sampling

        return Sampling(max_tokens, temperature=self.temperature or 0.0, seed=self.seed or 0)

    def settings(self, model: str, sampling: "Sampling", **others: Any) -> "ServiceSettings":
        """The settings of the client; `others` are fields that no option of the group gives."""
        from exgra_med.llm.budget import Price as PriceOfTokens
        from exgra_med.llm.service import ServiceSettings

        names = {each.name for each in fields(ServiceSettings)} - {"engine"}
        given = {name: value for name, value in vars(self).items() if name in names}
        if given.get("price"):
            given["price"] = PriceOfTokens(*given["price"])
        return ServiceSettings(model=model, sampling=sampling, **given, **others)


@dataclass(frozen=True, kw_only=True)
class PaidService(Service):
    """A service whose answers are stored and cost money."""

    attempts: Attempts = 3
    max_cost: MaxCost = None
    price: Price = None
    cache: Cache = None
