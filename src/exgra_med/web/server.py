"""One process with one page: the models, a private folder for uploads, the web server."""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.errors import ServiceError
from exgra_med.plugins import import_extra
from exgra_med.web.access import AccessControl, Login
from exgra_med.web.chat import ChatLog, ChatService
from exgra_med.web.chat_models import ChatModel, RunModels, is_looked_at, open_chat_model
from exgra_med.web.error_log import without_error_text
from exgra_med.web.limits import MEGABYTE, Limits
from exgra_med.web.run_view import Views
from exgra_med.web.votes import VoteBook

_PREFIX = "exgra-med-web-"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_SWEEP_SECONDS = 20
_OLD_SECONDS = 120
"""An upload that was not read by then never will be: its visitor has left."""
_CLOSED = {
    # Gradio reads these when it is imported or mounted; each would open a route or send data.
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_VIBE_MODE": "",
    "GRADIO_ALLOWED_PATHS": "",
    "GRADIO_DEBUG": "0",
}


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """What an operator decides.

    Args:
        models: any number, see `open_chat_model`; or folders of runs, whose finished runs are
            models and whose runs may be looked at.
        runs: folders whose runs and studies may be looked at.
        data_folder: the prepared folder of the questions, where it is not the one that the recipe
            names.
        port: to listen on; 0 takes a free one.
        template: chat template of local models, where it is not each model's own.
        allow_remote: questions and pictures may leave this machine.
        public: anyone who reaches the port may use the page.
        origins: addresses the page has behind a proxy, as `https://NAME`.
        frames: sites that may show the page in a frame.
        behind_proxy: take the client address from the proxy; only where no request can avoid it.
        proxies: how many stand one behind the other, where one does.
        keep_log: folder where questions and answers are written; None keeps nothing.
        keep_days: after how many days they are deleted.
        votes: file that each vote is appended to; None counts them until the page is closed.
    """

    models: Sequence[str]
    runs: Sequence[Path] = ()
    data_folder: str | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    device: str = "cpu"
    template: str | None = None
    allow_remote: bool = False
    public: bool = False
    login: Login | None = None
    origins: Sequence[str] = ()
    frames: Sequence[str] = ()
    behind_proxy: bool = False
    proxies: int = 1
    keep_log: Path | None = None
    keep_days: int = 30
    votes: Path | None = None
    limits: Limits = Limits()  # noqa: RUF009 - frozen


def serve_page(settings: WebSettings, on_open: Callable[[str], None]) -> None:
    """Load what is asked first, open the page and wait until it is stopped.

    Raises:
        MissingExtraError: Gradio is not installed.
        ServiceError: a public address without login or consent, or a port that is taken.
        CheckpointError, RunError: a model cannot be loaded.
    """
    check_address(settings)
    import_extra("gradio", "The page", "web")  # before a model is loaded
    folders = [Path(source) for source in settings.models if is_looked_at(source)]

    def open_model(source: str, name: str | None = None) -> ChatModel:
        return open_chat_model(
            source, settings.device, settings.template, settings.allow_remote, settings.limits, name
        )

    models = [open_model(source) for source in settings.models if not is_looked_at(source)]
    log = None if settings.keep_log is None else ChatLog(settings.keep_log, settings.keep_days)
    found, votes = RunModels(folders, open_model), VoteBook(settings.votes)
    chat = ChatService(models, settings.limits, log, found, votes)
    for model in chat.asked_first if models else []:
        model.load()  # what is broken is said here, not to the first visitor
    # An exit instead of a sudden end, so that the private folder is deleted; the server repeats the
    # signal after its shutdown.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with private_folder() as uploads, without_error_text():
        views = Views([*settings.runs, *folders], settings.data_folder, settings.device)
        try:
            _run(build_app(chat, views, uploads, settings), settings, on_open)
        finally:
            chat.decoder.close()


def check_address(settings: WebSettings) -> None:
    """Refuse to open the page to other machines by mistake.

    Raises:
        ServiceError: an address that others reach, without login and without consent.
    """
    if settings.host in LOCAL_HOSTS or settings.public or settings.login is not None:
        return
    raise ServiceError(
        f"Anyone who reaches {settings.host} could use this page.",
        "Give --login NAME to ask for a password, or --public if that is meant.",
    )


@contextmanager
def private_folder() -> Any:
    """A folder for uploads that only this user can read; old files are deleted while it is open.

    The folder of a process that was killed is deleted by the next one.
    """
    for orphan in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = orphan.name.removeprefix(_PREFIX).partition("-")[0]
        mine = hasattr(os, "getuid") and orphan.lstat().st_uid == os.getuid()
        if mine and owner.isdecimal() and not _runs(int(owner)):
            shutil.rmtree(orphan, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as name:
        folder = Path(name)
        os.environ.update(_CLOSED)
        os.environ["GRADIO_TEMP_DIR"] = name
        # A form's file is spooled where Python keeps temporary files, before Gradio moves it.
        before, tempfile.tempdir = tempfile.tempdir, name
        ended = threading.Event()

        def sweep() -> None:
            while not ended.wait(_SWEEP_SECONDS):
                remove_old(folder, time.time() - _OLD_SECONDS)

        sweeper = threading.Thread(target=sweep, daemon=True)
        sweeper.start()
        try:
            yield folder
        finally:
            ended.set()
            sweeper.join()
            tempfile.tempdir = before


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def remove_old(folder: Path, before: float) -> None:
    """Delete files last changed before a time, and folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        # The page may just have read and deleted it.
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.lstat().st_mtime < before:
                path.unlink()


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total


def build_app(
    chat: ChatService, views: Views, uploads: Path, settings: WebSettings
) -> AccessControl:
    """The page behind its access control, as an ASGI application; `uploads` is open already."""
    import fastapi  # pyrefly: ignore
    import gradio as gr  # pyrefly: ignore

    from exgra_med.web.page import HEAD, build_page, theme

    limits = settings.limits
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "open"}

    page = build_page(chat, views, uploads, None if chat.log is None else settings.keep_days)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=limits.max_upload_megabytes * MEGABYTE,
        allowed_paths=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        head=HEAD,
    )
    # Gradio refuses files that are no uploads only of a page that it has launched itself: without
    # this, a visitor who names a picture of this machine instead of an upload is shown it.
    page.has_launched = True

    def num_waiting(client: str) -> int:
        queues = page._queue.event_queue_per_concurrency_id.values()
        events = [event for each in queues for event in each.queue]
        return sum(event.request.client.host == client for event in events)

    max_waiting_bytes = limits.max_waiting_upload_megabytes * MEGABYTE
    return AccessControl(
        app,
        limits,
        hosts=LOCAL_HOSTS if settings.host in LOCAL_HOSTS and not settings.public else None,
        origins=settings.origins,
        frames=settings.frames,
        login=settings.login,
        proxies=settings.proxies if settings.behind_proxy else 0,
        has_disk_space=lambda: folder_bytes(uploads) < max_waiting_bytes,
        num_waiting=num_waiting,
    )


def _run(app: Any, settings: WebSettings, on_open: Callable[[str], None]) -> None:
    import socket

    import uvicorn  # pyrefly: ignore

    from exgra_med.web.connections import bounded_protocol

    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}).",
            "Choose another --port.",
        ) from error
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        http=bounded_protocol(settings.limits, not settings.behind_proxy),
        ws="none",
        # `AccessControl` reads them: uvicorn would believe what a visitor wrote.
        proxy_headers=False,
        limit_concurrency=settings.limits.max_connections + 1,
        timeout_graceful_shutdown=3,
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_open(address)

    with listener:
        Server(config).run(sockets=[listener])
