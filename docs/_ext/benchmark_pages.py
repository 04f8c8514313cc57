"""The benchmark page, from the committed results: a figure that is not in a file is not shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rows = list[tuple[str, str]]


def benchmark_page(results: Path) -> str:
    """Markdown tables of every benchmark that has committed results.

    Args:
        results: folder with one JSON file a benchmark.

    Raises:
        KeyError: a file lacks a figure that its table shows.
    """
    parts = []
    for name, (title, command, rows) in TABLES.items():
        path = results / f"{name}.json"
        if not path.is_file():
            continue
        value = json.loads(path.read_text(encoding="utf-8"))
        parts += [f"## {title}", "", "| | |", "| --- | --- |"]
        parts += [f"| {label} | {figure} |" for label, figure in rows(value)]
        parts += ["", f"`{command}` repeats it; all figures: `benchmarks/results/{path.name}`.", ""]
    rest = sorted(
        {path.stem for path in results.glob("*.json") if not path.stem.startswith("run-")}
        - set(TABLES)
        - {"matching", "peers"}
    )
    if rest:
        parts += ["## Further results", "", "Committed, and without a table here yet:", ""]
        parts += [f"* `benchmarks/results/{name}.json`" for name in rest]
    return "\n".join(parts).rstrip() + "\n"


def _step(value: dict[str, Any]) -> Rows:
    setup = value["metadata"]
    what = f"model {setup['shape']}, {setup['device']}, {setup['dtype']}"
    return [
        ("set-up", f"{what}, {setup['batch_size']} records; {setup['machine']}"),
        ("time, the original's way over ours", f"{value['speedup']:.2f}"),
        ("peak memory, ours over the original's way", f"{value['peak_memory_ratio']:.2f}"),
        ("alignment's share of our step", f"{100 * value['alignment_share']:.2f} %"),
        (
            "our step over plain language modelling",
            f"+ {100 * value['overhead_over_language']:.1f} %",
        ),
    ]


def _captions(value: dict[str, Any]) -> Rows:
    speed = value["answers_per_second"]
    return [
        ("a server that takes", f"{1000 * value['latency_seconds']:.0f} ms for an answer"),
        ("answers a second, one after another", f"{speed['sequential']['median']}"),
        (f"answers a second, {value['concurrency']} at once", f"{speed['concurrent']['median']}"),
        ("processor time an answer", f"{value['processor_milliseconds_per_answer']} ms"),
    ]


def _captions_scale(value: dict[str, Any]) -> Rows:
    return [
        (f"{each['records']} records from the cache",
         f"{each['seconds']} s, at most {each['peak_megabytes']} MB")
        for each in value["from_cache"]
    ]  # fmt: skip


def _scale(value: dict[str, Any]) -> Rows:
    numbers = [str(number) for number in value["numbers"]]
    rows = [("records", ", ".join(f"{int(number):,}" for number in numbers))]
    for name, figures in value["stages"].items():
        memory = ", ".join(f"{figures[each]['peak_megabytes']:.0f}" for each in numbers)
        seconds = ", ".join(f"{figures[each]['processor_seconds']:.1f}" for each in numbers)
        more = figures["further_record"]
        rows.append(
            (name, f"{memory} MB; {seconds} s; a further record {more['bytes']} bytes, "
                   f"{more['microseconds']:.0f} µs")
        )  # fmt: skip
    return rows


def _loading(value: dict[str, Any]) -> Rows:
    names = {
        "pil": "opened and prepared by hand",
        "folder": "through our reader",
        "resized": "through our reader, after `data resize`",
    }
    return [
        (f"{label}, {value['unit']}", f"{value['results'][key]['median']}")
        for key, label in names.items()
    ]


def _batching(value: dict[str, Any]) -> Rows:
    return [
        ("questions", f"{value['questions']}, batches of {value['batch_size']}"),
        ("time one by one over batched", f"{value['ratio']['seconds']}"),
        ("answers equal token for token", "yes" if value["answers_equal"] else "no"),
    ]


def _generation(value: dict[str, Any]) -> Rows:
    names = {
        "original": "one by one, stopping as the original does",
        "single": "one by one, ours",
        "batch": "batched, ours",
    }
    return [
        (f"{size}: {label}, {value['unit']}", f"{result['tokens_per_second'][way]['median']}")
        for size, result in value["results"].items()
        for way, label in names.items()
        if way in result["tokens_per_second"]
    ]


TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], Rows]]] = {
    "step": ("A stage-2 step", "exgra-med bench step --out benchmarks/results/step.json", _step),
    "evaluation_batching": (
        "Answering questions", "python benchmarks/evaluation_batching.py", _batching,
    ),
    "generation": ("Generating text", "python benchmarks/generation.py", _generation),
    "data_loading": ("Reading images", "python benchmarks/data_loading.py", _loading),
    "captions_throughput": (
        "Extended answers", "python benchmarks/captions_throughput.py", _captions,
    ),
    "scale": ("A great many records", "python benchmarks/scale.py", _scale),
    "captions_scale": (
        "Extended answers, many", "python benchmarks/captions_scale.py", _captions_scale,
    ),
}  # fmt: skip
"""File name of the results: title, command, and the rows of its table."""
