import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.errors import CheckpointError, DamagedFileError
from exgra_med.model import served_app, serving
from exgra_med.model.convert.checkpoint import import_checkpoint

DATA = Path(__file__).parents[2] / "golden" / "data" / "model"


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("serving") / "native"
    import_checkpoint(str(DATA / "checkpoint_dci"), str(DATA / "clip_tiny"), out)
    return out


@pytest.mark.slow
def test_an_export_is_made_once_and_again_when_the_weights_change(native: Path) -> None:
    export = serving.prepare_export(str(native))
    assert export == native.with_name("native-hf-llava")
    stamp = (export / "config.json").stat().st_mtime_ns
    assert serving.prepare_export(str(native)) == export == serving.prepare_export(str(export))
    assert (export / "config.json").stat().st_mtime_ns == stamp
    tokenizer = native / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    with pytest.raises(DamagedFileError, match=r"if it was changed on purpose, delete .*digests"):
        serving.prepare_export(str(native))
    (native / "digests.json").unlink()
    assert (serving.prepare_export(str(native)) / "config.json").stat().st_mtime_ns != stamp


def test_the_layout_of_the_original_is_refused(native: Path) -> None:
    with pytest.raises(CheckpointError, match="checkpoint import"):
        serving.prepare_export(str(DATA / "checkpoint_dci"))


@pytest.mark.parametrize(("layers", "through_transformers"), [(-2, False), ([0, 23], True)])
def test_vllm_reads_a_folded_connector_through_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: object, through_transformers: bool
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    (tmp_path / "config.json").write_text(json.dumps({"vision_feature_layer": layers}))
    assert serving.choose_server() == "vllm"
    command = serving.server_command(tmp_path, "127.0.0.1", 8123)
    assert command[:3] == ["/bin/vllm", "serve", str(tmp_path)]
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "8123"
    assert "--trust-remote-code" not in command
    assert ("--model-impl" in command) == through_transformers
    assert "--allowed-media-domains" in command


def test_an_unknown_or_missing_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="'triton'"):
        serving.choose_server("triton")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CheckpointError, match="vLLM is not installed"):
        serving.choose_server("vllm")
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(serving.MissingExtraError, match=r"\[serve\]"):
        serving.choose_server()


def test_nothing_remote_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    environment = serving.server_environment()
    assert environment["https_proxy"] == environment["HTTP_PROXY"] == serving.NOWHERE
    assert "NO_PROXY" not in environment and environment["HF_HUB_OFFLINE"] == "1"


def test_the_server_runs_in_an_empty_folder(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = "import os; raise SystemExit(3 + len(os.listdir()))"
    monkeypatch.setattr(serving, "server_command", lambda *_: [sys.executable, "-c", look])
    assert serving.run_vllm(native, "127.0.0.1", 8000) == 3


STAND_IN = """
import signal, sys, time
def stop(number, frame):
    print("closing", flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, stop)
print("open", flush=True)
time.sleep(60)
"""
LAUNCHER = """
import sys
from pathlib import Path
from exgra_med.model import serving as launch
launch.server_command = lambda *_: [sys.executable, "-c", sys.argv[1]]
raise SystemExit(launch.run_vllm(Path(), "127.0.0.1", 8000))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is no signal there")
def test_sigterm_reaches_the_server_and_is_waited_for() -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, STAND_IN],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == b"open\n"
    launcher.terminate()
    written, _ = launcher.communicate(timeout=30)
    assert written == b"closing\n" and launcher.returncode == 5


def test_the_model_that_a_request_names_is_printed(
    native: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(served_app, "run_app", lambda app, _: seen.append(app.name))
    monkeypatch.setattr(serving, "find_spec", lambda name: name)
    monkeypatch.chdir(native.parent)
    given = ["serve", native.name, "--server", "transformers", "--port", "0"]
    found = CliRunner().invoke(app, given)
    lines = found.stderr.splitlines()
    assert lines[0].startswith("Device: ")
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/v1", lines[-2])
    assert lines[-1] == "model: native" and seen == ["native"]


def test_what_vllm_decides_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    for given in (["--device", "cpu"], ["--template", "exgra"]):
        found = CliRunner().invoke(app, ["serve", "model", *given])
        assert "vLLM chooses its device itself" in str(found.exception)
