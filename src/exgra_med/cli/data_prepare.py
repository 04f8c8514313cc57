"""`exgra-med data prepare`: published files, fetched first where asked, to a prepared folder."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.output import print_json, say

_EXAMPLES = """
Examples:

* `exgra-med data prepare vqa-rad --source ~/vqa_rad --out data/vqa-rad`

* `exgra-med data prepare phantom --out data/phantom --set num_images=2000`
"""


def register(app: typer.Typer) -> None:
    """Add the verb to the noun `data`."""
    app.command(epilog=_EXAMPLES)(prepare)


def prepare(
    name: Annotated[str, typer.Argument(help="A name of `data list`.")],
    out: Annotated[Path, typer.Option("--out", help="The prepared folder to make.")],
    source: Annotated[
        Path | None,
        typer.Option("--source", help="Folder, zip or tar with the files; not for phantom."),
    ] = None,
    split_variant: Annotated[
        str | None, typer.Option("--split-variant", help="Which split; see `data list`.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of splits that are not published.")] = 0,
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help="For custom and shards: FIELD=COLUMN."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="For phantom: NAME=NUMBER, such as num_images=2000."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="First fetch into --source: the hub's copy, or the listed figures."
        ),
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Fetches at a time.")] = 8,
    allow_loopback: Annotated[
        bool, typer.Option("--allow-loopback", help="Also fetch http from this machine.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a prepared folder that differs.")
    ] = False,
    drop_broken_images: Annotated[
        bool,
        typer.Option("--drop-broken-images", help="List such records as dropped, do not stop."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")] = False,
) -> None:
    """Make a prepared folder from the published files of a dataset."""
    from exgra_med.cli.output import counting
    from exgra_med.data.inspect.listing import describe_manifest
    from exgra_med.data.prepare import prepare as prepare_dataset
    from exgra_med.errors import DataError

    if download:
        if source is None:
            raise DataError("--download needs --source.", "It is the folder to fetch into.")
        _download(name, source, workers, allow_loopback)
    with counting(silent=as_json) as progress:
        prepared = prepare_dataset(
            name,
            source,
            out,
            variant=split_variant,
            seed=seed,
            overwrite=overwrite,
            drop_broken_images=drop_broken_images,
            mapping=_pairs(column or [], "--map question=Frage"),
            settings=_pairs(setting or [], "--set num_images=2000"),
            progress=progress,
        )
    if as_json:
        print_json({"path": str(out), "fingerprint": prepared.fingerprint, **prepared.manifest})
        return
    for line in describe_manifest(prepared):
        say(line)


def _download(name: str, folder: Path, num_workers: int, allow_loopback: bool) -> None:
    from rich.console import Console

    from exgra_med.data.download.fetch import FetchLimits
    from exgra_med.data.download.hub import download
    from exgra_med.data.download.image_urls import download_images
    from exgra_med.data.sources import SOURCES
    from exgra_med.progress import RichReporter

    source = SOURCES.find(name)
    if not source.has_image_urls:
        download(source, folder, num_workers=num_workers)
        return
    limits = FetchLimits(allow_loopback=allow_loopback)
    console = Console(stderr=True)
    result = download_images(folder, RichReporter(console), limits, num_workers)
    for line in result.lines():
        typer.echo(line, err=True)


def _pairs(texts: list[str], example: str) -> dict[str, str]:
    from exgra_med.errors import DataError

    pairs = {text.partition("=")[0]: text.partition("=")[2] for text in texts}
    if not all(pairs.values()):
        option = example.partition(" ")[0]
        raise DataError(f"{option} needs NAME=VALUE.", f"For example {example}.")
    return pairs
