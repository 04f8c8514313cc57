"""The results page, from committed `run-NAME.json`: each is the results.json of one run."""

import json
from pathlib import Path
from typing import Any

MEASURES = {
    "average": "average",
    "open_recall": "open recall",
    "closed_accuracy": "closed accuracy",
}


def result_page(results: Path) -> str:
    """Markdown tables of every committed run: strict and legacy with 95 % intervals, and floors.

    Args:
        results: folder with `run-NAME.json`.
    """
    parts: list[str] = []
    for path in sorted(results.glob("run-*.json")):
        name = path.stem.removeprefix("run-")
        parts += _run(name, path.name, json.loads(path.read_text(encoding="utf-8")))
    if not parts:
        return "No run has committed results yet.\n"
    return "\n".join(parts).rstrip() + "\n"


def _run(name: str, file: str, results: dict[str, Any]) -> list[str]:
    vqa = results["vqa"]
    strict = vqa["strict"]
    lines = [
        f"## `{name}`",
        "",
        f"{vqa['dataset']}, {vqa['split']} split: {strict['num_open']} open and "
        f"{strict['num_closed']} closed questions about {strict['num_images']} images, one seed. "
        f"From `benchmarks/results/{file}`.",
        "",
        "| | strict, % | 95 % interval | legacy, % | 95 % interval |",
        "| --- | --: | --: | --: | --: |",
    ]
    for key, label in MEASURES.items():
        cells = [cell for scorer in ("strict", "legacy") for cell in _cells(vqa[scorer], key)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for key, floor in results.get("floors", {}).items():
        if isinstance(floor, dict) and "average" in floor.get("strict", {}):
            values = [f"{floor[scorer]['average']:.1f}" for scorer in ("strict", "legacy")]
            lines.append(f"| floor: {key.replace('_', ' ')} | {values[0]} | | {values[1]} | |")
    return [*lines, ""]


def _cells(score: dict[str, Any], key: str) -> tuple[str, str]:
    value, bounds = score.get(key), (score.get("intervals") or {}).get(key)
    shown = "none" if value is None else f"{value:.1f}"
    return shown, f"{bounds[0]:.1f} to {bounds[1]:.1f}" if bounds else "none"
