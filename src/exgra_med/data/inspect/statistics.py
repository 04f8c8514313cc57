"""Counts of a prepared folder, and a self-contained page with them: numbers, bars, some images."""

import base64
import io
from collections import Counter
from html import escape
from typing import Any

from PIL import Image

from exgra_med.data.prepare import MAX_PIXELS
from exgra_med.data.records import Prepared, Record, numbered_images
from exgra_med.data.subset import seeded_key

GROUPS = ("organ", "modality", "question_type", "language", "phrase_type", "domain", "dataset")
"""Fields of `meta` that are counted where a data set has them."""

NUM_BARS = 12
NUM_PICTURES = 18
THUMBNAIL_PIXELS = 200


def statistics(prepared: Prepared) -> dict[str, Any]:
    """Counts of every split: records, images, answer types, groups, words, commonest answers."""
    return {split: _of_records(prepared.records(split)) for split in prepared.splits}


def _of_records(records: list[Record]) -> dict[str, Any]:
    answers = Counter(record.answer.lower() for record in records)
    groups = {
        name: dict(Counter(str(r.meta[name]) for r in records if name in r.meta).most_common(30))
        for name in GROUPS
    }
    return {
        "records": len(records),
        "images": len({name for record in records for name in record.images}),
        "turns": sum(len(record.turns) for record in records),
        "with_extended_answers": sum(record.extended is not None for record in records),
        "answer_types": dict(Counter(record.known_type for record in records)),
        "words_per_question": _spread([len(r.question.split()) for r in records]),
        "words_per_answer": _spread([len(text.split()) for r in records for text in r.answers]),
        "words_per_extended_answer": _spread(
            [len(text.split()) for r in records for text in r.extended or []]
        ),
        "commonest_answers": dict(answers.most_common(15)),
        **{name: counts for name, counts in groups.items() if counts},
    }


def _spread(values: list[int]) -> dict[str, float]:
    if not values:
        return {}
    median = sorted(values)[len(values) // 2]
    mean = round(sum(values) / len(values), 2)
    return {"mean": mean, "median": median, "longest": max(values)}


_OVERVIEW = {
    "records": "records",
    "images": "images",
    "CLOSED": "closed",
    "OPEN": "open",
    "with_extended_answers": "extended",
    "question": "words per question, median / longest",
    "answer": "words per answer, median / longest",
    "extended_answer": "words per extended answer",
}


def statistics_page(prepared: Prepared) -> str:
    """The page as HTML. Every text of the dataset is escaped, and nothing is loaded from elsewhere.

    Raises:
        DataError: a picture that is shown cannot be opened.
    """
    manifest = prepared.manifest
    title = escape(" · ".join(filter(None, (manifest["dataset"], manifest.get("variant")))))
    numbers = {name: each for name, each in statistics(prepared).items() if each["records"]}
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>Licence: {escape(str(manifest.get('licence', 'unknown')))}. Research use only.</p>",
        _overview(numbers),
        "".join(f"<p class='note'>{escape(text)}</p>" for text in _remarks(prepared)),
    ]
    for split, each in numbers.items():
        cards = [
            _bars(name, each[name], sum(each[name].values()))
            for name in ("answer_types", *GROUPS)
            if each.get(name)
        ]
        cards.append(_bars("commonest_answers", each["commonest_answers"], each["records"]))
        parts.append(f"<h2>{escape(split)}</h2><div class='cards'>{''.join(cards)}</div>")
        parts.append(_pictures(prepared, split))
    parts.append(f"<footer>Manifest sha256 {prepared.fingerprint}</footer></html>")
    return "\n".join(parts) + "\n"


def _overview(numbers: dict[str, dict[str, Any]]) -> str:
    rows = {split: _figures(each) for split, each in numbers.items()}
    shown = [key for key in _OVERVIEW if any(row[key] for row in rows.values())]
    head = "".join(f"<th>{_OVERVIEW[key]}" for key in shown)
    body = "".join(
        f"<tr><th>{escape(split)}" + "".join(f"<td>{row[key] or '–'}" for key in shown)
        for split, row in rows.items()
    )
    return f"<table><tr><th>split{head}{body}</table>"


def _figures(numbers: dict[str, Any]) -> dict[str, str]:
    counts = {key: numbers[key] for key in ("records", "images", "with_extended_answers")}
    counts |= {key: numbers["answer_types"].get(key, 0) for key in ("CLOSED", "OPEN")}
    figures = {key: f"{count:,}" if count else "" for key, count in counts.items()}
    for name in ("question", "answer", "extended_answer"):
        spread = numbers[f"words_per_{name}"]
        figures[name] = f"{spread['median']} / {spread['longest']}" if spread else ""
    return figures


def _remarks(prepared: Prepared) -> list[str]:
    """What a person should know before training: shared images, rows that were left out."""
    train, test = (
        {name for record in prepared.iterate(split) for name in record.images}
        if split in prepared.splits
        else set()
        for split in ("train", "test")
    )
    remarks = []
    shared = len(test & train)
    if shared:
        remarks.append(f"{shared} of {len(test)} test images are in train too.")
    reasons = Counter(item["reason"] for item in prepared.manifest.get("dropped", []))
    remarks += [f"{count} rows were left out: {reason}" for reason, count in reasons.most_common(5)]
    return remarks


def _bars(name: str, counts: dict[str, int], total: int) -> str:
    counts = dict(sorted(counts.items(), key=lambda pair: -pair[1])[:NUM_BARS])
    most = max(counts.values())
    rows = "".join(
        f"<div class='bar' style='--share:{100 * count / most:.1f}%'>"
        f"<span>{escape(str(key))}</span><span>{count:,}</span></div>"
        for key, count in counts.items()
    )
    rest = total - sum(counts.values())
    more = f"<div class='bar'><span>others</span><span>{rest:,}</span></div>" if rest else ""
    return f"<section><h3>{escape(name.replace('_', ' '))}</h3>{rows}{more}</section>"


def _pictures(prepared: Prepared, split: str) -> str:
    folder = prepared.image_folder(MAX_PIXELS)
    shown: dict[str, Record] = {}
    for record in sorted(prepared.records(split), key=lambda each: seeded_key(0, each.id)):
        if record.images and len(shown) < NUM_PICTURES:
            shown.setdefault(record.image_group, record)
    figures = []
    for record in shown.values():
        pictures = [_thumbnail(folder.open(name, record.id), record.id) for name in record.images]
        several = " class='several'" if len(pictures) > 1 else ""
        figures.append(
            f"<figure><div{several}>{''.join(pictures)}</div>"
            f"<figcaption>{escape(numbered_images(record.question))}<br>"
            f"<b>{escape(record.answer)}</b></figcaption></figure>"
        )
    return f"<div class='pictures'>{''.join(figures)}</div>"


def _thumbnail(image: Image.Image, name: str) -> str:
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f"<img alt='{escape(name)}' src='data:image/jpeg;base64,{data}'>"


_STYLE = """
:root{color-scheme:light dark;--soft:color-mix(in srgb,CanvasText 12%,Canvas)}
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;padding:0 1.5em;max-width:72em}
h1{margin-bottom:0}h2{margin:2em 0 .6em;padding-top:.6em;border-top:2px solid var(--soft)}
h3{font-size:1em;margin:0 0 .4em}
footer{margin-top:3em;font-size:12px;opacity:.7;overflow-wrap:anywhere}
table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}
th,td{padding:.3em .9em;border-bottom:1px solid var(--soft);text-align:right;font-weight:normal}
th:first-child{text-align:left;font-weight:600}tr:first-child th{font-size:13px;opacity:.75}
td,.bar span:last-child{font-variant-numeric:tabular-nums}
.note{border-left:4px solid #c77700;padding:.2em .8em;margin:.4em 0}
.cards{columns:4 15em;column-gap:1.5em;margin-bottom:1em}
section{break-inside:avoid;margin-bottom:1.4em}
.bar{display:flex;justify-content:space-between;gap:1em;padding:.1em .5em;margin-bottom:2px;
background:linear-gradient(90deg,color-mix(in srgb,#3b82c4 30%,Canvas) var(--share,0),#0000 0)}
.bar span:first-child{overflow-wrap:anywhere}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(10.5em,1fr));gap:1.2em}
.several{display:grid;grid-template-columns:1fr 1fr;gap:2px;background:#000}
figure{margin:0;font-size:13px}
figure img{display:block;width:100%;aspect-ratio:1;object-fit:contain;background:#000}
figcaption{overflow-wrap:anywhere}
"""
