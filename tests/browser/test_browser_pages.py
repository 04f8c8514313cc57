"""Every page that the package writes: nothing is cut on a phone, in neither scheme, and axe finds
nothing serious. Screenshots of all go to `runs/screenshots/`.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_browser_access import serious

from conftest import STUDY

pytestmark = pytest.mark.browser
PROJECT = Path(__file__).resolve().parents[2]

CUT = """() => {
  const scrolls = (e) => {
    for (let p = e; p; p = p.parentElement) {
      if (p === document.body || p === document.documentElement) return false;
      if (/auto|scroll/.test(getComputedStyle(p).overflowX)) return true;
    }
    return false;
  };
  const hidden = (e) => !e.checkVisibility({opacityProperty: true, visibilityProperty: true});
  const found = [];
  // The documentation's theme keeps its drawers beside the window.
  for (const e of (document.querySelector("article") || document.body).querySelectorAll("*")) {
    if (hidden(e) || e.closest("svg") && e.tagName !== "svg") continue;
    const box = e.getBoundingClientRect();
    if (box.width < 2 || box.height < 2 || box.right <= 0) continue;
    const named = `${e.tagName} .${e.className} "${(e.textContent || "").trim().slice(0, 40)}"`;
    if (box.right > innerWidth + 1 && !scrolls(e)) found.push("beyond the edge: " + named);
    const style = getComputedStyle(e);
    const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (words && /hidden|clip/.test(style.overflowX) && e.scrollWidth > e.clientWidth + 1)
      found.push("cut text: " + named);
  }
  return found.slice(0, 8);
}"""
"""What stands beyond the right edge without a scroll bar, and text that is cut."""
UNSEEN = """() => [...document.images]
  .filter((e) => e.checkVisibility() && !(e.complete && e.naturalWidth))
  .map((e) => e.alt || e.src.slice(0, 60))"""
"""Pictures that a capture or a print of the whole page would show black."""


def command(*words: str) -> None:
    """Run the command line; it has to end well."""
    done = subprocess.run(
        [sys.executable, "-m", "exgra_med", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def pages(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page by name, written as a user would have it written."""
    out = tmp_path_factory.mktemp("pages")
    other = out / "other"
    shutil.copytree(run_folder, other)
    study = out / "study"
    shutil.copytree(STUDY, study)
    command("evaluate", "report", str(run_folder))
    both = (str(run_folder), str(other))
    command("evaluate", "report", *both, "--out", str(out / "comparison.html"))
    command("evaluate", "graphs", str(run_folder), "--out", str(out / "graphs.html"))
    command("data", "stats", "bundled:vqa-rad-sample", "--out", str(out / "data.html"))
    command("study", "report", str(study))
    return {
        "report": run_folder / "report.html",
        "comparison": out / "comparison.html",
        "graphs": out / "graphs.html",
        "data": out / "data.html",
        "study": study / "report.html",
    }


@pytest.fixture(scope="session")
def documentation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not all(map(importlib.util.find_spec, ("sphinx", "sphinx_design", "sphinx_copybutton"))):
        pytest.skip("the documentation needs the extra [docs]")
    out = tmp_path_factory.mktemp("documentation")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-q", str(PROJECT / "docs"), str(out)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return out


def look(browser: Any, keep: Callable[..., None], path: Path, name: str, scheme: str, width: int):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    strayed: list[str] = []
    page.on("request", lambda r: None if r.url.startswith("file:") else strayed.append(r.url))
    page.on("pageerror", lambda error: strayed.append(f"error: {error}"))
    page.goto(path.as_uri())
    page.wait_for_timeout(300)
    cut = page.evaluate(CUT)
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    unseen = page.evaluate(UNSEEN)
    faults = serious(page)
    keep(page, f"{name}-{scheme}-{width}")
    context.close()
    strayed = [each for each in strayed if not each.startswith(("data:", "blob:"))]
    assert not cut
    assert not wide
    assert not unseen
    assert not faults
    assert not strayed


SIGHTS = [(scheme, width) for scheme in ("light", "dark") for width in (400, 1280)]


@pytest.mark.parametrize(("scheme", "width"), SIGHTS)
@pytest.mark.parametrize("name", ["report", "comparison", "graphs", "data", "study"])
def test_a_page_shows_all_of_itself(
    pages: dict[str, Path],
    browser: Any,
    keep_picture: Callable[..., None],
    name: str,
    scheme: str,
    width: int,
) -> None:
    look(browser, keep_picture, pages[name], name, scheme, width)


@pytest.mark.parametrize(("scheme", "width"), SIGHTS)
@pytest.mark.parametrize(
    "name", ["index", "tutorials/own-data", "reference/commands/data", "results/results"]
)
def test_the_documentation_shows_all_of_itself(
    documentation: Path,
    browser: Any,
    keep_picture: Callable[..., None],
    name: str,
    scheme: str,
    width: int,
) -> None:
    path = documentation / f"{name}.html"
    look(browser, keep_picture, path, f"docs-{path.stem}", scheme, width)
