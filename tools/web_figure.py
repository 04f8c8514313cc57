"""Take the picture of the page with the small model, for the documentation.

    PYTHONPATH=src python tools/web_figure.py docs/figures/web.png

It needs the extra [web], playwright and Debian's chromium, as `make test-browser` does.
"""

import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
ADDRESS = re.compile(r"The page is open: (\S+)")
WIDTH, HEIGHT = 1200, 1110


def take(url: str, out: Path) -> None:
    """Ask the first example, and write what the window shows."""
    with sync_playwright() as session:
        browser = session.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(url)
        page.click("[data-example='0']")
        page.wait_for_selector("#picture img")
        page.wait_for_function("() => document.querySelector('#question textarea').value")
        page.click("#send")
        page.wait_for_selector("#status >> text=The answer is complete")
        page.mouse.move(0, 0)
        page.screenshot(path=out)
        browser.close()


def main(out: Path) -> None:
    """Open the page on a free port, and close it again."""
    command = [sys.executable, "-m", "exgra_med", "web", "small", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as page:
        assert page.stderr is not None
        try:
            for line in page.stderr:
                print(line, end="")
                if found := ADDRESS.search(line):
                    take(found[1], out)
                    break
            else:
                sys.exit("The page did not open.")
        finally:
            page.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
