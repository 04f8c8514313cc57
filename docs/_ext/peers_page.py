"""The page beside others, from the committed result: what is not in the file is not shown."""

import json
from pathlib import Path
from typing import Any

TITLES = {
    "training": ("Training", "samples a second"),
    "evaluation": ("Answering questions", "questions a second"),
    "matching": ("Matching", "steps a second"),
}
WAYS = {
    "ours": "this package",
    "ours-sharing": "this package, four questions a picture",
    "ours-aligned": "this package, with graphs",
    "ours-thorough": "this package, `effort: thorough`",
    "trainer": "transformers' `Trainer`",
    "trl": "TRL's `SFTTrainer`",
    "ms-swift": "ms-swift",
    "nanovlm": "nanoVLM's way",
    "one-by-one": "transformers' `generate`, one by one",
    "pipeline": "transformers' pipeline, batches of 32",
    "lmms-eval": "lmms-eval, one by one",
    "pylibmgm": "pylibmgm",
}


def peers_page(results: Path) -> str:
    """Markdown tables of `peers.json`, a table a row of the benchmark.

    Args:
        results: folder with one JSON file a benchmark.

    Raises:
        KeyError: the file lacks a figure that a table shows, or has a way without a name here.
    """
    path = results / "peers.json"
    if not path.is_file():
        return "No result is committed yet.\n"
    value = json.loads(path.read_text(encoding="utf-8"))
    setup = value["metadata"]
    parts = [
        f"One run of {setup['minutes']} minutes on {setup['cpus']} cores ({setup['machine']}), "
        f"{setup['threads']} thread a way, {setup['precision']}, {setup['rounds']} rounds.",
        "",
    ]
    for row, ways in value["rows"].items():
        title, unit = TITLES[row]
        last = "cost of all matchings" if row == "matching" else "peak memory"
        if row == "evaluation":
            last += ", same answers"
        parts += [
            f"## {title}",
            "",
            f"| way | {unit} | takes times as long | {last} | version |",
            "| --- | --: | --: | --: | --- |",
        ]
        parts += [_line(WAYS[way], found) for way, found in ways.items()]
        shares = [
            f"{WAYS[way]} {100 * found['products_share']:.0f} % "
            f"({found['step_gigaflops']:.0f} GFLOP a step)"
            for way, found in ways.items()
            if "products_share" in found
        ]
        if shares:
            parts += ["", f"Of a step, its matrix products alone take: {', '.join(shares)}."]
        parts.append("")
    return "\n".join(parts)


def _line(name: str, found: dict[str, Any]) -> str:
    if "message" in found:
        return f"| {name} | did not run: `{found['message']}` | | | |"
    ratio = "1"
    if "ours_over_it" in found:
        ratio = f"{found['ours_over_it']} ({found['lowest']} to {found['highest']})"
    last = f"{found['value']}" if "value" in found else f"{found['peak_gigabytes']} GB"
    if "answers_as_ours" in found:
        last += f", {found['answers_as_ours']}"
    return f"| {name} | {found['per_second']} | {ratio} | {last} | {found['version']} |"
