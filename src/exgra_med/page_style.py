"""The style sheet that every page of this project begins with: reports, comparisons, graphs,
studies, data, captions, and our parts of the web page.

    <style>{{ css | safe }}</style>      with css=PAGE_CSS

It has the colours (light and dark), type, notices, findings, tiles, tables (`stack`: a list on a
phone), scales, figures, cards with pictures, and what is printed. A page may add rules of its own
behind it, with colours of the sheet: `var(--ink)`.
"""

from pathlib import Path

PAGE_CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
"""Text of `page.css`; the rules before `h1` are for a whole page, the others for any part."""
