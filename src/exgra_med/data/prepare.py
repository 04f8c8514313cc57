"""Published files -> a prepared folder, written atomically."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from exgra_med import __version__
from exgra_med.data.download.archives import is_archive, unpack
from exgra_med.data.records import (
    FORMAT,
    IMAGE_PLACEHOLDER,
    MANIFEST,
    NOT_STATED,
    Prepared,
    Record,
    file_sha256,
    open_prepared,
    write_records,
)
from exgra_med.data.sources import SOURCES
from exgra_med.data.sources.source import (
    Collected,
    Dropped,
    ImageBytes,
    OwnData,
    PrepareOptions,
    kind_of_reason,
)
from exgra_med.digests import write_document
from exgra_med.errors import DataError, ExgraMedError
from exgra_med.files import put_folder, scratch_folder
from exgra_med.reading import decode_json, stray
from exgra_med.terminal import ProgressCallback

MAX_PIXELS = 50_000_000
"""Images above this many pixels are refused; the largest of the paper's datasets has 13 million."""
OWN = ("custom", "shards")
"""Sources of data that a user has made."""
_MOST_REASONS = 5


def prepare(
    name: str,
    source: Path | None,
    out: Path,
    *,
    variant: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    drop_broken_images: bool = False,
    max_pixels: int = MAX_PIXELS,
    mapping: dict[str, str] | None = None,
    dataset_name: str | None = None,
    settings: dict[str, str] | None = None,
    own: OwnData | None = None,
    licence: str | None = None,
    data_origin: str | None = None,
    progress: ProgressCallback | None = None,
) -> Prepared:
    """Prepare a dataset from a local folder with its published files.

    Args:
        source: folder with the published files, or a zip or tar archive of it; for `custom` also
            one table; None for data that is made.
        variant: split variant; the source's first where absent.
        seed: seed of splits that are not published.
        drop_broken_images: list records with a missing or broken image as dropped, instead of
            stopping with an error.
        mapping: field of a record -> column, for `custom` and `shards`.
        dataset_name: what results call such data; the source's name where absent.
        settings: name -> value, for data that is made.
        own: what a user says about data of their own, for `custom`.
        licence: of data of somebody's own; the published one of other data sets.
        data_origin: where data of somebody's own comes from, in their words.

    Raises:
        DataError: something in the source, or `out` holds something else.
        WriteError: the disk is full.
    """
    found = SOURCES.find(name)
    variant = variant or next(iter(found.variants))
    if variant not in found.variants:
        raise DataError(
            f"{name} has no split variant {variant!r}.", f"Known: {', '.join(found.variants)}."
        )
    if dataset_name is not None:
        if name not in OWN:
            raise DataError(f"--name is for the datasets custom and shards, not for {name}.")
        if problem := stray(dataset_name, parts=1):
            raise DataError(f"--name: {dataset_name!r} {problem}.", "Give one word, such as wards.")
    if mapping and name not in OWN:
        raise DataError(f"--map is for the datasets custom and shards, not for {name}.")
    if (licence or data_origin) and name not in OWN:
        raise DataError(
            f"--licence and --origin are for the datasets custom and shards, not for {name}."
        )
    if own and name != "custom":
        raise DataError(
            "--images, --sheet, --group-by, --keep-column and --drop-column are for the dataset "
            f"custom, not for {name}."
        )
    if found.needs_files:
        if settings:
            raise DataError(f"--option is for data that is made, not for {found.name}.")
        if source is None:
            raise DataError(f"{found.name} needs --source.", "Give the folder with its files.")
    elif source is not None:
        raise DataError(f"{found.name} reads no files, it is made.", "Leave out --source.")
    # Some folder that is there; nothing is read from it where data is made.
    source = source or Path()
    with ExitStack() as unpacked:
        if is_archive(source):
            folder = unpacked.enter_context(scratch_folder(out)) / "unpacked"
            unpack(source, folder)
            source = _only_folder(folder)
        if not (source.is_dir() or (source.is_file() and name == "custom")):
            what, hint = "folder", f"Give the folder with the files of {name}."
            if name == "custom":
                what, hint = "table or folder", "Give the table with your questions, or its folder."
            raise DataError(f"{source}: {'not a' if source.exists() else 'no such'} {what}.", hint)
        options = PrepareOptions(
            variant, seed, max_pixels, mapping or {}, settings or {}, own or OwnData()
        )
        collected = found.collect(source, options)
        folder = source if source.is_dir() else source.parent
        origin = {
            "dataset": dataset_name or name,
            "variant": variant,
            "licence": licence or found.licence,
            **({"origin": data_origin or NOT_STATED} if name in OWN else {}),
            "seed": seed,
            "sources": {
                path.relative_to(folder).as_posix(): {
                    "sha256": file_sha256(path),
                    "bytes": path.stat().st_size,
                }
                for path in sorted(collected.files)
            },
        }
        return write_prepared(out, collected, origin, overwrite, drop_broken_images, progress)


def _only_folder(folder: Path) -> Path:
    """The folder itself, or the one folder in it, as archives are usually packed."""
    inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def write_prepared(
    out: Path,
    collected: Collected,
    origin: Mapping[str, Any],
    overwrite: bool = False,
    drop_broken_images: bool = False,
    progress: ProgressCallback | None = None,
) -> Prepared:
    """Write records and images as a prepared folder, atomically.

    Preparing the same again finds an equal folder and leaves it as it is.

    Args:
        origin: manifest fields that say where the records come from; at least `dataset`.

    Raises:
        DataError: `out` holds something else, an image is broken, or no record is left.
        WriteError: the disk is full.
    """
    out = Path(out)
    _refuse_other_content(out)
    with scratch_folder(out) as temporary:
        (temporary / "images").mkdir()
        manifest = _write_content(temporary, collected, origin, drop_broken_images, progress)
        # Sorted, so that the same again is the same file.
        text = json.dumps(manifest, sort_keys=True)
        write_document(temporary / MANIFEST, decode_json(text, MANIFEST))
        _put_in_place(temporary, out, overwrite)
    return open_prepared(out)


def _refuse_other_content(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise DataError(f"{out}: not a folder.", "Choose another folder for --out.")
    if out.is_dir() and any(out.iterdir()):
        try:
            open_prepared(out)
        except DataError as error:
            raise DataError(
                f"{out}: the folder is not empty and not a prepared folder.",
                "Choose another folder for --out; nothing was changed.",
            ) from error


def _put_in_place(temporary: Path, out: Path, overwrite: bool) -> None:
    """Make the new folder the one that readers see, unless the old one is equal or must stay."""
    if out.exists() and any(out.iterdir()):
        old = open_prepared(out)
        files = old.manifest["files"]
        if (
            old.fingerprint == file_sha256(temporary / MANIFEST)
            and all(file_sha256(old.path / name) == sha for name, sha in files.items())
            and old.manifest["images"] == image_digest(old.path / "images")
        ):
            return
        if not overwrite:
            raise DataError(
                f"{out}: holds another prepared folder "
                f"({old.manifest['dataset']}, or changed since).",
                "Choose another folder, or give --overwrite.",
            )
    put_folder(temporary, out)


def _write_content(
    folder: Path,
    collected: Collected,
    origin: Mapping[str, Any],
    drop_broken_images: bool,
    progress: ProgressCallback | None,
) -> dict[str, Any]:
    store = _ImageStore(folder / "images", collected.images, progress)
    counts: dict[str, int] = {}
    types: dict[str, Counter[str]] = {}
    for split, records in collected.splits.items():
        kept = store.keep(records, types.setdefault(split, Counter()))
        counts[split] = write_records(folder / f"{split}.jsonl", kept)
    dropped = collected.dropped + store.broken
    if store.broken and not drop_broken_images:
        count = len(store.broken)
        raise DataError(
            f"{f'{count} records have' if count > 1 else '1 record has'} an image that cannot be "
            "used:"
            f"{''.join(_by_reason(store.broken))}",
            "Mend the files, or give --drop-broken-images to leave these records out.",
        )
    if not sum(counts.values()):
        reasons = Counter(kind_of_reason(item.reason).rstrip(".") for item in dropped)
        listed = "; ".join(f"{count} dropped: {reason}" for reason, count in reasons.most_common())
        hint = "Is this the right folder for --source?"
        if store.broken:
            hint = f"The first image that cannot be used: {_first(store.broken[0])}"
        elif dropped:
            hint = "Are these the right columns? Others are named with --map."
        raise DataError(f"No record is left ({listed})." if listed else "No record is left.", hint)
    return {
        **origin,
        "format": FORMAT,
        "code_version": __version__,
        "counts": counts,
        "counts_by_type": types,
        "dropped": [{"id": item.id, "reason": item.reason} for item in dropped],
        "files": {f"{split}.jsonl": file_sha256(folder / f"{split}.jsonl") for split in counts},
        "images": image_digest(folder / "images"),
        "notes": collected.notes,
    }


def _first(item: Dropped) -> str:
    return f"{item.reason} {item.hint}".rstrip()


def _by_reason(broken: list[Dropped]) -> Iterator[str]:
    """For each kind of fault: the first record of it, how many more, and the way out."""
    kinds: dict[str, list[Dropped]] = {}
    for item in broken:
        kinds.setdefault(kind_of_reason(item.reason), []).append(item)
    for number, items in enumerate(list(kinds.values())[:_MOST_REASONS], start=1):
        first = items[0]
        more = f" and {len(items) - 1} more" if len(items) > 1 else ""
        yield f" ({number}) {first.id}{more}: {first.reason} {first.hint}".rstrip()
    if len(kinds) > _MOST_REASONS:
        yield f" ... and {len(kinds) - _MOST_REASONS} other faults."


class _ImageStore:
    """Copies each image once, with the first record that shows it."""

    def __init__(self, folder: Path, images: ImageBytes, progress: ProgressCallback | None) -> None:
        self.folder = folder
        self.images = images
        self.progress = progress
        self.stored: dict[str, str] = {}
        """Name -> name in the prepared folder."""
        self.refused: dict[str, ExgraMedError] = {}
        """Name -> why it was not copied."""
        self.expanded: dict[str, list[str]] = {}
        """Name of a volume or series -> names of its images."""
        self.broken: list[Dropped] = []

    def keep(self, records: Iterable[Record], tally: Counter[str]) -> Iterator[Record]:
        """Yield the records whose images were copied; the others are listed in `broken`."""
        for record in records:
            try:
                record = self._expanded(record)
            except ExgraMedError as error:
                self.broken.append(Dropped(record.id, error.message, error.hint))
                continue
            faults = [fault for name in record.images if (fault := self._copy(name))]
            if faults:
                self.broken.append(Dropped(record.id, faults[0].message, faults[0].hint))
                continue
            tally[record.answer_type or "none"] += 1
            names = [self.stored[name] for name in record.images]
            if names != record.images:
                image = names[0] if isinstance(record.image, str) else names
                record = record.model_copy(update={"image": image})
            yield record

    def _expanded(self, record: Record) -> Record:
        """A record whose volumes and series are the images that their names ask for.

        Where a placeholder stands for a volume, as many stand there now as it has images.
        """
        if not any("#" in each for each in record.images):
            return record
        for name in record.images:
            if name not in self.expanded:
                self.expanded[name] = self.images.expand(name)
        groups = [self.expanded[name] for name in record.images]
        names = [name for group in groups for name in group]
        sizes = iter([len(group) for group in groups])

        def widened(text: str) -> str:
            return re.sub(IMAGE_PLACEHOLDER, lambda _: IMAGE_PLACEHOLDER * next(sizes), text)

        turns = [
            turn.model_copy(update={"text": widened(turn.text)}) if turn.role == "user" else turn
            for turn in record.turns
        ]
        image = names[0] if isinstance(record.image, str) and len(names) == 1 else names
        return record.model_copy(update={"image": image, "turns": turns})

    def _copy(self, name: str) -> ExgraMedError | None:
        """Copy an image; returns why not, or nothing."""
        if name not in self.stored and name not in self.refused:
            try:
                content = self.images.read_bytes(name)
                stored = self.images.stored_name(name)
                if (self.folder / stored).exists():
                    raise DataError(f"the image {name!r} and another would both be {stored!r}.")
            except ExgraMedError as error:
                self.refused[name] = error
            else:
                self.stored[name] = stored
                path = self.folder / stored
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if self.progress:
                self.progress("pictures", len(self.stored) + len(self.refused), None)
        return self.refused.get(name)


def image_digest(folder: Path) -> dict[str, Any]:
    """How many images there are, and one sha256 over their names and contents."""
    paths = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    digest = hashlib.sha256()
    for name in sorted(paths):
        digest.update(f"{file_sha256(paths[name])}  {name}\n".encode())
    return {"count": len(paths), "sha256": digest.hexdigest()}
