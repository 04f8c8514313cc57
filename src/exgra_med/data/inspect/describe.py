"""What `data list` and `data show` print: sources, manifests and records as plain values."""

from typing import Any

from exgra_med.data.chat_template import conversation_segments
from exgra_med.data.prepare import MAX_PIXELS
from exgra_med.data.records import BUNDLED, NOT_STATED, SAMPLES, Prepared, Record, open_prepared
from exgra_med.data.sources import SOURCES
from exgra_med.data.sources.source import kind_of_reason
from exgra_med.errors import DataError


def describe_sources() -> list[dict[str, Any]]:
    """Every source, then every bundled sample: name, title, licence and split variants."""
    rows: list[tuple[Any, ...]] = []
    for name in SOURCES.names():
        try:
            source = SOURCES.find(name)
            about = source.title, source.licence, dict(source.variants)
        except DataError as error:
            # One broken plug-in must not hide every other data set.
            about = error.message, "", {}
        rows.append((name, *about))
    for path in sorted(SAMPLES.glob("*/manifest.json")):
        prepared = open_prepared(path.parent)
        counts = prepared.manifest["counts"]
        title = "ready to use: " + ", ".join(f"{each} {counts[each]}" for each in prepared.splits)
        rows.append((f"{BUNDLED}{path.parent.name}", title, prepared.manifest["licence"], {}))
    return [dict(zip(("name", "title", "licence", "variants"), row, strict=True)) for row in rows]


def describe_manifest(prepared: Prepared) -> list[str]:
    """Lines for a person: counts, dropped rows, and where the folder is."""
    manifest = prepared.manifest
    notes = manifest.get("notes", {})
    lines = []
    for split in prepared.splits:
        of_split = manifest.get("counts_by_type", {}).get(split, {})
        types = ", ".join(
            f"{n} without a stated answer type" if key == "none" else f"{key} {n}"
            for key, n in of_split.items()
        )
        count = f"{split}: {manifest['counts'][split]} records"
        groups = notes.get("groups", {}).get(split)
        details = [
            *([types] if types else []),
            *([f"{groups} group{'s' * (groups > 1)}"] if groups else []),
        ]
        strata = notes.get("strata", {}).get(split, {})
        details += [f"{value} {number}" for value, number in strata.items()]
        lines.append(f"{count} ({'; '.join(details)})" if details else count)
    lines.append(f"images: {manifest.get('images', {}).get('count', '?')}")
    dropped: dict[str, list[str]] = {}
    for item in manifest.get("dropped", []):
        dropped.setdefault(kind_of_reason(item["reason"]), []).append(item["id"])
    for reason, ids in dropped.items():
        named = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        lines.append(f"dropped {len(ids)}: {reason.rstrip('.')} ({named})")
    if dropped:
        lines.append("every dropped row is listed in manifest.json")
    if notes.get("system_prompts_in_meta"):
        lines.append(f"{notes['system_prompts_in_meta']} system prompts are kept, not trained on")
    for column, why in notes.get("identifiers_left_out", {}).items():
        lines.append(f"column {column!r} is left out, it may say who a person is: {why}")
    if notes.get("identifiers_left_out"):
        lines.append("  --keep-column NAME keeps one; --map group=NAME keeps numbers in its place")
    for where in ("image_names", "texts"):
        if number := notes.get(f"rows_with_identifiers_in_{where}"):
            lines.append(
                f"{number} rows hold a value that was left out, or that of a group, in their "
                f"{where.replace('_', ' ')}, which are kept as they are"
            )
    if "group_column" in notes:
        apart = notes.get("rows_without_group", 0)
        more = f"; {apart} rows without one are groups of their own" if apart else ""
        lines.append(f"groups are those of {notes['group_column']!r}{more}")
    shared = notes.get("groups_in_two_splits", 0)
    if shared:
        lines.append(f"{shared} groups are in more than one split: `data split` makes new splits")
    if notes.get("columns_left_out"):
        lines.append(f"columns left out, they hold bytes: {', '.join(notes['columns_left_out'])}")
    without = len(notes.get("closed_without_options", []))
    if without:
        lines.append(f"{without} closed questions do not say their options, see manifest.json")
    if "licence" in manifest:
        said = {"licence": manifest["licence"], "origin": manifest.get("origin")}
        line = ", ".join(f"{what}: {text}" for what, text in said.items() if text)
        missing = [f"--{what}" for what, text in said.items() if text == NOT_STATED]
        lines.append(f"{line} ({' and '.join(missing)} say it)" if missing else line)
    lines.append(f"{prepared.path}  sha256 {prepared.fingerprint[:16]}")
    return lines


def find_record(prepared: Prepared, name: str, split: str) -> Record:
    """A record by id, in any split, or by its row in one split, counted from 0.

    Raises:
        DataError: there is no such record.
    """
    if name.isdecimal() and len(name) <= 18:
        records = prepared.records(split)
        if int(name) >= len(records):
            raise DataError(
                f"{prepared.path}: {split} has no row {name}.",
                f"It has rows 0 to {len(records) - 1}.",
            )
        return records[int(name)]
    for candidate in prepared.splits:
        for record in prepared.iterate(candidate):
            if record.id == name:
                return record
    raise DataError(f"{prepared.path}: there is no record {name!r}.", "Give a row number or an id.")


def describe_record(prepared: Prepared, record: Record, template: str) -> dict[str, Any]:
    """A record, the size of its images and its training text, as plain values in reading order.

    Raises:
        DataError: an image is missing or broken, or there is no such template.
    """
    folder = prepared.image_folder(MAX_PIXELS)
    described: dict[str, Any] = {"id": record.id}
    for name in record.images:
        width, height = folder.open(name, record.id).size
        described.setdefault("images", []).append(f"{name} ({width} x {height} pixels)")
    for number, turn in enumerate(record.turns):
        key = "question" if turn.role == "user" else "answer"
        described[key if number < 2 else f"{key}_{number // 2 + 1}"] = turn.text
    for number, text in enumerate(record.extended or []):
        described["extended" if number < 1 else f"extended_{number + 1}"] = text
    described["answer_type"] = record.answer_type
    described["meta"] = record.meta
    described["text"] = [
        {"text": segment.text, "supervised": segment.supervised}
        for segment in conversation_segments(record, template)
    ]
    return described
