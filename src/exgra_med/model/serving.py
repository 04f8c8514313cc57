"""Which server answers, and `vllm serve` on a folder of plain transformers: a stock export of this
project's own model, any other model as it is.

It may not fetch pictures by URL (remote addresses are blocked) or log questions. What its options
cannot block is in docs/how-to/serve.md. The other server is `served_app.py`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from exgra_med.errors import CheckpointError, MissingExtraError
from exgra_med.model.bundle import CONFIG, is_native, local_folder, read_json_object
from exgra_med.model.convert.checkpoint import EXPORTED, export_checkpoint
from exgra_med.model.sizes import folder_config
from exgra_med.model.verification import file_hashes
from exgra_med.recipe.run_folder import check_checkpoint

SERVERS = ("vllm", "transformers")
NOWHERE = "http://127.0.0.1:9"
"""A proxy that does not exist, so that no remote picture of a request is fetched."""
_CLOSING_SECONDS = 20
_EXPORT = "-hf-llava"
"""Behind the name of a checkpoint: its stock export."""


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
    if not find_spec("uvicorn"):
        raise MissingExtraError("Serving with transformers", "serve")
    return "transformers"


def prepare_export(source: str) -> Path:
    """What vLLM can load of a checkpoint: the folder itself, or a stock export beside it, made
    where needed. A model of another family is served as it is.

    Returns:
        Its absolute path.

    Raises:
        CheckpointError: the source is not usable.
    """
    folder = local_folder(source)
    check_checkpoint(folder)
    if not is_native(folder):
        folder_config(folder)
        return folder.resolve()
    if (folder / EXPORTED).is_file():
        return folder.resolve()
    export = folder.resolve().with_name(f"{folder.name}{_EXPORT}")
    made_from = read_json_object(export / EXPORTED) if (export / EXPORTED).is_file() else {}
    if made_from.get("sha256") != file_hashes(folder):
        export_checkpoint(str(folder), export)
    check_checkpoint(export, f"Delete {export}; it is made anew.")
    return export


def served_name(folder: Path) -> str:
    """What a request gives as its model: a short name without the path on this machine.

    >>> served_name(Path("/home/me/runs/demo/checkpoints/vqa/final-hf-llava"))
    'demo-vqa'
    >>> served_name(Path("/home/me/exgra-med-dci"))
    'exgra-med-dci'
    """
    *above, own = folder.parts
    parts = [*above, own.removesuffix(_EXPORT)]
    if "checkpoints" in above:
        # The last folder of that name: a run and its stage stand around it.
        place = len(above) - 1 - above[::-1].index("checkpoints")
        parts = [each for each in parts[max(place - 1, 0) :] if each != "checkpoints"]
        name = "-".join(each for each in parts if each != "final")
    else:
        name = parts[-1]
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def server_command(folder: Path, host: str, port: int) -> list[str]:
    """The argument list of vLLM; never a shell string."""
    address = ["--host", host, "--port", str(port)]
    folded = isinstance(read_json_object(folder / CONFIG).get("vision_feature_layer"), list)
    # Answers have the first of the names.
    names = [served_name(folder), str(folder)]
    own = ["--served-model-name", *names, "--disable-uvicorn-access-log"]
    # vLLM's own LLaVA reads a single vision layer; transformers' reads a list.
    own += ["--model-impl", "transformers"] if folded else []
    own += ["--allowed-media-domains", "nothing.invalid"]
    return [shutil.which("vllm") or "vllm", "serve", str(folder), *address, *own]


def server_environment() -> dict[str, str]:
    """The environment of vLLM: nothing is fetched, neither pictures nor other models."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE)
    proxies |= {name.lower(): NOWHERE for name in proxies}
    cleared = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    # The server starts in another folder, where a relative path would lead elsewhere.
    here = [str(Path(each).resolve()) for each in sys.path if each]
    ours = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return cleared | proxies | ours | {"PYTHONPATH": os.pathsep.join(here)}


def run_vllm(folder: Path, host: str, port: int) -> int:
    """Start vLLM on a folder and wait until it ends; SIGTERM and SIGHUP end it too.

    Args:
        folder: from `prepare_export`, absolute.

    Returns:
        Its exit code.
    """
    command = server_command(folder, host, port)
    # An empty working folder: a relative file name in a request leads nowhere.
    with TemporaryDirectory() as empty:
        return _run(command, server_environment(), empty)


def _run(command: list[str], environment: dict[str, str], folder: str) -> int:
    """Run a program to its end; signals that stop this process are passed on to it."""
    child: subprocess.Popen[bytes] | None = None
    asked: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        asked.append(number)
        if child is not None:
            child.send_signal(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), pass_on) for name in names}
    try:
        child = subprocess.Popen(command, env=environment, cwd=folder)
        # A signal that came before the program was started.
        if asked:
            child.send_signal(asked[-1])
        try:
            code = child.wait()
        except KeyboardInterrupt:
            # A terminal sends Ctrl-C to the server as well, which closes its connections first.
            try:
                code = child.wait(_CLOSING_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                code = child.wait()
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
    # As a shell reports a program that a signal ended.
    return code if code >= 0 else 128 - code
