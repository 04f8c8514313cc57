"""The page as Gradio builds it, without a server or a browser; skipped where there is no Gradio."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from exgra_med.web.chat import ChatService
from exgra_med.web.limits import Limits
from exgra_med.web.run_view import Views
from exgra_med.web.server import WebSettings, build_app, private_folder

pytest.importorskip("gradio", reason="the page needs the extra [web]")


class Mute:
    name, host = "mute", "models.example"

    def answer(self, *_: Any) -> Any:
        return iter(())


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    settings = WebSettings(models=["mute"])
    with private_folder() as uploads:
        yield build_app(ChatService([Mute()], Limits()), Views([]), uploads, settings)


def get(app: Any, path: str) -> tuple[int, str]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:7860")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 7860),
    }
    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], body.decode()


def test_the_first_page_has_the_notice_and_says_where_questions_go(app: Any) -> None:
    status, html = get(app, "/")
    assert status == 200
    assert "Research use only." in html
    assert "Questions and pictures are sent to models.example." in html
    assert "Nothing you ask or upload is stored." in html


def test_no_function_is_public_and_analytics_are_off(app: Any) -> None:
    config = json.loads(get(app, "/config")[1])
    assert {each["api_visibility"] for each in config["dependencies"]} == {"private"}
    assert config["analytics_enabled"] is False
    assert not config.get("footer_links")


def test_the_theme_names_no_other_machine(app: Any) -> None:
    status, css = get(app, "/theme.css")
    assert status == 200
    assert not re.findall(r"url\(['\"]?https?:|@import", css)
