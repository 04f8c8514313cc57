"""Start `vllm serve` where vLLM is installed, else `transformers serve`, on a stock export.

Neither may fetch pictures by URL (remote addresses are cut off), log what people ask, or listen to
other machines unless told to. What their options cannot close is said in docs/how-to/serve.md.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from exgra_med.errors import CheckpointError, MissingExtraError
from exgra_med.model.bundle import read_config
from exgra_med.model.convert.checkpoint import EXPORTED, export_checkpoint
from exgra_med.model.folder import local_folder, read_json
from exgra_med.model.verification import file_hashes

SERVERS = ("vllm", "transformers")
NOWHERE = "http://127.0.0.1:9"
"""A proxy that does not exist: whatever a client names as a remote picture is not fetched."""


def choose_server(wanted: str | None = None) -> str:
    """The server to start: the wanted one, else vLLM where it is installed.

    Raises:
        CheckpointError: the name is unknown.
        MissingExtraError: the server is not installed.
    """
    if wanted is not None and wanted not in SERVERS:
        raise CheckpointError(f"There is no server {wanted!r}.", f"Use {' or '.join(SERVERS)}.")
    if wanted != "transformers" and shutil.which("vllm"):
        return "vllm"
    if wanted == "vllm":
        raise CheckpointError(
            "vLLM is not installed here.", "Install it in an environment of its own, on the PATH."
        )
    if not all(find_spec(name) for name in ("fastapi", "uvicorn", "openai")):
        raise MissingExtraError("Serving with transformers", "serve")
    return "transformers"


def prepare(source: str) -> Path:
    """A stock export of a checkpoint: the folder itself, or one beside it, made where needed.

    Raises:
        CheckpointError: the source is not usable.
    """
    folder = local_folder(source)
    read_config(folder)
    if (folder / EXPORTED).is_file():
        return folder
    export = folder.with_name(f"{folder.name}-hf-llava")
    made_from = read_json(export / EXPORTED) if (export / EXPORTED).is_file() else {}
    if made_from.get("sha256") != file_hashes(folder):
        export_checkpoint(str(folder), export)
    return export


def server_command(server: str, folder: Path, host: str, port: int, device: str) -> list[str]:
    """The argument list of a server; never a shell string."""
    address = ["--host", host, "--port", str(port)]
    if server == "transformers":
        program = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
        dtype = ["--dtype", "float32"] if device == "cpu" else []
        return [*program, *address, "--device", device, *dtype]
    folded = isinstance(read_json(folder / "config.json")["vision_feature_layer"], list)
    own = ["--served-model-name", str(folder), "--disable-uvicorn-access-log"]
    # vLLM's own LLaVA reads a single vision layer; transformers' reads a list.
    own += ["--model-impl", "transformers"] if folded else []
    own += ["--allowed-media-domains", "nothing.invalid"]
    return [shutil.which("vllm") or "vllm", "serve", str(folder), *address, *own]


def server_environment() -> dict[str, str]:
    """The environment of a server: nothing is fetched, neither pictures nor other models."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE)
    proxies |= {name.lower(): NOWHERE for name in proxies}
    cleared = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    return cleared | proxies | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def serve(source: str, host: str, port: int, device: str, server: str) -> int:
    """Export if needed, start a server and wait until it ends.

    Returns:
        The server's exit code.
    """
    command = server_command(server, prepare(source).resolve(), host, port, device)
    # An empty working folder: a relative file name in a request leads nowhere.
    with TemporaryDirectory() as empty:
        return subprocess.call(command, env=server_environment(), cwd=empty)
