"""The table of models that went the whole road: what its test wrote, none of it by hand."""

import json
from pathlib import Path

WAYS = {"plain": "packed", "rope": "packed, with rotary axes", None: "padded"}
"""`Facts.text_packing` and `image_packing` in words."""


def model_page(results: Path) -> str:
    """A Markdown table of `benchmarks/results/models.json`, a row a family."""
    rows = json.loads((results / "models.json").read_text(encoding="utf-8"))
    steps = next(iter(rows.values()))["road"]
    parts = [
        f"Each went this road through the command line: {', '.join(steps)}.",
        "",
        "| model type | class of transformers | rows of texts | rows with images |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows.values():
        assert row["road"] == steps, "a family that did not go the whole road has no row"
        texts, images = (WAYS[row[f"{kind} packed"]] for kind in ("texts", "images"))
        parts.append(f"| `{row['family']}` | `{row['class']}` | {texts} | {images} |")
    return "\n".join([*parts, ""])
