"""The results page, from committed `run-NAME.json`: each is the results.json of one run."""

import json
from pathlib import Path

from exgra_med.evaluation.answers import counts_sentence
from exgra_med.evaluation.measures import measures
from exgra_med.evaluation.results import Entry, parse_results
from exgra_med.evaluation.tables import cell


def result_page(results: Path) -> str:
    """Markdown tables of every committed run: strict and legacy with 95 % intervals, and baselines.

    Args:
        results: folder with `run-NAME.json`.
    """
    parts: list[str] = []
    for path in sorted(results.glob("run-*.json")):
        name = path.stem.removeprefix("run-")
        values = json.loads(path.read_text(encoding="utf-8"))
        for entry in parse_results(values, path.name).find("vqa"):
            parts += _run(name, path.name, entry)
    if not parts:
        return "No run has committed results yet.\n"
    return "\n".join(parts).rstrip() + "\n"


def _run(name: str, file: str, entry: Entry) -> list[str]:
    counts = entry.details["scorers"]["strict"]
    lines = [
        f"## `{name}`",
        "",
        f"{entry.dataset}, {entry.split} split: {counts['num_open']} open and "
        f"{counts['num_closed']} closed questions about {counts['num_images']} images, one seed. "
        f"{counts_sentence(entry.details['answer_counts'])} From `benchmarks/results/{file}`.",
        "",
        *_made_with(entry.details["made_with"]),
        "| | strict, % | 95 % interval | legacy, % | 95 % interval |",
        "| --- | --: | --: | --: | --: |",
    ]
    for measure in measures("compare"):
        scores = [cell(entry.score(scorer, measure.name)) for scorer in ("strict", "legacy")]
        cells = [text for each in scores for text in (each.text, each.bounds or "none")]
        label = "average" if measure.mean_of else measure.label
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for key, baseline in entry.details["baselines"].items():
        values = [cell(baseline["scores"][name]["average"]).text for name in ("strict", "legacy")]
        lines.append(f"| baseline: {key.replace('_', ' ')} | {values[0]} | | {values[1]} | |")
    return [*lines, ""]


def _made_with(made: dict[str, str | None]) -> list[str]:
    commit = f", commit `{made['git_commit'][:12]}`" if made["git_commit"] else ""
    return [
        f"Made with exgra-med {made['exgra_med']}{commit}, torch {made['torch']}, "
        f"{made['platform']}. Other versions and other machines round differently, and a model's "
        "answers change with that: your own run may differ by some of them.",
        "",
    ]
