"""Keyboard alone, and what axe-core finds."""

from collections.abc import Callable
from typing import Any

import pytest

from conftest import look, open_study

pytestmark = pytest.mark.browser


def serious(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:160]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit: Callable[..., Any], words: Any, scheme: str) -> None:
    words.say("fine")
    page = visit(scheme)
    page.click("[data-example='0']")
    page.wait_for_selector("#picture img")
    page.click("#send")
    page.wait_for_selector("#status >> text=The answer is complete")
    look(page)
    page.click("#vote-a")
    page.wait_for_selector("#tallies table")
    found = serious(page)
    page.get_by_role("tab", name="Alignment").click()
    page.click("#graphs-draw")
    page.wait_for_selector("svg.graphs")
    found += serious(page)
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("#answers .card")
    found += serious(page)
    page.click("#runs-others input")
    page.get_by_role("option", name="other", exact=True).click()
    page.wait_for_selector("#compared table")
    found += serious(page)
    open_study(page)
    found += serious(page)
    assert not sorted(set(found))


def test_everything_can_be_done_with_the_keyboard(visit: Callable[..., Any], words: Any) -> None:
    words.say("fine")
    page = visit()

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement?.matches(s)", selector):
                return
        raise AssertionError(f"the tabulator key does not lead to {selector}")

    tab_to("[data-example='0']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#picture img")
    tab_to("#question textarea")
    page.keyboard.press("End")
    page.keyboard.type(" Please.")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status >> text=The answer is complete")
    assert "Please." in page.locator("#conversation .asked").inner_text()
    tab_to("#clear")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status >> text=deleted")
    page.keyboard.press("Control+Home")
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#graphs-draw")


def test_every_picture_has_an_alternative(visit: Callable[..., Any]) -> None:
    page = visit()
    page.click("[data-example='0']")
    page.wait_for_selector("#picture img")
    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("#answers .card")
    without = page.evaluate(
        "() => [...document.querySelectorAll('img')].filter(i => !i.hasAttribute('alt'))"
        ".map(i => i.outerHTML.slice(0, 80))"
    )
    assert not without
    assert page.locator("#answers img[alt='Image of the question below']").count() > 0
