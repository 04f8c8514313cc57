"""Extended records -> the JSON file that the original trains on: `conversations_long` and all."""

import json
from pathlib import Path
from typing import Any

from exgra_med.captions.output import finished_ids
from exgra_med.captions.source import Source
from exgra_med.data.json_text import decode_json
from exgra_med.data.record import IMAGE_PLACEHOLDER, Record, parse_record
from exgra_med.files import new_file

_ROLES = {"user": "human", "assistant": "gpt"}


def original_item(record: Record) -> dict[str, Any]:
    """One item of the original: short and long talk under keys of the same spelling.

    Args:
        record: with extended answers.
    """
    short = [{"from": _ROLES[turn.role], "value": turn.text} for turn in record.turns]
    if record.images:
        short[0]["value"] = f"{IMAGE_PLACEHOLDER}\n{short[0]['value']}"
    answers = iter(record.extended or [])
    long = [
        {"from": message["from"], "value": next(answers)} if message["from"] == "gpt" else message
        for message in short
    ]
    item: dict[str, Any] = {"id": record.meta.get("published_id", record.id)}
    if record.image is not None:
        item["image"] = record.image
    if record.answer_type is not None:
        item["answer_type"] = record.answer_type
    if "domain" in record.meta:
        item["domain"] = record.meta["domain"]
    return item | {"conversations": short, "conversations_long": long}


def write_original(source: Source, extended: Path, out: Path) -> int:
    """Write the finished records of a source as the original's JSON list, in the source's order.

    Args:
        source: gives the order.
        extended: JSON Lines of finished records, in any order.
        out: the file to write.

    Returns:
        How many items were written.

    Raises:
        WriteError: the disk is full; an older file is untouched.
    """
    offsets = {hash(name): offset for name, offset in finished_ids(extended)}
    number = 0
    with extended.open("rb") as stream, new_file(out) as target:
        target.write(b"[")
        for record in source.iterate():
            offset = offsets.get(hash(record.id))
            if offset is None:
                continue
            stream.seek(offset)
            where = f"{extended}, byte {offset}"
            line = decode_json(stream.readline().decode("utf-8"), where)
            item = original_item(parse_record(line, where))
            target.write(b",\n" if number else b"\n")
            target.write(json.dumps(item, ensure_ascii=False, indent=4).encode("utf-8"))
            number += 1
        target.write(b"\n]\n")
    return number
