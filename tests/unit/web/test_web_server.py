"""Where the page listens, and the folder that uploads pass through."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import MissingExtraError, ServiceError
from exgra_med.web import server
from exgra_med.web.access import Login
from exgra_med.web.server import WebSettings, check_address, folder_bytes, private_folder


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_consent(host: str) -> None:
    check_address(WebSettings(models=["a"], host=host))


def test_the_default_is_this_machine() -> None:
    assert WebSettings(models=["a"]).host == "127.0.0.1"


def test_other_machines_need_a_login_or_consent() -> None:
    with pytest.raises(ServiceError, match=r"Anyone who reaches 0\.0\.0\.0"):
        check_address(WebSettings(models=["a"], host="0.0.0.0"))
    check_address(WebSettings(models=["a"], host="0.0.0.0", public=True))
    check_address(WebSettings(models=["a"], host="0.0.0.0", login=Login("a", "b")))


def test_a_password_is_never_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXGRA_MED_WEB_PASSWORD", raising=False)
    with pytest.raises(ServiceError, match="no password"):
        CliRunner().invoke(app, ["web", "model", "--login", "ana"], catch_exceptions=False)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r"\[web\]"):
        server.serve_page(WebSettings(models=["a"]), print)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in [*server._CLOSED, "GRADIO_TEMP_DIR"]:
        monkeypatch.setenv(name, "before")
    return tmp_path


def test_the_private_folder_is_private_and_gone(temporary: Path) -> None:
    with private_folder() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder) == tempfile.gettempdir()
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        (folder / "upload").write_bytes(b"12345")
        assert folder_bytes(folder) == 5
    assert not folder.exists() and tempfile.gettempdir() == str(temporary)


def test_old_uploads_are_swept_and_new_ones_stay(tmp_path: Path) -> None:
    old, new = tmp_path / "a" / "old.png", tmp_path / "b" / "new.png"
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"1")
    os.utime(old, (0, 0))
    server.remove_old(tmp_path, time.time() - 60)
    assert not old.parent.exists() or not old.exists()
    assert new.exists()
    server.remove_old(tmp_path, time.time() - 60)
    assert not old.parent.exists()


def test_what_a_killed_process_left_is_deleted(temporary: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    dead = temporary / f"exgra-med-web-{int(done.stdout)}-abc"
    mine = temporary / f"exgra-med-web-{os.getpid()}-abc"
    for folder in (dead, mine):
        folder.mkdir()
        (folder / "upload").write_bytes(b"1")
    with private_folder():
        assert not dead.exists() and mine.exists()


def test_any_number_of_models_and_a_file_of_votes_can_be_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[WebSettings] = []
    monkeypatch.setattr(server, "serve_page", lambda settings, on_open: opened.append(settings))
    told = CliRunner().invoke(app, ["web", "a", "b", "c", "--votes", "v.jsonl"])
    assert told.exit_code == 0
    assert list(opened[0].models) == ["a", "b", "c"] and opened[0].votes == Path("v.jsonl")
    CliRunner().invoke(app, ["web", "a"])
    assert opened[1].votes is None


def test_a_folder_of_runs_is_a_menu_and_can_be_looked_at(
    runs: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra [web]")
    pages = []
    monkeypatch.setattr(server, "build_app", lambda chat, views, *_: pages.append((chat, views)))
    monkeypatch.setattr(server, "_run", lambda *_: None)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    server.serve_page(WebSettings(models=[str(runs)]), print)
    ((chat, views),) = pages
    assert chat.models == [], "none of these made-up runs has weights"
    assert "runs/demo" in views.names("run")
