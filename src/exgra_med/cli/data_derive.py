"""`exgra-med data` verbs that compare data or make one prepared folder from another."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.output import print_json, say

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Folder = Annotated[str, typer.Argument(help="A prepared folder, or `bundled:vqa-rad-sample`.")]
Out = Annotated[Path, typer.Option("--out", help="The prepared folder to make.")]
Seed = Annotated[int, typer.Option("--seed", help="Another seed takes others.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the noun `data`."""
    app.command(epilog=_example("audit train.jsonl test.jsonl --images images --json"))(audit)
    app.command(epilog=_example("subset data/vqa-rad --fraction 0.1 --out data/vqa-rad-10"))(subset)
    app.command(epilog=_example("split data/mine --test 0.2 --out data/mine-split"))(split)
    app.command("merge-captions", epilog=_example("merge-captions data/a long.jsonl --out data/b"))(
        merge_captions
    )
    app.command(epilog=_example("resize data/vqa-rad --shortest 336 --out data/small"))(resize)
    app.command(epilog=_example("candidates data/vqa-rad --out candidate.json"))(candidates)
    app.command(epilog=_example("stats bundled:vqa-rad-sample --out stats.html"))(stats)


def _example(text: str) -> str:
    return f"Example: `exgra-med data {text}`"


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
    from exgra_med.data.audit import audit as compare
    from exgra_med.data.original import read_any

    with counting(silent=as_json) as progress:
        found = compare(read_any(train), read_any(test), images, progress)
    if as_json:
        print_json(found.to_json())
        return
    for line in found.lines():
        say(line)


def subset(
    folder: Folder,
    out: Out,
    fraction: Annotated[float, typer.Option("--fraction", help="Share of the training split.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a smaller prepared folder; a smaller share lies inside a larger one."""
    from exgra_med.data.derive import write_subset
    from exgra_med.data.prepared import open_prepared

    _report(write_subset(open_prepared(folder), fraction, seed, out), as_json)


def split(
    folder: Folder,
    out: Out,
    test: Annotated[float, typer.Option("--test", help="Share of the records.")] = 0.2,
    validation: Annotated[float, typer.Option("--validation", help="Share of the records.")] = 0.1,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Split the records of a prepared folder anew, so that no image is in two splits."""
    from exgra_med.data.derive import write_split
    from exgra_med.data.prepared import open_prepared

    _report(write_split(open_prepared(folder), validation, test, seed, out), as_json)


def merge_captions(
    folder: Folder,
    captions: Annotated[Path, typer.Argument(help='Lines of {"id", "extended"}, or .json.')],
    out: Out,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Training records may have none.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add extended answers to the records of a prepared folder."""
    from exgra_med.data.derive import merge_captions as merge
    from exgra_med.data.prepared import open_prepared

    _report(merge(open_prepared(folder), captions, out, allow_missing), as_json)


def resize(
    folder: Folder,
    out: Out,
    shortest: Annotated[int, typer.Option("--shortest", help="Pixels of the short side.")],
    as_json: Json = False,
) -> None:
    """Make a copy with images of the model's size, so that training decodes less."""
    from exgra_med.cli.output import counting
    from exgra_med.data.derive import write_resized
    from exgra_med.data.prepared import open_prepared

    with counting(silent=as_json) as progress:
        prepared = write_resized(open_prepared(folder), shortest, out, progress)
    _report(prepared, as_json)


def candidates(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", help="File to write.")] = None,
) -> None:
    """List the open answers of the training split, in the original's candidate.json format."""
    import json

    from exgra_med.data.atomic import atomic_write
    from exgra_med.data.derive import open_answers
    from exgra_med.data.prepared import open_prepared

    value = {"0": open_answers(open_prepared(folder).records("train"))}
    if out is None:
        print_json(value)
        return
    atomic_write(out, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    say(f"{out}: {len(value['0'])} open answers")


def stats(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", help="HTML page to write.")] = None,
    as_json: Json = False,
) -> None:
    """Count what a prepared folder has; with --out, write a page with pictures."""
    from exgra_med.data.atomic import atomic_write
    from exgra_med.data.prepared import open_prepared
    from exgra_med.data.stats import statistics, statistics_page

    prepared = open_prepared(folder)
    if out is not None:
        atomic_write(out, statistics_page(prepared))
        say(f"{out}: written")
    if as_json or out is None:
        print_json(statistics(prepared))


def _report(prepared, as_json: bool) -> None:
    from exgra_med.data.listing import describe_manifest

    if as_json:
        path, fingerprint = str(prepared.path), prepared.fingerprint
        print_json({"path": path, "fingerprint": fingerprint, **prepared.manifest})
        return
    for line in describe_manifest(prepared):
        say(line)
