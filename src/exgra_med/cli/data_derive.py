"""`exgra-med data` verbs that make one prepared folder from another."""

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
    app.command(epilog=_example("subset data/vqa-rad --fraction 0.1 --out data/vqa-rad-10"))(subset)
    app.command(epilog=_example("split data/mine --test 0.2 --out data/mine-split"))(split)
    app.command("merge-captions", epilog=_example("merge-captions data/a long.jsonl --out data/b"))(
        merge_captions
    )
    app.command(epilog=_example("resize data/vqa-rad --shortest 336 --out data/small"))(resize)


def _example(text: str) -> str:
    return f"Example: `exgra-med data {text}`"


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


def _report(prepared, as_json: bool) -> None:
    from exgra_med.data.inspect.listing import describe_manifest

    if as_json:
        path, fingerprint = str(prepared.path), prepared.fingerprint
        print_json({"path": path, "fingerprint": fingerprint, **prepared.manifest})
        return
    for line in describe_manifest(prepared):
        say(line)
