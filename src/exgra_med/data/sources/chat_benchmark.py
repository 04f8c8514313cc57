"""LLaVA-Med's chat benchmark: 193 questions on 50 figures with GPT-4 reference answers."""

import json
from pathlib import Path
from typing import Any

from exgra_med.data.records import Record, iterate_objects
from exgra_med.data.sources.rows import (
    completeness,
    image_folder,
    text_field,
    text_fields,
    vqa_record,
)
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.errors import DataError

NAME = "chat-benchmark"
FILE = "llava_med_eval_qa50_qa.jsonl"
ROWS = 193
DOMAINS = ("chest_xray", "mri", "histology", "gross", "ct_scan")
"""In the order of the original scorer, which takes the first that is true."""


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read the benchmark's JSON Lines file and `images/`.

    Raises:
        DataError: the file is missing or a line cannot be understood.
    """
    path = source / FILE
    if not path.is_file():
        found = sorted(source.glob("*eval*qa*.jsonl"))
        if len(found) != 1:
            raise DataError(f"{source}: {FILE!r} is missing.")
        path = found[0]
    dropped: list[Dropped] = []
    records = read_questions(path, dropped)
    notes = {"completeness": completeness(len(records) + len(dropped), ROWS)}
    splits: dict[str, list[Record]] = {"train": [], "validation": [], "test": records}
    return Collected(splits, image_folder(source, options), [path], dropped, notes)


def read_questions(path: Path, dropped: list[Dropped]) -> list[Record]:
    """The questions of any JSON Lines file in the benchmark's format.

    Args:
        dropped: receives the rows without a reference answer.

    Raises:
        DataError: a line cannot be understood.
    """
    rows = iterate_objects(path)
    return [record for where, row in rows if (record := _record(row, where, dropped))]


def _record(row: dict[str, Any], where: str, dropped: list[Dropped]) -> Record | None:
    published = text_field(row, "question_id", where)
    domain = row.get("domain")
    if not isinstance(domain, dict):
        raise DataError(f"{where}: 'domain' is not an object.")
    mention = row.get("in_text_mention")
    meta: dict[str, Any] = {
        "published_id": published,
        "split": "test",
        "domain": next((name for name in DOMAINS if domain.get(name)), None),
        **text_fields(row, where, question_type="type", pair_id="pair_id", caption="fig_caption"),
        "mention": mention if isinstance(mention, str) else json.dumps(mention),
    }
    return vqa_record(
        f"{NAME}/test/{published}",
        {"question": text_field(row, "text", where), "gpt4_answer": row.get("gpt4_answer")},
        where,
        image=text_field(row, "image", where),
        answer_type=None,
        meta=meta,
        answer_key="gpt4_answer",
        dropped=dropped,
    )


SOURCE = Source(
    name=NAME,
    title="LLaVA-Med chat benchmark: 193 questions with GPT-4 reference answers",
    licence="CC BY-NC 4.0, research only; 50 figures by --download or your own",
    variants={"published": "test only"},
    collect=collect,
    has_image_urls=True,
)
