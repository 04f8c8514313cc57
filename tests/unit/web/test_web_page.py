"""The page as Gradio builds it, without a server or a browser; skipped where there is no Gradio."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from exgra_med.web import chat as chat_module
from exgra_med.web.chat import ChatService, Dialogue
from exgra_med.web.chat_models import ChatModel, TextChunk
from exgra_med.web.limits import Limits
from exgra_med.web.run_view import Views
from exgra_med.web.server import WebSettings, build_app, private_folder

pytest.importorskip("gradio", reason="the page needs the extra [web]")


class Mute(ChatModel):
    name, kind, host = "mute", "", "models.example"

    def answer(self, *_: Any) -> Any:
        return iter(())


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    settings = WebSettings(models=["mute"])
    with private_folder() as uploads:
        yield build_app(ChatService([Mute()], Limits()), Views([]), uploads, settings)


async def ask(app: Any, path: str, client: str, value: Any = None) -> tuple[int, str]:
    """The answer to a request: with a value, one that sends it as JSON."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(value).encode(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET" if value is None else "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:7860"), (b"content-type", b"application/json")],
        "client": (client, 1),
        "server": ("127.0.0.1", 7860),
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], body.decode()


def get(app: Any, path: str) -> tuple[int, str]:
    return asyncio.run(ask(app, path, "127.0.0.1"))


def test_one_address_does_not_fill_the_queue(app: Any) -> None:
    async def attack() -> list[int]:
        config = json.loads((await ask(app, "/config", "10.0.0.1"))[1])
        number = next(each["id"] for each in config["dependencies"] if each["queue"])
        value = {"data": [None], "fn_index": number, "session_hash": "a"}
        path = "/gradio_api/queue/join"
        statuses = [(await ask(app, path, "10.0.0.1", value))[0] for _ in range(12)]
        return [*statuses, (await ask(app, path, "10.0.0.2", value))[0]]

    assert asyncio.run(attack()) == [200] * Limits().max_address_queue + [429] * 4 + [200]


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


class Talker(ChatModel):
    """Says five words, and calls a function before the third."""

    name, kind, host = "talker", "", ""

    def __init__(self) -> None:
        self.on_third: Callable[[], None] = lambda: None

    def answer(self, *_: Any) -> Iterator[TextChunk]:
        for number in range(1, 6):
            if number == 3:
                self.on_third()
            yield TextChunk("word ", number, None)
        yield TextChunk("", 5, "stop")


def asked_of(model: str) -> tuple[Any, ...]:
    """What the page sends with a question: two models, two switches, four settings."""
    return "What?", model, "no other model", False, False, 8, 0, 1, 0


def test_an_answer_takes_nothing_from_what_is_typed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from exgra_med.web import page

    monkeypatch.setattr(chat_module, "_SECONDS_BETWEEN_UPDATES", -1)
    talker = Talker()
    answer = page._answer_with(ChatService([talker], Limits()))

    def asked(dialogue: Dialogue) -> list[tuple[Any, ...]]:
        request = SimpleNamespace(client=None)
        return [each[2:] for each in answer(dialogue, *asked_of("talker"), request)]

    first, *later, last = asked(Dialogue())
    assert first[:3] == ("", "", "") and first[4] == ""
    kept = page.gr.skip()
    assert len(later) > 3 and all(each == (kept,) * 5 for each in later)
    assert last[:2] == (kept, kept) and "The answer is complete." in last[2]
    dialogue = Dialogue()
    talker.on_third = dialogue.stop.set
    *_, last = asked(dialogue)
    assert "Stopped." in last[2] and dialogue.exchanges[0].answers[0].text == "word word "


@pytest.mark.parametrize("url", [False, True])
def test_a_path_of_this_machine_is_no_upload(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: bool
) -> None:
    from gradio.exceptions import InvalidPathError
    from gradio.state_holder import SessionState

    from exgra_med.web import page as page_module

    image = tmp_path / "patient.png"
    Image.new("RGB", (9, 9)).save(image)
    file = {"path": str(image), "meta": {"_type": "gradio.FileData"}}
    file |= {"url": str(image)} if url else {}
    pages: list[Any] = []
    build_page = page_module.build_page
    monkeypatch.setattr(
        page_module, "build_page", lambda *parts: pages.append(build_page(*parts)) or pages[0]
    )
    with private_folder() as uploads:
        chat = ChatService([Mute()], Limits())
        build_app(chat, Views([]), uploads, WebSettings(models=["mute"]))
        (page,) = pages
        (take,) = [fn for fn in page.fns.values() if fn.name == "take"]
        with pytest.raises(InvalidPathError):
            asyncio.run(page.process_api(take, [None, [file]], state=SessionState(page)))
        assert not list(uploads.rglob("*.png")), "not even copied"
