"""`exgra-med data`: prepare, look at, check and derive datasets."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exgra_med.cli import options
from exgra_med.errors import DataError
from exgra_med.files import write_text
from exgra_med.terminal import (
    counting,
    next_step,
    print_json,
    printable,
    remark,
    reporter,
    say,
    show,
    table,
)

if TYPE_CHECKING:
    from PIL import Image

    from exgra_med.data.records import Prepared
    from exgra_med.data.sources.source import Column

app = typer.Typer(help="Prepare datasets, look at them, check them.", no_args_is_help=True)
of_own = partial(typer.Option, rich_help_panel="Your own data")
_MOST_COLUMNS = 60
of_download = partial(typer.Option, rich_help_panel="Download")


def _open(folder: str) -> "Prepared":
    from exgra_med.data.records import open_prepared

    return open_prepared(folder)


@app.command("list", epilog="Example: `exgra-med data list`")
def list_sources(as_json: options.Json = False) -> None:
    """List the datasets that can be prepared, and the bundled samples."""
    from exgra_med.data.inspect.describe import describe_sources

    rows = describe_sources()

    def lines() -> Iterator[str]:
        for row in rows:
            yield f"{row['name']}: {row['title']} ({row['licence']})"
            for name, line in row["variants"].items():
                yield f"    --split-variant {name}: {line}"
        yield next_step("data prepare NAME --source FOLDER --out data/NAME")

    show(rows, as_json, lines())


_PREPARE_EXAMPLES = """
Examples:

* `exgra-med data prepare vqa-rad --source ~/vqa_rad --out data/vqa-rad`

* `exgra-med data prepare phantom --out data/phantom --option num_images=2000`

* `exgra-med data prepare custom cases.xlsx --out data/mine`

* `exgra-med data prepare custom cases.csv --images ~/scans --map answer=finding --out data/mine`
"""


@app.command(epilog=_PREPARE_EXAMPLES)
def prepare(
    name: Annotated[str, typer.Argument(help="Name from `exgra-med data list`.")],
    out: options.Out,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Folder, zip or tar with the published files. For `custom` your table, or its "
            "folder: .csv, .tsv, .xlsx, .json, .jsonl, .parquet.",
        ),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--source", help="The same as SOURCE, as an option.")
    ] = None,
    split_variant: Annotated[
        str | None,
        typer.Option(
            "--split-variant", metavar="NAME", help="Which split, see `exgra-med data list`."
        ),
    ] = None,
    seed: options.Seed = 0,
    column: Annotated[
        list[str] | None,
        of_own(
            "--map",
            metavar="FIELD=COLUMN",
            help="Which column is question, answer, image, id, split, group, ... May be repeated.",
        ),
    ] = None,
    images: options.Images = None,
    sheet: Annotated[
        str | None, of_own("--sheet", metavar="NAME", help="Sheet of an Excel file.")
    ] = None,
    group_by: Annotated[
        str | None,
        of_own(
            "--group-by",
            metavar="COLUMN",
            help="Column, such as the patient, that splits must not divide. Only numbers are kept "
            "of it.",
        ),
    ] = None,
    keep_column: Annotated[
        list[str] | None,
        of_own(
            "--keep-column",
            metavar="COLUMN",
            help="Keep a column although it may say who a person is. May be repeated.",
        ),
    ] = None,
    drop_column: Annotated[
        list[str] | None,
        of_own("--drop-column", metavar="COLUMN", help="Leave a column out. May be repeated."),
    ] = None,
    own_name: Annotated[
        str | None,
        of_own("--name", metavar="WORD", help="What results call your own data."),
    ] = None,
    licence: Annotated[
        str | None,
        of_own("--licence", metavar="TEXT", help="What images and texts may be used for."),
    ] = None,
    data_origin: Annotated[
        str | None, of_own("--origin", metavar="TEXT", help="Where images and texts come from.")
    ] = None,
    yes: Annotated[
        bool, of_own("--yes", help="Ask nothing, and take the columns as they are understood.")
    ] = False,
    option: options.VerbOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a prepared folder that differs.")
    ] = False,
    drop_broken_images: Annotated[
        bool,
        typer.Option("--drop-broken-images", help="Drop records whose image is broken. List them."),
    ] = False,
    download: Annotated[
        bool, of_download("--download", help="First download into --source.")
    ] = False,
    workers: Annotated[
        int, of_download("--workers", min=1, max=256, help="Downloads at the same time.")
    ] = 8,
    allow_loopback: Annotated[
        bool, of_download("--allow-loopback", help="Also download from this machine.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Make a prepared folder from the published files of a dataset.

    Your own data is `custom`: each column is shown with what it is taken for, and in a terminal you
    are asked whether that is right. Columns that may say who a person is are left out.
    --option is for `phantom`, which is made and needs no SOURCE.
    """
    from exgra_med.data.prepare import prepare as prepare_dataset
    from exgra_med.data.sources.source import OwnData

    if file is not None and source is not None:
        raise DataError("SOURCE and --source are the same.", "Give one of them.")
    source = file or source
    mapping = options.pairs(column or [], "--map question=Frage")
    if group_by is not None and mapping.setdefault("group", group_by) != group_by:
        raise DataError("--group-by and --map group= name different columns.", "Give one of them.")
    asks = not (yes or as_json) and _asks()
    own = None
    if name == "custom" or any((images, sheet, group_by, keep_column, drop_column)):
        approve = partial(_approve, asks=asks) if not as_json else None
        own = OwnData(images, sheet, tuple(keep_column or ()), tuple(drop_column or ()), approve)
    if name == "custom" and asks:
        licence = licence or _asked("Licence: what may images and texts be used for")
        data_origin = data_origin or _asked("Origin: where do images and texts come from")
    if download:
        if source is None:
            raise DataError("--download needs --source.", "It is the folder to download into.")
        _download(name, source, workers, allow_loopback)
    with counting(f"preparing {name}") as progress:
        prepared = prepare_dataset(
            name,
            source,
            out,
            variant=split_variant,
            seed=seed,
            overwrite=overwrite,
            drop_broken_images=drop_broken_images,
            mapping=mapping,
            dataset_name=own_name,
            own=own,
            licence=licence,
            data_origin=data_origin,
            settings=options.pairs(option or [], "--option num_images=2000"),
            progress=progress,
        )
    _show_prepared(prepared, as_json)


def _asks() -> bool:
    """Whether somebody is there to answer.

    A notebook gives its commands a terminal that nobody can type into.
    """
    return sys.stdin.isatty() and sys.stdout.isatty() and "JPY_PARENT_PID" not in os.environ


def _asked(question: str) -> str | None:
    said = typer.prompt(f"{question}? (Enter: not stated)", default="", show_default=False)
    return said.strip() or None


def _approve(columns: list["Column"], asks: bool) -> None:
    """Show what each column is taken for, and ask where somebody can answer."""
    from rich.markup import escape

    rows = [
        [escape(printable(text)) for text in (each.name, f"-> {each.meaning}", each.first)]
        for each in columns[:_MOST_COLUMNS]
    ]
    show(None, False, [table("Columns", ("column", "is", "first value"), rows, numbers=False)])
    if len(columns) > _MOST_COLUMNS:
        say(f"... and {len(columns) - _MOST_COLUMNS} more columns")
    if asks and not typer.confirm("Is that right?", default=True):
        raise DataError(
            "Nothing was made.",
            "Say what is meant with --map FIELD=COLUMN, --keep-column or --drop-column.",
        )


def _download(name: str, folder: Path, num_workers: int, allow_loopback: bool) -> None:
    from exgra_med.data.download.fetch import FetchLimits
    from exgra_med.data.download.hub import download_dataset
    from exgra_med.data.download.image_urls import download_images
    from exgra_med.data.sources import SOURCES

    source = SOURCES.find(name)
    if not source.has_image_urls:
        download_dataset(source, folder, num_workers=num_workers)
        return
    limits = FetchLimits(allow_loopback=allow_loopback)
    result = download_images(folder, reporter(), limits, num_workers)
    for line in result.lines():
        typer.echo(line, err=True)


def _show_prepared(prepared: "Prepared", as_json: bool) -> None:
    """What a verb made, and what is done with it next."""
    from exgra_med.data.inspect.describe import describe_manifest

    value = {"path": str(prepared.path), "fingerprint": prepared.fingerprint, **prepared.manifest}
    step = f"data check {prepared.path}"
    counts = prepared.manifest["counts"]
    if counts.get("train") == sum(counts.values()):
        step = f"data split {prepared.path} --out {prepared.path}-split"
    lines = [*describe_manifest(prepared), next_step(step)]
    show(value, as_json, lines)


@app.command(epilog="Example: `exgra-med data check data/vqa-rad --tokenizer checkpoints/start`")
def check(
    data: options.DataArgument,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer", metavar="MODEL", help="Checkpoint whose tokenizer counts the tokens."
        ),
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=1, help="Tokens, as `text.max_length` of the recipe.")
    ] = 2048,
    template: options.Template = "exgra",
    as_json: options.Json = False,
) -> None:
    """Read every record and decode every image. The exit code is 2 where one is faulty."""
    from exgra_med.data.inspect.check import Window, check_prepared

    prepared = _open(data)
    window = None
    if tokenizer is not None:
        from exgra_med.model.bundle import load_tokenizer

        window = Window(*load_tokenizer(tokenizer), max_length)
    with counting("checking") as progress:
        report = check_prepared(prepared, progress, window, template)
    show({"ok": not report.faults, **vars(report)}, as_json, report.lines())
    if report.faults:
        raise typer.Exit(2)


@app.command("show", epilog="Example: `exgra-med data show bundled:vqa-rad-sample 17`")
def show_record(
    data: options.DataArgument,
    record: Annotated[str, typer.Argument(metavar="RECORD", help="Row of the split, or an id.")],
    split: options.Split = "train",
    template: options.Template = "exgra",
    as_json: options.Json = False,
) -> None:
    """Show one record: picture, question, answers, and the text that is trained on."""
    from exgra_med.data.inspect.describe import describe_record, find_record
    from exgra_med.data.prepare import MAX_PIXELS

    prepared = _open(data)
    found = find_record(prepared, record, split)
    described = describe_record(prepared, found, template)
    if as_json:
        print_json(described)
        return
    if sys.stdout.isatty() and os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        for number, name in enumerate(found.images, start=1):
            if len(found.images) > 1:
                say(f"image {number} of {len(found.images)}: {name}")
            typer.echo(_half_blocks(prepared.image_folder(MAX_PIXELS).open(name, found.id)))
    text = described.pop("text")
    for key, value in described.items():
        say(f"{key}: {value}")
    say("text, what is trained on in [[ ]]:")
    say("".join(f"[[{s['text']}]]" if s["supervised"] else s["text"] for s in text))


def _half_blocks(image: "Image.Image", columns: int = 72) -> str:
    """An image for a terminal with 24-bit colour, two rows of pixels a line.

    The upper pixel colours the block, the lower one what is behind it.
    """
    from PIL import Image

    rows = max(2, round(image.height * columns / image.width / 2) * 2)
    small = image.convert("RGB").resize((columns, rows), Image.Resampling.LANCZOS)
    pixels = small.tobytes()
    lines = []
    for top in range(0, rows, 2):
        cells = []
        for column in range(columns):
            upper, lower = (
                ";".join(map(str, pixels[start : start + 3]))
                for start in (3 * (row * columns + column) for row in (top, top + 1))
            )
            cells.append(f"\x1b[38;2;{upper}m\x1b[48;2;{lower}m▀")
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


@app.command(epilog="Example: `exgra-med data stats bundled:vqa-rad-sample --out stats.html`")
def stats(
    data: options.DataArgument, out: options.OptionalOutFile = None, as_json: options.Json = False
) -> None:
    """Count records, images, words and answers. With --out, write a page of all questions.

    The page is one HTML file, with pictures, search and filters.
    """
    from exgra_med.data.inspect.statistics import statistics

    prepared = _open(data)
    if out is not None:
        from exgra_med.evaluation.report.data_page import data_page

        with counting("drawing the page") as progress:
            write_text(out, data_page(prepared, progress))
    if as_json or out is None:
        found = statistics(prepared)
        show(found, as_json, _outline(found))
    else:
        say(f"Written: {out}")


def _outline(value: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield f"{indent}{name.replace('_', ' ')}:"
            yield from _outline(inner, indent + "  ")
        else:
            yield f"{indent}{name.replace('_', ' ')}: {inner}"


_AUDIT_EXAMPLES = """
Examples:

* `exgra-med data audit data/slake`

* `exgra-med data audit data/vqa-rad hospital/scans --out twins.html`

* `exgra-med data audit train.jsonl test.jsonl --images images`
"""


@app.command(epilog=_AUDIT_EXAMPLES)
def audit(
    train: Annotated[
        str,
        typer.Argument(
            metavar="TRAIN",
            help="Prepared folder, folder of pictures, or records (.jsonl, or original's .json).",
        ),
    ],
    test: Annotated[
        str | None,
        typer.Argument(
            metavar="TEST",
            show_default=False,
            help="What is held against it. Without it, the splits of a prepared TRAIN.",
        ),
    ] = None,
    images: options.Images = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write all pairs: .csv, .json, or .html to look at them.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say what of a test is in training: pictures by bytes and look, questions and answers.

    Of two folders pictures are compared, also DICOM; of records texts, too. Pictures look alike
    where their perceptual hashes differ in at most 6 of 64 bits.
    """
    from exgra_med.data.inspect import audit as work
    from exgra_med.data.llava_format import read_any
    from exgra_med.data.lookalikes import Place, compare
    from exgra_med.data.prepare import MAX_PIXELS

    if out is not None and out.suffix.lower() not in (".csv", ".json", ".html"):
        raise DataError(f"{out}: not .csv, .json or .html.", "Name the file by one of these.")
    are_files = [Path(each).is_file() for each in (train, test) if each is not None]
    if images is not None and not all(are_files):
        raise DataError("--images is for files of records.", "Folders have their own pictures.")
    if any(are_files) and (test is None or not all(are_files)):
        raise DataError(
            f"{train if are_files[0] else test} is a file.",
            "Give two files of records, two folders, or one prepared folder.",
        )
    if out is not None and all(are_files) and images is None:
        raise DataError("--out needs pictures.", "Give their folder with --images.")
    shown: dict[str, tuple[Place, Place, list[Any]]] = {}
    with counting("comparing") as progress:
        if test is None:
            prepared = _open(train)
            place = Place.of(train, MAX_PIXELS)
            value, lines = {}, []
            for (earlier, later), each in work.audit_splits(prepared, progress).items():
                title = f"{later} against {earlier}"
                shown[title] = place, place, each.near_pairs
                value[title] = asdict(each)
                lines += [f"{title}:", *(f"  {line}" for line in each.lines(earlier, later))]
        elif all(are_files):
            if Path(train).samefile(test):
                raise DataError(f"{train} and {test} are the same file.", "Give two.")
            trained, tested = read_any(Path(train)), read_any(Path(test))
            for name, records in ((train, trained), (test, tested)):
                if not records:
                    raise DataError(f"{name}: there are no records in it.", "Is it the right file?")
            found = work.audit(trained, tested, images, progress)
            value, lines = asdict(found), found.lines()
            if images is not None:
                place = Place.of(images, MAX_PIXELS)
                shown = {f"{test} against {train}": (place, place, found.near_pairs)}
        else:
            places = Place.of(test, MAX_PIXELS), Place.of(train, MAX_PIXELS)
            compared = compare(places[1], places[0], progress)
            value, lines = asdict(compared), compared.lines()
            shown = {f"{test} against {train}": (*places, compared.twins)}
    show(value, as_json, lines)
    if out is not None:
        from exgra_med.evaluation.report.twins_page import write_twins

        write_twins(out, shown)
        remark(f"Written: {out}")


@app.command(epilog="Example: `exgra-med data answers data/vqa-rad --out candidate.json`")
def answers(data: options.DataArgument, out: options.OptionalOutFile = None) -> None:
    """List the open answers of the training split as JSON, the original's candidate.json."""
    from exgra_med.data.derive import open_answers

    value = {"0": open_answers(_open(data).records("train"))}
    if out is None:
        print_json(value)
        return
    write_text(out, json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    say(f"Written: {out} ({len(value['0'])} open answers)")


@app.command(epilog="Example: `exgra-med data subset data/rad --fraction 0.1 --out data/rad-10`")
def subset(
    data: options.DataArgument,
    out: options.Out,
    fraction: Annotated[
        float, typer.Option("--fraction", help="Share of the training split, 0 to 1.")
    ],
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Take a share of the training split. A smaller share lies inside a larger one."""
    from exgra_med.data.derive import write_subset

    _show_prepared(write_subset(_open(data), fraction, seed, out), as_json)


@app.command(epilog="Example: `exgra-med data split data/mine --test 0.2 --out data/mine-split`")
def split(
    data: options.DataArgument,
    out: options.Out,
    test: Annotated[float, typer.Option("--test", help="Share of the records, 0 to 1.")] = 0.2,
    validation: Annotated[
        float, typer.Option("--validation", help="Share of the records, 0 to 1.")
    ] = 0.1,
    group_by: Annotated[
        str | None,
        of_own(
            "--group-by",
            metavar="COLUMN",
            help="Column, such as the patient, that splits must not divide. Also a field of "
            "`meta`. The default is the group of `data prepare`.",
        ),
    ] = None,
    stratify: Annotated[
        str | None,
        typer.Option(
            "--stratify",
            metavar="FIELD",
            help="`answer_type`, or a field of `meta`: keep its shares alike in all splits.",
        ),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Split the records anew, so that no image and no group, such as a patient, is in two splits.

    Groups are those of `data prepare custom`: of its column `patient`, or of --group-by.
    """
    from exgra_med.data.derive import write_split

    made = write_split(_open(data), validation, test, seed, out, group_by, stratify)
    _show_prepared(made, as_json)


@app.command(epilog="Example: `exgra-med data resize data/rad --shortest 336 --out data/rad-336`")
def resize(
    data: options.DataArgument,
    out: options.Out,
    shortest: Annotated[
        int, typer.Option("--shortest", min=1, max=16384, help="Pixels of the short side.")
    ],
    as_json: options.Json = False,
) -> None:
    """Copy a folder with images of the model's size, so that training decodes less."""
    from exgra_med.data.derive import write_resized

    with counting("resizing") as progress:
        prepared = write_resized(_open(data), shortest, out, progress)
    _show_prepared(prepared, as_json)


@app.command(epilog="Example: `exgra-med data card data/vqa-rad --out DATA_CARD.md`")
def card(data: options.DataArgument, out: options.OutFile = Path("DATA_CARD.md")) -> None:
    """Write the data card: origin, licence, hashes, counts, what was left out."""
    from exgra_med.evaluation.cards import write_data_card

    say(f"Written: {write_data_card(data, out)}")
