"""`exgra-med data`: prepare, check and look at datasets."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli import data_derive, data_facts
from exgra_med.cli.output import print_json, say

app = typer.Typer(
    help="Prepare, check and look at datasets.", no_args_is_help=True, rich_markup_mode="markdown"
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Folder = Annotated[str, typer.Argument(help="A prepared folder, or `bundled:vqa-rad-sample`.")]
Out = Annotated[Path, typer.Option("--out", help="The prepared folder to make.")]


@app.command("list", epilog="Example: `exgra-med data list --json`")
def list_sources(as_json: Json = False) -> None:
    """List the datasets that can be prepared, and the bundled samples."""
    from exgra_med.data.listing import describe_sources

    rows = describe_sources()
    if as_json:
        print_json(rows)
        return
    for row in rows:
        say(f"{row['name']}: {row['title']} ({row['licence']})")
        for name, line in row["variants"].items():
            say(f"    --split-variant {name}: {line}")


@app.command(
    epilog="Example: `exgra-med data prepare vqa-rad --source ~/vqa_rad --out data/vqa-rad`"
)
def prepare(
    name: Annotated[str, typer.Argument(help="A name of `data list`.")],
    source: Annotated[Path, typer.Option("--source", help="Folder, zip or tar with the files.")],
    out: Out,
    split_variant: Annotated[
        str | None, typer.Option("--split-variant", help="Which split; see `data list`.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of splits that are not published.")] = 0,
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help="For custom and shards: FIELD=COLUMN."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="First fetch the hub's copy into --source.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a prepared folder that differs.")
    ] = False,
    drop_broken_images: Annotated[
        bool,
        typer.Option("--drop-broken-images", help="List such records as dropped, do not stop."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a prepared folder from the published files of a dataset."""
    from exgra_med.cli.output import counting
    from exgra_med.data.listing import describe_manifest
    from exgra_med.data.prepare import prepare as prepare_dataset

    if download:
        from exgra_med.data.download import download as fetch
        from exgra_med.data.source import find_source

        fetch(find_source(name), source)
    with counting(silent=as_json) as progress:
        prepared = prepare_dataset(
            name,
            source,
            out,
            variant=split_variant,
            seed=seed,
            overwrite=overwrite,
            drop_broken_images=drop_broken_images,
            mapping=_pairs(column or []),
            progress=progress,
        )
    if as_json:
        print_json({"path": str(out), "fingerprint": prepared.fingerprint, **prepared.manifest})
        return
    for line in describe_manifest(prepared):
        say(line)


def _pairs(columns: list[str]) -> dict[str, str]:
    from exgra_med.errors import DataError

    pairs = {text.partition("=")[0]: text.partition("=")[2] for text in columns}
    if not all(pairs.values()):
        raise DataError("--map needs FIELD=COLUMN.", "For example --map question=Frage.")
    return pairs


@app.command(epilog="Example: `exgra-med data check data/vqa-rad`")
def check(folder: Folder, as_json: Json = False) -> None:
    """Read every record and decode every image of a prepared folder; exit 2 if one is faulty."""
    from exgra_med.cli.output import counting
    from exgra_med.data.check import check_prepared
    from exgra_med.data.prepared import open_prepared

    with counting(silent=as_json) as progress:
        report = check_prepared(open_prepared(folder), progress=progress)
    if as_json:
        print_json(report.to_json())
    else:
        for line in report.lines():
            say(line)
    if report.faults:
        raise typer.Exit(2)


data_derive.register(app)
data_facts.register(app)
