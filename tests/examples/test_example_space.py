"""The Space folder: its settings, its files, and the page started from the wheel it installs."""

import importlib.util
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from exgra_med.errors import ServiceError
from exgra_med.web.chat_models import open_chat_model
from exgra_med.web.server import WebSettings, check_address

PROJECT = Path(__file__).resolve().parents[2]
SPACE = PROJECT / "examples" / "space"


def settings_from(environment: Mapping[str, str]) -> WebSettings:
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.settings_from(environment)


def test_a_space_is_public_framed_by_the_hub_and_nothing_else() -> None:
    settings = settings_from({"EXGRA_MED_MODEL": "a/b", "SPACE_HOST": "owner-name.hf.space"})
    check_address(settings)
    assert settings.public and settings.login is None and settings.behind_proxy
    assert settings.origins == ["https://owner-name.hf.space"]
    assert settings.frames == ["https://huggingface.co"]
    assert settings.keep_log is None and not settings.allow_remote
    plain = settings_from({"EXGRA_MED_MODEL": "a/b"})
    assert plain.frames == [] and plain.origins == [] and not plain.behind_proxy


def test_a_password_closes_it_and_another_host_needs_consent() -> None:
    given = {"EXGRA_MED_MODEL": "toy@https://models.example/v1", "EXGRA_MED_WEB_PASSWORD": "x"}
    settings = settings_from(given)
    assert settings.login is not None and not settings.public
    with pytest.raises(ServiceError, match="would leave this machine"):
        open_chat_model(settings.models[0], "cpu", "exgra", settings.allow_remote, settings.limits)
    assert settings_from(given | {"EXGRA_MED_ALLOW_REMOTE": "1"}).allow_remote


def test_without_a_model_it_says_so() -> None:
    with pytest.raises(SystemExit, match="EXGRA_MED_MODEL"):
        settings_from({})


def test_the_card_describes_a_docker_space() -> None:
    head = (SPACE / "README.md").read_text(encoding="utf-8").split("---")[1]
    card = yaml.safe_load(head)
    assert (card["sdk"], card["app_port"]) == ("docker", 7860)
    assert len(card["short_description"]) <= 60
    docker = (SPACE / "Dockerfile").read_text(encoding="utf-8")
    assert f"EXPOSE {card['app_port']}" in docker and "USER user" in docker
    copied = re.findall(r"^COPY (\S+) ", docker, re.MULTILINE)
    assert copied == ["exgra_med-*.whl", "app.py"]
    variables = re.findall(r"`(EXGRA_MED_\w+)`", (SPACE / "README.md").read_text())
    code = (SPACE / "app.py").read_text()
    assert set(variables) == set(re.findall(r"EXGRA_MED_\w+", code))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install` of the wheel puts in place."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(PROJECT)], check=True, capture_output=True)
    (wheel,) = folder.glob("exgra_med-*.whl")
    place = folder / "installed"
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(place)
    for needed in ("web/page.css", "web/templates/run.html.j2", "web/access.py"):
        assert f"exgra_med/{needed}" in names
    return place


@pytest.mark.slow
def test_the_wheel_brings_the_page_along(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SPACE / "app.py")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Set EXGRA_MED_MODEL" in done.stderr


@pytest.mark.browser
def test_the_page_starts_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra [web]")
    environment = {
        "EXGRA_MED_MODEL": "toy@http://127.0.0.1:9/v1",
        "SPACE_HOST": "owner-name.hf.space",
        "PORT": "0",
        "TMPDIR": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(installed), *filter(None, sys.path)]),
    }
    with subprocess.Popen(
        [sys.executable, str(SPACE / "app.py")],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            port = int(line.rpartition(":")[2])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                policy = answer.headers["content-security-policy"]
            assert "frame-ancestors 'self' https://huggingface.co" in policy
        finally:
            process.terminate()
