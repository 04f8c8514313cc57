"""One page for all browser tests: a tiny trained model, a server of words, one run."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exgra_med.digests import yaml_with_digest

CHROMIUM = "/usr/bin/chromium"
STUDY = Path(__file__).parents[2] / "benchmarks" / "results" / "studies" / "data-efficiency"
PICTURES = Path(
    os.environ.get("EXGRA_MED_SCREENSHOTS", Path(__file__).parents[2] / "runs" / "screenshots")
)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smallest recipe, or the one that `EXGRA_MED_RUN` names."""
    if "EXGRA_MED_RUN" in os.environ:
        return Path(os.environ["EXGRA_MED_RUN"])
    from exgra_med.evaluation.session import open_session
    from exgra_med.evaluation.tasks import vqa
    from exgra_med.recipe.load import load_recipe
    from exgra_med.terminal import Silent
    from exgra_med.training.stages import begin_run, train_run

    out = tmp_path_factory.mktemp("browser") / "runs" / "tiny"
    run = begin_run(out, load_recipe("debug/tiny", ()).recipe, resume=False)
    train_run(run, Silent())
    vqa.evaluate(open_session(out, Silent()))
    return out


@pytest.fixture(scope="session")
def other(run_folder: Path) -> Path:
    """Another run, with another seed, beside it."""
    folder = run_folder.parent / "other"
    if not folder.exists():
        shutil.copytree(run_folder, folder)
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        text = yaml_with_digest(recipe | {"seed": 7})
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def words() -> Iterator[Any]:
    from live_page import WordServer

    server = WordServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def live(
    run_folder: Path, other: Path, words: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    pytest.importorskip("gradio", reason="the page needs the extra [web]")
    pytest.importorskip("openai", reason="a model at a server needs the extra [llm]")
    from live_page import LivePage

    folder = tmp_path_factory.mktemp("live")
    votes = folder / "votes.jsonl"
    page = LivePage(
        folder,
        str(run_folder),
        words.model,
        "--runs",
        str(run_folder),
        "--runs",
        str(other),
        "--runs",
        str(STUDY),
        "--votes",
        str(votes),
        "--option",
        "questions_per_minute=1000",
        "--option",
        "requests_per_minute=2000",
        "--option",
        "max_address_queue=100",
        "--option",
        "max_upload_megabytes=2",
    )
    page.votes = votes
    yield page
    page.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as session:
        opened = session.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, live: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page; whatever it asks of another machine, or any error in it, fails the test."""
    strayed: list[str] = []
    contexts = []

    def open_page(scheme: str = "light", width: int = 1280, height: int = 900) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(40_000)
        own = (live.url, "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(own) else strayed.append(r.url))
        page.on("pageerror", lambda error: strayed.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (strayed.append("a dialog"), dialog.dismiss()))
        page.goto(live.url)
        page.wait_for_selector("#send")
        page.wait_for_selector("[data-example]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not strayed


@pytest.fixture
def keep_picture() -> Callable[..., None]:
    """Keeps a screenshot as an artefact of the tests."""

    def keep(page: Any, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        # Pictures further down are loaded when they are scrolled to.
        for image in page.query_selector_all("img[loading=lazy]"):
            image.evaluate("each => { each.loading = 'eager'; }")
        page.wait_for_timeout(300)
        page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    return keep


def open_study(page: Any) -> None:
    """Chooses the committed study in the tab of runs."""
    page.click("#runs-run input")
    page.get_by_role("option", name="data-efficiency", exact=True).click()
    page.wait_for_selector("#overview .study figure svg")
    page.wait_for_selector("#answers .card", state="detached")  # they fade meanwhile


def look(page: Any) -> None:
    """Asks again with words drawn at random, as the toy says nothing else, and makes its map."""
    page.get_by_role("button", name="Decoding").click()
    page.get_by_label("Temperature").first.fill("1.5")
    page.keyboard.press("Tab")
    page.fill("#question textarea", "Where?")
    page.click("#send")
    page.locator("#conversation li").nth(1).wait_for()
    page.wait_for_selector("#status >> text=The answer is complete")
    page.click("#look")
    page.wait_for_selector("#looked .problem")
    assert page.locator("#looked rect").count() == 64
