"""The page of a prepared folder: what is in it, and every question, to be searched and filtered."""

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

from exgra_med.data.inspect.statistics import GROUPS, statistics
from exgra_med.data.prepare import MAX_PIXELS
from exgra_med.data.records import GUESSED, Prepared, Record, image_names, numbered_images
from exgra_med.data.subset import seeded_key
from exgra_med.evaluation.report.page import jpeg, template_environment, template_text
from exgra_med.page_style import PAGE_CSS
from exgra_med.terminal import ProgressCallback

MAX_PICTURES = 1000
"""Groups of images on one page, about 8 kB each; of more, this many are drawn."""
NUM_BARS = 12
PICTURE_PIXELS = 240
_SPREADS = ("question", "answer", "extended_answer")


@dataclass(frozen=True, slots=True)
class Asked:
    """One record on the page."""

    split: str
    answer_type: str
    question: str
    answer: str
    more: str
    """How many further turns there are, and fields of `meta` that are counted."""
    extended: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Images with all that is asked about them; each picture is on the page once."""

    images: list[str]
    """JPEG as base64."""
    asked: list[Asked]


def data_page(prepared: Prepared, progress: ProgressCallback | None = None) -> str:
    """The page as one HTML file. Every text is escaped, and nothing is loaded from elsewhere.

    Raises:
        DataError: a picture that is shown cannot be opened.
        MissingExtraError: jinja2 is not installed.
    """
    manifest = prepared.manifest
    numbers = {split: each for split, each in statistics(prepared).items() if each["records"]}
    records = [(split, record) for split in numbers for record in prepared.records(split)]
    groups: dict[str, list[tuple[str, Record]]] = {}
    for split, record in records:
        groups.setdefault(record.image_group, []).append((split, record))
    # Drawn, so that pictures of one patient or one kind do not stand in a row.
    drawn = sorted(groups, key=lambda name: seeded_key(0, name))[:MAX_PICTURES]
    folder = prepared.image_folder(MAX_PIXELS)
    shown = []
    for number, name in enumerate(drawn, start=1):
        first = groups[name][0][1]
        pictures = [jpeg(folder.open(each, first.id), PICTURE_PIXELS) for each in first.images]
        shown.append(Shown(pictures, [_asked(*each) for each in groups[name]]))
        if progress:
            progress("pictures", number, len(drawn))
    script = template_text("data.js")
    values = {
        "title": " · ".join(filter(None, (manifest["dataset"], manifest.get("variant")))),
        "terms": [
            (name, str(manifest[name])) for name in ("licence", "origin") if manifest.get(name)
        ],
        "remarks": _remarks(prepared, [record for _, record in records]),
        "overview": {split: _figures(each) for split, each in numbers.items()},
        "bars": {split: _bars(each) for split, each in numbers.items()},
        "shown": shown,
        "num_asked": sum(len(each.asked) for each in shown),
        "num_records": len(records),
        "num_groups": len(groups),
        "splits": list(numbers),
        "types": sorted({record.known_type for _, record in records}),
        "fingerprint": prepared.fingerprint,
        "css": PAGE_CSS + template_text("data.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    return template_environment(escape=True).get_template("data.html.j2").render(values)


def _asked(split: str, record: Record) -> Asked:
    more = [f"{len(record.answers) - 1} more turns"] if len(record.answers) > 1 else []
    fields = [name for name in GROUPS if record.meta.get(name)]
    more += [f"{name.replace('_', ' ')} {record.meta[name]}" for name in fields]
    if options := record.meta.get("options"):
        more.append("options " + " | ".join(map(str, options)))
    if "group" in record.meta:
        more.append(f"group {record.meta['group']}")
    return Asked(
        split=split,
        answer_type=record.known_type,
        question=numbered_images(record.question),
        answer=record.answer,
        more=" · ".join(more),
        extended=(record.extended or [""])[0],
    )


def _figures(numbers: dict[str, Any]) -> dict[str, str]:
    """Label -> number, of a split."""
    types = numbers["answer_types"]
    figures = {
        "records": numbers["records"],
        "images": numbers["images"],
        "closed": types.get("CLOSED", 0),
        "open": types.get("OPEN", 0),
        "extended": numbers["with_extended_answers"],
    }
    shown = {label: f"{count:,}" if count else "–" for label, count in figures.items()}
    for name in _SPREADS:
        spread = numbers[f"words_per_{name}"]
        text = f"{spread['median']} / {spread['longest']}" if spread else "–"
        shown[f"words per {name.replace('_', ' ')}, median / longest"] = text
    return shown


def _bars(numbers: dict[str, Any]) -> list[tuple[str, list[tuple[str, int, float]], int]]:
    """Title, (value, count, percent of the largest), and the count of all other values."""
    charts: list[tuple[str, list[tuple[str, int, float]], int]] = []
    for name in ("answer_types", *GROUPS, "commonest_answers"):
        counts = numbers.get(name) or {}
        if not counts:
            continue
        total = numbers["records"] if name == "commonest_answers" else sum(counts.values())
        top = Counter(counts).most_common(NUM_BARS)
        rows = [(str(key), count, round(100 * count / top[0][1], 1)) for key, count in top]
        charts.append((name.replace("_", " "), rows, total - sum(count for _, count in top)))
    return charts


def _remarks(prepared: Prepared, records: list[Record]) -> list[str]:
    """What a person should know before training: shared images, rows that were left out."""
    train, test = (
        image_names(prepared.iterate(split)) if split in prepared.splits else set()
        for split in ("train", "test")
    )
    remarks = []
    if shared := len(test & train):
        remarks.append(f"{shared} of {len(test)} test images are in train too.")
    notes = prepared.manifest.get("notes") or {}
    if shared := notes.get("groups_in_two_splits"):
        remarks.append(f"{shared} groups are in more than one split.")
    if guessed := sum(record.answer_type is None for record in records):
        remarks.append(f"{guessed} records {GUESSED}.")
    if columns := notes.get("identifiers_left_out"):
        remarks.append(f"Left out, as it may say who a person is: {', '.join(columns)}.")
    reasons = Counter(item["reason"] for item in prepared.manifest.get("dropped", []))
    remarks += [f"{count} rows were left out: {reason}" for reason, count in reasons.most_common(5)]
    return remarks
