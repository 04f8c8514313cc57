"""`exgra-med data` verbs that say what is in data: one record, overlap, answers, numbers."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.output import print_json, say

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Folder = Annotated[str, typer.Argument(help="A prepared folder, or `bundled:vqa-rad-sample`.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun `data`."""
    app.command(epilog=_example("show bundled:vqa-rad-sample 17"))(show)
    app.command(epilog=_example("audit train.jsonl test.jsonl --images images --json"))(audit)
    app.command(epilog=_example("candidates data/vqa-rad --out candidate.json"))(candidates)
    app.command(epilog=_example("stats bundled:vqa-rad-sample --out stats.html"))(stats)


def _example(text: str) -> str:
    return f"Example: `exgra-med data {text}`"


def show(
    folder: Folder,
    record: Annotated[str, typer.Argument(metavar="N|ID", help="Row of the split, or an id.")],
    split: Annotated[str, typer.Option("--split", help="Where row N is counted.")] = "train",
    template: Annotated[str, typer.Option("--template", help="Chat template.")] = "exgra",
    as_json: Json = False,
) -> None:
    """Show one record: picture, question, answers, and the text that training learns from."""
    from exgra_med.data.inspect.listing import describe_record, find_record
    from exgra_med.data.prepare import MAX_PIXELS
    from exgra_med.data.prepared import open_prepared

    prepared = open_prepared(folder)
    found = find_record(prepared, record, split)
    described = describe_record(prepared, found, template)
    if as_json:
        print_json(described)
        return
    if sys.stdout.isatty() and os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        from exgra_med.cli.picture import half_blocks

        for name in found.images:
            typer.echo(half_blocks(prepared.image_folder(MAX_PIXELS).open(name, found.id)))
    text = described.pop("text")
    for key, value in described.items():
        say(f"{key}: {value}")
    say("text, what is learned from in [[ ]]:")
    say("".join(f"[[{s['text']}]]" if s["supervised"] else s["text"] for s in text))


def audit(
    train: Annotated[Path, typer.Argument(help="Training records: .jsonl, or original's .json.")],
    test: Annotated[Path, typer.Argument(help="Test records.")],
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of the images of both.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what of a test set is in a training set: images, questions, answers."""
    from exgra_med.cli.output import counting
    from exgra_med.data.inspect.audit import audit as compare
    from exgra_med.data.llava_format import read_any

    with counting(silent=as_json) as progress:
        found = compare(read_any(train), read_any(test), images, progress)
    if as_json:
        print_json(found.to_json())
        return
    for line in found.lines():
        say(line)


def candidates(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", help="File to write.")] = None,
) -> None:
    """List the open answers of the training split, in the original's candidate.json format."""
    import json

    from exgra_med.data.derive import open_answers
    from exgra_med.data.prepared import open_prepared
    from exgra_med.files import write_text

    value = {"0": open_answers(open_prepared(folder).records("train"))}
    if out is None:
        print_json(value)
        return
    write_text(out, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    say(f"{out}: {len(value['0'])} open answers")


def stats(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", help="HTML page to write.")] = None,
    as_json: Json = False,
) -> None:
    """Count what a prepared folder has; with --out, write a page with pictures."""
    from exgra_med.data.inspect.statistics import statistics, statistics_page
    from exgra_med.data.prepared import open_prepared
    from exgra_med.files import write_text

    prepared = open_prepared(folder)
    if out is not None:
        write_text(out, statistics_page(prepared))
        say(f"{out}: written")
    if as_json or out is None:
        print_json(statistics(prepared))
