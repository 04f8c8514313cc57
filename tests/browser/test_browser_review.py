"""The page of a review in a real browser: keys, closing and opening again, looks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_browser_access import serious

pytestmark = pytest.mark.browser
SOURCE = Path(__file__).resolve().parents[2] / "src"
DATA = "bundled:slake-sample"
HOSTILE = "<img src=http://evil.example/x.png onerror=alert(1)><script>alert(2)</script>"


class LiveReview:
    """`exgra-med captions review` in its own process; `start` starts it again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.captions = folder, folder / "long.jsonl"
        from exgra_med.data.records import open_prepared

        with self.captions.open("w", encoding="utf-8") as stream:
            for number, record in enumerate(open_prepared(DATA).records("train")[:12]):
                long = f"{record.answers[0]}, as the picture shows {HOSTILE * (number == 2)}"
                row = record.to_json() | {"extended": [long] * len(record.answers)}
                stream.write(json.dumps(row) + "\n")
        self.start()

    def start(self) -> None:
        log = self.folder / "log"
        given = ["captions", "review", str(self.captions), "--rater", "ana", "--port", "0"]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "exgra_med", *given, "--data", DATA],
                stderr=stream,
                env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
            )
        deadline = time.monotonic() + 120
        while "The page is open: " not in log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        self.url = log.read_text().partition("The page is open: ")[2].split()[0]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def stored(self) -> list[dict[str, Any]]:
        path = self.folder / "long.judgements.ana.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def review(tmp_path: Path) -> Iterator[LiveReview]:
    started = LiveReview(tmp_path)
    yield started
    started.kill()


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; whatever it asks of another machine, or any error in it, fails the test."""
    strayed: list[str] = []
    contexts = []

    def open_page(url: str, scheme: str = "light", width: int = 1280) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 860}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        own = url.split("/", 3)[2]
        page.on("request", lambda r: None if own in r.url else strayed.append(r.url))
        page.on("pageerror", lambda error: strayed.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (strayed.append("a dialog"), dialog.dismiss()))
        page.goto(url)
        page.wait_for_selector("#question:not(:empty)")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [each for each in strayed if not each.startswith("data:")]


def test_keys_judge_and_a_closed_page_has_it_all_again(
    review: LiveReview, look: Callable[..., Any]
) -> None:
    page = look(review.url)
    for number, (key, word) in enumerate([("a", "accepted"), ("r", "rejected"), ("u", "unsure")]):
        page.keyboard.press(key)
        page.wait_for_selector(f"#status >> text={number + 1} {word}, stored.")
    page.keyboard.press("n")
    page.keyboard.type("a right one")
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#where >> text=3 of 12")
    page.keyboard.press("a")  # another judgement of the third
    page.wait_for_selector("#counts >> text=3 of 12 judged: 2 accepted, 1 rejected, 0 unsure.")
    assert [row["verdict"] for row in review.stored()] == [
        "accept", "reject", "unsure", "", "accept"
    ]  # fmt: skip
    page.close()
    review.kill()
    review.start()
    page = look(review.url)
    page.wait_for_selector("#counts >> text=3 of 12 judged: 2 accepted, 1 rejected, 0 unsure.")
    page.wait_for_selector("#where >> text=4 of 12")
    assert page.input_value("#note") == "a right one"
    page.keyboard.press("k")
    page.wait_for_selector("#verdict >> text=accepted")
    page.keyboard.press("g")
    page.wait_for_selector("#where >> text=4 of 12")


def test_a_page_without_its_server_says_so_and_stays(
    review: LiveReview, look: Callable[..., Any]
) -> None:
    page = look(review.url)
    review.kill()
    page.keyboard.press("a")
    page.wait_for_selector("#problem >> text=The review is not running any more.")
    assert page.inner_text("#where").startswith("1 of 12")
    assert page.inner_text("#counts").startswith("0 of 12")


def test_texts_are_texts(review: LiveReview, look: Callable[..., Any]) -> None:
    page = look(review.url)
    found = False
    for _ in range(12):
        found = found or HOSTILE in page.inner_text("#extended")
        page.keyboard.press("j")
        page.wait_for_timeout(150)
    assert found and page.locator("#extended img, #extended script").count() == 0


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 400), ("dark", 400), ("light", 1280), ("dark", 1280)]
)
def test_it_is_legible(
    review: LiveReview,
    look: Callable[..., Any],
    keep_picture: Callable[..., None],
    scheme: str,
    width: int,
) -> None:
    page = look(review.url, scheme, width)
    page.wait_for_selector("#pictures img")
    page.keyboard.press("r")
    page.wait_for_selector("#status >> text=1 rejected, stored.")
    page.keyboard.press("k")
    page.wait_for_selector("#verdict >> text=rejected")
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert not serious(page)
    keep_picture(page, f"review-{scheme}-{width}")
