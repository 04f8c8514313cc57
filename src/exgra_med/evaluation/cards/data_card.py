"""The data card of a prepared folder: origin, licence, hashes, counts, and what was left out."""

from collections import Counter
from pathlib import Path
from typing import Any

from exgra_med.data.prepared import open_prepared
from exgra_med.evaluation.report.environment import template_environment
from exgra_med.files import write_text


def write_data_card(folder: str | Path, out: Path) -> Path:
    """Write the card of a prepared folder as Markdown with the front matter that hubs read.

    Args:
        folder: a prepared folder, or `bundled:NAME`.
        out: the file to write.

    Returns:
        `out`.

    Raises:
        DataError: not a prepared folder.
        MissingExtraError: jinja2 is not installed.
        WriteError: the file cannot be written.
    """
    write_text(out, data_card(folder))
    return out


def data_card(folder: str | Path) -> str:
    """The card as text; see `write_data_card`."""
    prepared = open_prepared(folder)
    manifest = prepared.manifest
    values = {
        "manifest": manifest,
        "fingerprint": prepared.fingerprint,
        "licence": _licence(manifest),
        "rows": [_split(manifest, split) for split in prepared.splits],
        "dropped": _reasons(manifest),
        "notes": {
            name.replace("_", " "): note
            for name, note in (manifest.get("notes") or {}).items()
            if isinstance(note, str | int | float)
        },
        "sources": manifest.get("sources") or {},
        "made_from": (manifest.get("made_from") or {}).get("fingerprint", ""),
    }
    return template_environment(escape=False).get_template("data-card.md.j2").render(values)


def _licence(manifest: dict[str, Any]) -> str:
    """What the manifest states; of your own data only you can say it."""
    stated = str(manifest.get("licence") or "")
    return "" if stated in ("", "yours") else stated


def _split(manifest: dict[str, Any], split: str) -> dict[str, Any]:
    kinds = (manifest.get("counts_by_type") or {}).get(split) or {}
    return {
        "name": split,
        "count": manifest["counts"][split],
        "kinds": ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
        "sha256": manifest["files"].get(f"{split}.jsonl", ""),
    }


def _reasons(manifest: dict[str, Any]) -> dict[str, int]:
    """How many rows were left out for which reason; which rows may be nobody's business."""
    reasons = Counter(
        str(row.get("reason", "not stated")) if isinstance(row, dict) else "not stated"
        for row in manifest.get("dropped") or []
    )
    return dict(reasons.most_common())
