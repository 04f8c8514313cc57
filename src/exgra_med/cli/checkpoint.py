"""`exgra-med checkpoint`: import, export, inspect, verify, list."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Checkpoints: published ones in, stock Hugging Face out.", no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Folder = Annotated[str, typer.Argument(help="A run or checkpoint folder, or a hub name.")]


@app.command(
    "import",
    epilog="Example: exgra-med checkpoint import exgra-med-dci --out checkpoints/exgra-med-dci"
    " --vision openai/clip-vit-large-patch14",
)
def import_(
    source: Annotated[str, typer.Argument(help="Folder, hub name, or stage 1's mm_projector.bin.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    vision: Annotated[
        str, typer.Option(help="CLIP tower: folder or hub name.")
    ] = "openai/clip-vit-large-patch14",
    connector: Annotated[
        str | None, typer.Option(help="none, dci or sci, where the projector leaves a choice.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of the hub.")] = None,
    onto: Annotated[
        Path | None, typer.Option(help="Native checkpoint that mm_projector.bin is put into.")
    ] = None,
    num_l: Annotated[
        int | None, typer.Option("--num-l", help="Blocks in each mean of dci with BiomedCLIP.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint of the original, and say what was inferred and why."""
    from exgra_med.model.convert.checkpoint import import_checkpoint

    report = import_checkpoint(source, vision, out, connector, revision, onto, num_l)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    for each in report["inferred"]:
        typer.echo(f"{each['what']}: {each['value']}  ({each['evidence']})")
    typer.echo(f"Wrote {out}.")


@app.command(
    "export",
    epilog="Example: exgra-med checkpoint export runs/demo/checkpoints/vqa/final --out exported",
)
def export(
    source: Folder,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    form: Annotated[str, typer.Option("--format", help="hf-llava.")] = "hf-llava",
) -> None:
    """Write a stock LLaVA model, its connector folded, for any server that knows transformers."""
    from exgra_med.model.convert.checkpoint import export_checkpoint

    export_checkpoint(source, out, form)
    typer.echo(f"Wrote {out}.")


@app.command("inspect", epilog="Example: exgra-med checkpoint inspect exported --json")
def inspect(folder: Folder, as_json: AsJson = False) -> None:
    """Say what a checkpoint is, without loading it."""
    from exgra_med.model.folder import local_folder
    from exgra_med.model.verification import describe_checkpoint as describe

    found = describe(local_folder(folder))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if found["imported"]:
        found["imported"] = f"from {found['imported']['source']}, see import.json"
    for name, value in found.items():
        typer.echo(f"{name + ':':<15} {_plain(value)}")


@app.command("verify", epilog="Example: exgra-med checkpoint verify exported")
def verify(
    folder: Folder,
    record: Annotated[
        bool, typer.Option("--record", help="Record hashes and logits as they are now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare hashes and logits with those recorded; exit code 1 where one differs."""
    from exgra_med.model.bundle import load_bundle
    from exgra_med.model.folder import local_folder
    from exgra_med.model.verification import verify_checkpoint as check
    from exgra_med.model.verification import write_verification

    path = local_folder(folder)
    if record:
        write_verification(load_bundle(path, dtype="auto"), path)
    findings = check(path)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        for each in findings:
            mark = (
                typer.style("ok   ", fg="green") if each.passed else typer.style("WRONG", fg="red")
            )
            typer.echo(f"{mark} {each.name}: {each.detail}")
    if not all(each.passed for each in findings):
        raise typer.Exit(1)


@app.command("list", epilog="Example: exgra-med checkpoint list --json")
def list_(as_json: AsJson = False) -> None:
    """The published checkpoints, what each is for, and under whose terms it stands."""
    from exgra_med.model.published import LICENCES, NOTICE, PUBLISHED_CHECKPOINTS

    if as_json:
        rows = [asdict(each) | {"hub_name": each.hub_name} for each in PUBLISHED_CHECKPOINTS]
        typer.echo(
            json.dumps({"checkpoints": rows, "licences": LICENCES, "notice": NOTICE}, indent=2)
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Published by MERGE-Group on the Hugging Face hub", title_justify="left")
    table.add_column("name", no_wrap=True)
    for column in ("stage", "data", "connector", "for"):
        table.add_column(column)
    for each in PUBLISHED_CHECKPOINTS:
        table.add_row(each.name, each.stage, each.data_share, each.connector, each.purpose)
    console = Console()
    console.print(table)
    console.print("Terms: " + "; ".join(LICENCES) + ".")
    console.print(NOTICE)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "-"
    return "-" if value is None else str(value)
