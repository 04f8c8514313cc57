"""`exgra-med web`: a page to look at models and runs."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli import options

EXAMPLE = """
Examples:

* `exgra-med web runs/demo --runs runs`

* `exgra-med web runs/a runs/b` asks both models the same question

* `exgra-med web runs` is a menu of all finished runs, and shows one that is in training

* `exgra-med web qwen2.5-vl@http://localhost:8000/v1` asks a model at a server

* `exgra-med web runs/demo --option max_upload_megabytes=5` changes a limit
"""
PASSWORD = "EXGRA_MED_WEB_PASSWORD"
of_access = partial(typer.Option, rich_help_panel="Who may use the page")
of_log = partial(typer.Option, rich_help_panel="What is stored")


def web(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Run or checkpoint folder, hub name, NAME@http://HOST/v1, or a folder of runs.",
        ),
    ],
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", metavar="FOLDER", help="Folder of runs. May be repeated."),
    ] = None,
    data: options.OptionalData = None,
    template: options.OptionalTemplate = None,
    device: options.Device = "auto",
    host: options.Host = "127.0.0.1",
    port: options.Port = 7860,
    option: options.VerbOption = None,
    login: Annotated[
        str | None,
        of_access(
            "--login",
            metavar="NAME",
            help=f"Ask for this name, and for the password in {PASSWORD}.",
        ),
    ] = None,
    public: Annotated[
        bool, of_access("--public", help="Anyone who reaches the port may use the page.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        of_access(
            "--origin",
            metavar="URL",
            help="Address of the page behind a proxy, https://NAME. May be repeated.",
        ),
    ] = None,
    frame: Annotated[
        list[str] | None,
        of_access(
            "--frame",
            metavar="URL",
            help="Site that may show the page in a frame. May be repeated.",
        ),
    ] = None,
    behind_proxy: Annotated[
        bool, of_access("--behind-proxy", help="Take the client's address from the proxy.")
    ] = False,
    proxies: Annotated[
        int, of_access("--proxies", metavar="N", min=1, help="How many proxies, with the former.")
    ] = 1,
    allow_remote: options.AllowRemote = False,
    keep_log: Annotated[
        Path | None,
        of_log("--keep-log", metavar="FOLDER", help="Write questions and answers to this folder."),
    ] = None,
    keep_days: Annotated[
        int, of_log("--keep-days", min=1, max=36500, help="Delete them after N days.")
    ] = 30,
    votes: Annotated[
        Path | None,
        of_log(
            "--votes",
            metavar="FILE",
            help="Append each vote to this file: the two models, the better one, nothing else.",
        ),
    ] = None,
) -> None:
    """Open a page: chat with a picture, compare two models, see matched graphs, read runs.

    Of several models one is chosen on the page, and loaded then.

    It listens to this machine alone and stores nothing of what is asked or uploaded, unless an
    option says so. --data is for runs whose prepared folder has moved. --option changes a limit.
    --port 0 takes a free port.
    """
    device = options.device_for(device)
    from exgra_med.model.published import NOTICE
    from exgra_med.web.access import Login
    from exgra_med.web.limits import with_limits
    from exgra_med.web.server import WebSettings, serve_page

    settings = WebSettings(
        models=models,
        runs=runs or [],
        data_folder=data,
        host=host,
        port=port,
        device=device,
        template=template,
        allow_remote=allow_remote,
        public=public,
        login=None if login is None else Login(login, _password()),
        origins=origin or [],
        frames=frame or [],
        behind_proxy=behind_proxy,
        proxies=proxies,
        keep_log=keep_log,
        keep_days=keep_days,
        votes=votes,
        limits=with_limits(option or []),
    )
    typer.secho(NOTICE, err=True)
    if keep_log is not None:
        typer.echo(f"Questions and answers go to {keep_log} for {keep_days} days.", err=True)
    if public:
        typer.secho("Anyone who reaches the port can use this page.", fg="yellow", err=True)
    serve_page(settings, lambda address: typer.echo(f"The page is open: {address}", err=True))


def _password() -> str:
    """From the environment, or typed; never an argument, which other users can see."""
    from exgra_med.errors import ServiceError

    given = os.environ.get(PASSWORD, "")
    if not given and sys.stdin.isatty():
        given = typer.prompt("Password of the page", hide_input=True)
    if not given:
        raise ServiceError("There is no password for --login.", f"Set {PASSWORD}.")
    return given
