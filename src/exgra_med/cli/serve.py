"""`exgra-med serve`: an OpenAI-compatible server on a checkpoint."""

from typing import Annotated

import typer

from exgra_med.cli.options import Device, Host, ModelArgument, Port

EXAMPLE = "Example: `exgra-med serve runs/demo/checkpoints/vqa/final --port 8000`"


def serve(
    model: ModelArgument,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    device: Device = "cpu",
    server: Annotated[
        str | None, typer.Option("--server", metavar="NAME", help="vllm or transformers.")
    ] = None,
) -> None:
    """Serve a model through an OpenAI-compatible address.

    It uses vLLM where that is installed, otherwise transformers, which also takes --device auto.
    It listens to this machine alone unless --host says otherwise, and asks for no password.
    Clients send pictures as base64; the server downloads nothing. A request gives as its model
    the line that begins with "model:".
    """
    from exgra_med.model.published import NOTICE
    from exgra_med.model.serving import choose_server, prepare_export, run_server, served_name

    chosen = choose_server(server)
    typer.echo(NOTICE, err=True)
    if host not in ("127.0.0.1", "localhost", "::1"):
        typer.secho(f"Anyone who reaches {host}:{port} can use this server.", fg="yellow", err=True)
    folder = prepare_export(model, chosen)
    typer.echo(f"http://{host}:{port}/v1", err=True)
    # On a line of its own: a request repeats it to the letter.
    typer.echo(f"model: {served_name(folder)}", err=True)
    raise typer.Exit(run_server(folder, host, port, device, chosen))
