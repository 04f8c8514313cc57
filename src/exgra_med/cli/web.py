"""`exgra-med web`: a page to look at models and runs."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Examples:

* `exgra-med web runs/demo --runs runs`

* `exgra-med web runs/a runs/b` asks both models the same question

* `exgra-med web qwen2.5-vl@http://localhost:8000/v1` asks a model at a server
"""
PASSWORD = "EXGRA_MED_WEB_PASSWORD"


def web(
    model: Annotated[
        str, typer.Argument(help="Run or checkpoint folder, hub name, or NAME@http://HOST/v1.")
    ],
    model2: Annotated[str | None, typer.Argument(help="Another one, to compare with.")] = None,
    runs: Annotated[
        list[Path] | None, typer.Option(help="Folder of runs to look at; may be repeated.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The prepared folder that runs answered, if it moved.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 7860,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    template: Annotated[str, typer.Option(help="Chat template of local models.")] = "exgra",
    login: Annotated[
        str | None, typer.Option(help=f"Ask for this name and the password in {PASSWORD}.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Anyone who reaches the port may use the page.")
    ] = False,
    origin: Annotated[
        list[str] | None, typer.Option(help="The page's address behind a proxy, https://NAME.")
    ] = None,
    frame: Annotated[
        list[str] | None, typer.Option(help="Site that may show the page in a frame.")
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Believe a proxy who asks.")
    ] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Questions and images may leave this machine.")
    ] = False,
    keep_log: Annotated[
        Path | None, typer.Option(help="Write questions and answers to this folder.")
    ] = None,
    keep_days: Annotated[int, typer.Option(min=1, help="Delete them after so many days.")] = 30,
    limit: Annotated[
        list[str] | None, typer.Option(help="Change a limit, e.g. max_upload_megabytes=5.")
    ] = None,
) -> None:
    """Open a page: chat with a picture, compare two models, see matched graphs, read runs.

    It listens to this machine alone and stores nothing of what is asked or uploaded, unless told
    otherwise.
    """
    from exgra_med.model.published import NOTICE
    from exgra_med.web.access import Login
    from exgra_med.web.limits import with_limits
    from exgra_med.web.server import WebSettings, serve_page

    settings = WebSettings(
        models=[each for each in (model, model2) if each is not None],
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
        keep_log=keep_log,
        keep_days=keep_days,
        limits=with_limits(limit or []),
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
