"""Numbers about a prepared folder, and one self-contained page with them and some pictures."""

import base64
import io
from collections import Counter
from html import escape
from typing import Any

from exgra_med.data.prepare import MAX_PIXELS
from exgra_med.data.prepared import Prepared
from exgra_med.data.record import Record
from exgra_med.data.subset import seeded_key

GROUPS = ("organ", "modality", "question_type", "language", "phrase_type", "domain", "dataset")
"""Fields of `meta` that are counted where a dataset has them."""

NUM_PICTURES = 24
THUMBNAIL_PIXELS = 160


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
        "answer_types": dict(Counter(record.answer_type or "none" for record in records)),
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
    ordered = sorted(values)
    return {
        "mean": round(sum(ordered) / len(ordered), 2),
        "median": ordered[len(ordered) // 2],
        "longest": ordered[-1],
    }


def statistics_page(prepared: Prepared) -> str:
    """One HTML page: tables of `statistics` and some records with their pictures.

    Every text of the dataset is escaped, and nothing is loaded from elsewhere.

    Raises:
        DataError: a picture that is shown cannot be opened.
    """
    title = escape(f"{prepared.manifest['dataset']} ({prepared.manifest.get('variant', '')})")
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>Licence: {escape(str(prepared.manifest.get('licence', 'unknown')))}. "
        f"Manifest sha256 {prepared.fingerprint}. Research use only.</p>",
    ]
    for split, numbers in statistics(prepared).items():
        parts.append(f"<h2>{escape(split)}</h2><div class='tables'>")
        single = {key: value for key, value in numbers.items() if not isinstance(value, dict)}
        for name, table in [("counts", single), *numbers.items()]:
            if isinstance(table, dict) and table:
                parts.append(_table(name, table))
        parts.append("</div>")
        parts.append(_pictures(prepared, split))
    return "\n".join(parts) + "</html>\n"


def _table(name: str, table: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(key))}<td class='n'>{escape(str(value))}"
        for key, value in table.items()
    )
    return f"<table><caption>{escape(name.replace('_', ' '))}</caption>{rows}</table>"


def _pictures(prepared: Prepared, split: str) -> str:
    folder = prepared.image_folder(MAX_PIXELS)
    shown = [record for record in prepared.records(split) if record.images]
    shown.sort(key=lambda record: seeded_key(0, record.id))
    figures = []
    for record in shown[:NUM_PICTURES]:
        image = folder.open(record.images[0], record.id)
        image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=80)
        data = base64.b64encode(stream.getvalue()).decode("ascii")
        figures.append(
            f"<figure><img alt='' src='data:image/jpeg;base64,{data}'><figcaption>"
            f"{escape(record.question)}<br><b>{escape(record.answer)}</b></figcaption></figure>"
        )
    return f"<div class='pictures'>{''.join(figures)}</div>"


_STYLE = """
body{font:15px/1.4 sans-serif;margin:2em;max-width:80em}
.tables,.pictures{display:flex;flex-wrap:wrap;gap:1.5em;align-items:flex-start}
table{border-collapse:collapse}caption{font-weight:bold;text-align:left}
td{border-bottom:1px solid #ddd;padding:.1em .6em;max-width:22em;overflow-wrap:anywhere}
.n{text-align:right}figure{margin:0;width:170px;font-size:13px}
"""
