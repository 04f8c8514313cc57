"""Pictures that look alike as a list (CSV, JSON), or as a page to look at them in pairs."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from exgra_med.data.lookalikes import NEAR_BITS, Place, Twin
from exgra_med.evaluation.report.page import jpeg, template_environment
from exgra_med.files import write_text
from exgra_med.page_style import PAGE_CSS

MAX_PAIRS = 500
"""Pairs on one page, about 20 kB each; of more, those that look most alike are drawn."""
PICTURE_PIXELS = 240
_COLUMNS = ("comparison", "picture", "twin", "bits", "same_bytes")

Shown = Mapping[str, tuple[Place, Place, Sequence[Twin]]]
"""What was compared -> where its pictures are, where their twins are, and the pairs."""


def write_twins(out: Path, shown: Shown) -> None:
    """Write all pairs as `.csv` or `.json`, or draw them on a page, `.html`.

    Raises:
        DataError: a picture that is shown cannot be opened any more.
        MissingExtraError: a page, and jinja2 is not installed.
        WriteError: the file cannot be written.
    """
    rows = [
        (title, each.picture, each.twin, each.bits, each.same_bytes)
        for title, (_, _, twins) in shown.items()
        for each in twins
    ]
    if out.suffix.lower() == ".html":
        write_text(out, twins_page(shown))
    elif out.suffix.lower() == ".json":
        values = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        write_text(out, json.dumps(values, ensure_ascii=False, indent=2) + "\n")
    else:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([_COLUMNS, *rows])
        write_text(out, stream.getvalue())


def twins_page(shown: Shown) -> str:
    """The page as one HTML file. Every text is escaped, and nothing is loaded from elsewhere.

    Raises:
        DataError: a picture that is shown cannot be opened.
        MissingExtraError: jinja2 is not installed.
    """
    pairs = [
        (title, here, there, each)
        for title, (here, there, twins) in shown.items()
        for each in twins
    ]
    drawn = sorted(pairs, key=lambda pair: pair[3].bits)[:MAX_PAIRS]
    values = {
        "near_bits": NEAR_BITS,
        "num_pairs": len(pairs),
        "sections": {
            title: [
                (
                    each,
                    jpeg(here.folder.open(each.picture), PICTURE_PIXELS),
                    jpeg(there.folder.open(each.twin), PICTURE_PIXELS),
                )
                for name, here, there, each in drawn
                if name == title
            ]
            for title in shown
        },
        "num_drawn": len(drawn),
        "css": PAGE_CSS,
    }
    return template_environment(escape=True).get_template("twins.html.j2").render(values)
