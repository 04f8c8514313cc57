"""The page of the small model, with a tiny stand-in where its cache has the real one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_browser_access import serious

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def small(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("gradio", reason="the page needs the extra [web]")
    from live_page import LivePage

    from exgra_med.model import small_model
    from exgra_med.model.bundle import load_bundle, save_bundle

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        save_bundle(load_bundle(run_folder), small_model._folder())
    page = LivePage(tmp_path_factory.mktemp("small"), "small", XDG_CACHE_HOME=str(cache))
    yield page
    page.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 400), ("dark", 1280)])
def test_it_says_what_it_can_and_begins_with_its_own_examples(
    small: Any, browser: Any, keep_picture: Callable[..., None], scheme: str, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 860}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(40_000)
    page.goto(small.url)
    page.wait_for_selector("[data-example]")
    told = page.locator("#answering").inner_text()
    assert "small answers." in told and "160M parameters" in told and "71.2 %" in told
    shown = page.locator("#examples").inner_text()
    assert "small is known to fail here." in shown and "CC BY 4.0" in shown
    send = page.locator("#send")
    for number in (3, 0):
        page.click(f"[data-example='{number}']")
        asked = page.locator(f"[data-example='{number}'] span").inner_text().split("\n")[0]
        page.wait_for_function(
            "text => document.querySelector('#question textarea').value === text", arg=asked
        )
        page.wait_for_selector("#picture img")
        page.wait_for_function(
            "() => document.getElementById('send').getBoundingClientRect().bottom <= innerHeight"
        )
        assert not page.locator("#status p").count(), "that was said of another picture"
        send.click()
        page.wait_for_selector("#status >> text=The answer is complete")
    keep_picture(page, f"small-{scheme}-{width}")
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, "the page is wider than the window"
    assert not serious(page)
    context.close()
