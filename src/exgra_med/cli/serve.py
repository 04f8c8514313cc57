"""`exgra-med serve`: an OpenAI-compatible server on a checkpoint."""

from typing import Annotated

import typer

from exgra_med.cli.options import (
    Device,
    Host,
    ModelArgument,
    OptionalTemplate,
    Port,
    device_for,
)
from exgra_med.errors import CommandError
from exgra_med.terminal import remark

EXAMPLE = "Example: `exgra-med serve runs/demo/checkpoints/vqa/final --port 8000`"


def serve(
    model: ModelArgument,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    device: Device = "auto",
    template: OptionalTemplate = None,
    server: Annotated[
        str | None, typer.Option("--server", metavar="NAME", help="vllm or transformers.")
    ] = None,
) -> None:
    """Serve a model through an OpenAI-compatible address.

    It uses vLLM where that is installed, otherwise transformers in this process. It listens to this
    machine alone unless --host says otherwise, and asks for no password. Clients send pictures as
    base64; the server downloads nothing. A request gives as its model the line that begins with
    "model:".
    """
    from exgra_med.model.serving import choose_server

    chosen = choose_server(server)
    if chosen == "vllm":
        if device != "auto" or template is not None:
            raise CommandError(
                "vLLM chooses its device itself and has the template of the checkpoint.",
                "Leave --device and --template out, or give --server transformers.",
            )
        raise typer.Exit(_serve_vllm(model, host, port))
    device = device_for(device)
    _warn(host, port)
    _serve_here(model, host, port, device, template)


def _warn(host: str, port: int) -> None:
    from exgra_med.model.published import NOTICE

    remark(NOTICE)
    if host not in ("127.0.0.1", "localhost", "::1"):
        typer.secho(f"Anyone who reaches {host}:{port} can use this server.", fg="yellow", err=True)


def _serve_vllm(model: str, host: str, port: int) -> int:
    from exgra_med.model.serving import prepare_export, run_vllm, served_name

    _warn(host, port)
    folder = prepare_export(model)
    _tell_address(host, port, served_name(folder))
    return run_vllm(folder, host, port)


def _serve_here(model: str, host: str, port: int, device: str, template: str | None) -> None:
    import torch

    from exgra_med.data.chat_template import chat_template
    from exgra_med.model.bundle import load_bundle, local_folder
    from exgra_med.model.served_app import ModelAnswers, ServedApp, open_port, run_app
    from exgra_med.model.serving import served_name
    from exgra_med.recipe.run_folder import own_template

    if template is not None:
        chat_template(template)
    folder = local_folder(model)
    # Before the model is loaded, which may take minutes.
    with open_port(host, port) as listener:
        # Half precision is slow or missing on CPUs, and what an accelerator is for.
        bundle = load_bundle(folder, torch.float32 if device == "cpu" else "auto", device)
        name = served_name(folder.resolve())
        app = ServedApp(ModelAnswers(bundle, template or own_template(folder)), name)
        _tell_address(host, listener.getsockname()[1], name)
        run_app(app, listener)


def _tell_address(host: str, port: int, name: str) -> None:
    remark(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
    # On a line of its own: a request repeats it to the letter.
    remark(f"model: {name}")
