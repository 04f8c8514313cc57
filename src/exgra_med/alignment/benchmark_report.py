"""From the rows of a benchmark to tables for people."""

import json
from pathlib import Path
from typing import Any

from exgra_med.alignment.instances import REGIMES, TRANSITION

SETTINGS = {
    ("local-search", "fast"): "local-search",
    ("anneal", "fast"): "anneal, fast (default)",
    ("anneal", "thorough"): "anneal, thorough",
    ("torch", "fast"): "torch, fast",
    ("exhaustive", "fast"): "exhaustive",
    ("lpmp", "fast"): "LPMP",
    ("pylibmgm", "fast"): "pylibmgm",
}


def write_result(result: dict[str, Any], path: Path) -> None:
    """Write a benchmark's JSON as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def markdown_tables(result: dict[str, Any]) -> str:
    """Milliseconds of a whole step, gaps of both phases, and the transition, as Markdown."""
    rows = {
        (row["nodes"], row["regime"], row["phase"], (row["solver"], row["effort"])): row
        for row in result["rows"]
    }
    sizes = sorted({row["nodes"] for row in result["rows"]})
    parts = [
        "Milliseconds of processor time for the 12 problems of a step (median):\n",
        _table(rows, sizes, REGIMES, _step_milliseconds),
        "\nForward problems, mean gap to the best known objective, %:\n",
        _table(rows, sizes, REGIMES, lambda *key: _gap(*key, phase="forward")),
        "\nPerturbed problems, mean gap to the best known objective, %:\n",
        _table(rows, sizes, REGIMES, lambda *key: _gap(*key, phase="perturbed")),
    ]
    moving = [size for size in sizes if (size, TRANSITION[0], "forward", _FAST) in rows]
    if moving:
        parts += [
            "\nFrom aligned to random, step milliseconds / forward gap % / certified share:\n",
            _table(rows, moving, TRANSITION, _transition),
        ]
    return "\n".join(parts)


_FAST = ("anneal", "fast")


def _table(rows: dict, sizes: list[int], regimes: tuple[str, ...], cell: Any) -> str:
    measured = {setting for _, _, _, setting in rows}
    settings = [setting for setting in SETTINGS if setting in measured]
    lines = [
        "| B | regime | " + " | ".join(SETTINGS[setting] for setting in settings) + " |",
        "| ---: | --- |" + " ---: |" * len(settings),
    ]
    for size in sizes:
        for regime in regimes:
            cells = [cell(rows, size, regime, setting) for setting in settings]
            if any(cells):
                lines.append(f"| {size} | {regime} | " + " | ".join(c or "-" for c in cells) + " |")
    return "\n".join(lines)


def _step_milliseconds(rows: dict, size: int, regime: str, setting: tuple[str, str]) -> str:
    found = [rows.get((size, regime, phase, setting)) for phase in ("forward", "perturbed")]
    if None in found:
        return ""
    return f"{sum(row['processor_milliseconds'][1] for row in found if row):.3g}"


def _gap(rows: dict, size: int, regime: str, setting: tuple[str, str], phase: str) -> str:
    row = rows.get((size, regime, phase, setting))
    return f"{row['gap_percent_mean']:.2f}" if row else ""


def _transition(rows: dict, size: int, regime: str, setting: tuple[str, str]) -> str:
    row = rows.get((size, regime, "forward", setting))
    if row is None:
        return ""
    milliseconds = _step_milliseconds(rows, size, regime, setting)
    return f"{milliseconds} / {row['gap_percent_mean']:.2f} / {row['certified_share']:.2f}"
