"""`exgra-med serve`: an OpenAI-compatible server on a checkpoint."""

from typing import Annotated

import typer

EXAMPLE = "Example: exgra-med serve runs/demo/checkpoints/vqa/final --port 8000"


def serve(
    model: Annotated[str, typer.Argument(help="Run or checkpoint folder, or a hub name.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto (transformers only).")] = "cpu",
    server: Annotated[str | None, typer.Option(help="vllm or transformers.")] = None,
) -> None:
    """Serve a model with vLLM where it is installed, else with transformers.

    Clients send pictures as base64; the server fetches nothing. It listens to this machine alone
    unless --host says otherwise, and asks for no password. The line that begins with "model:"
    is what a request has to give as its model.
    """
    from exgra_med.model.published import NOTICE
    from exgra_med.model.serving import choose_server, prepare_export, run_server

    chosen = choose_server(server)
    typer.echo(NOTICE, err=True)
    if host not in ("127.0.0.1", "localhost", "::1"):
        typer.secho(f"Anyone who reaches {host}:{port} can use this server.", fg="yellow", err=True)
    folder = prepare_export(model)
    typer.echo(f"http://{host}:{port}/v1", err=True)
    # On a line of its own, whole: a request must repeat it to the letter.
    typer.echo(f"model: {folder}", err=True)
    raise typer.Exit(run_server(folder, host, port, device, chosen))
