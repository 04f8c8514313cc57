"""A prepared folder made from another: a subset, another split, or smaller images."""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepare import MAX_PIXELS, write_prepared
from exgra_med.data.records import SPLITS, Prepared, Record, linked_images
from exgra_med.data.sources.rows import facts
from exgra_med.data.sources.source import Collected, ImageBytes
from exgra_med.data.subset import group_of, held_out_groups, nested_subset, stratum_of
from exgra_med.errors import DataError
from exgra_med.terminal import ProgressCallback

_NOTES_OF_ROWS = ("identifiers_left_out", "group_column")
"""Notes of the rows that records were made from; they hold for what is derived, too."""


@dataclass(frozen=True)
class ResizedImages(ImageBytes):
    """The images of a folder, resized once, so that no epoch decodes the full ones.

    The short side becomes `shortest_pixels` by PIL's bicubic filter and the result is stored as
    PNG: exactly the first step of CLIP's image processor, which then has nothing left to resize.
    Pixel values are therefore bit-equal to those of the full image.

    Args:
        shortest_pixels: new length of the short side; the long one keeps the proportion.
    """

    folder: ImageFolder
    shortest_pixels: int

    def stored_name(self, name: str) -> str:
        """The name in the new folder; the format is PNG now."""
        return name if name.endswith(".png") else f"{name}.png"

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The resized image as PNG.

        Raises:
            DataError: the image is missing or broken.
        """
        image = self.folder.open(name, where)
        size = resized_size(image.size, self.shortest_pixels)
        stream = io.BytesIO()
        image.resize(size, Image.Resampling.BICUBIC).save(stream, "PNG", compress_level=4)
        return stream.getvalue()


def resized_size(size: tuple[int, int], shortest_pixels: int) -> tuple[int, int]:
    """(width, height) with the given short side; the long side is rounded down, as CLIP does."""
    short = min(size)
    width, height = (
        shortest_pixels if side == short else int(shortest_pixels * side / short) for side in size
    )
    return width, height


def write_subset(prepared: Prepared, fraction: float, seed: int, out: Path) -> Prepared:
    """Write a folder with a share of `train`; the other splits stay, so scores can be compared.

    Args:
        fraction: share of the training records, in (0, 1].

    Raises:
        DataError: the fraction is out of range, or `out` holds something else.
        WriteError: the disk is full.
    """
    splits = read_splits(prepared)
    splits["train"] = nested_subset(splits["train"], fraction, seed)
    how = {"made_by": "subset", "fraction": fraction, "seed": seed}
    return write_derived(prepared, splits, how, out)


def write_split(
    prepared: Prepared,
    validation: float,
    test: float,
    seed: int,
    out: Path,
    group_by: str | None = None,
    stratify: str | None = None,
) -> Prepared:
    """Write a folder with the same records, split anew by image and group.

    Records that share an image or a group, directly or through others, go into the same split.

    Args:
        validation: share of all records for validation, 0..1.
        test: share of all records for test, 0..1.
        group_by: field of `meta`, or the column that a group was read from; `group` where absent
            and there.
        stratify: `answer_type` or a field of `meta` whose values shall have the same shares in
            every split, as far as groups allow.

    Raises:
        DataError: shares that leave nothing for a split, a record without an image or without what
            it is grouped by, or `out` holds something else.
        WriteError: the disk is full.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise DataError(f"shares of {validation} and {test} leave nothing for training.")
    records = [record for split in read_splits(prepared).values() for record in split]
    column = (prepared.manifest.get("notes") or {}).get("group_column")
    if group_by in (None, column) and any("group" in record.meta for record in records):
        group_by = "group"
    for record in records:
        if not record.images and group_by is None:
            raise DataError(
                f"{record.id}: has no image, so it has no split by image.",
                "Give --group-by with a field of its meta.",
            )
    # The names of groups and images must not meet.
    linked = linked_images(
        [*([] if group_by is None else [f"\0{group_of(record, group_by)}"]), *record.images]
        for record in records
    )
    strata: dict[str, Counter[str]] = {}
    for record, group in zip(records, linked, strict=True):
        strata.setdefault(group, Counter())[stratum_of(record, stratify)] += 1
    held = held_out_groups(strata, validation, test, seed)
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    dataset = prepared.manifest["dataset"]
    for record, group in zip(records, linked, strict=True):
        split = held.get(group, "train")
        # The old split stays in the id's middle where two splits count their rows alike.
        old = str(record.meta.get("official_split", record.meta.get("split", "")))
        published = f"{old}-" * bool(old) + record.id.rpartition("/")[2]
        moved = {"id": f"{dataset}/{split}/{published}", "meta": record.meta | {"split": split}}
        splits[split].append(record.model_copy(update=moved))
    wanted = {"train": 1.0, "validation": validation, "test": test}
    empty = [split for split, share in wanted.items() if share and not splits[split]]
    if empty:
        what = "images" if group_by is None else f"images and {group_by!r}"
        raise DataError(
            f"{prepared.path}: no record is left for {empty[0]}: {what} link the {len(records)} "
            f"records to {len(set(linked))} groups, which are not split.",
            "Give other shares, or leave out the records that link the others.",
        )
    how: dict[str, Any] = {"made_by": "split", "validation": validation, "test": test, "seed": seed}
    how |= {"group_by": group_by or "image"} | ({"stratify": stratify} if stratify else {})
    notes: dict[str, Any] = {}
    if group_by:
        notes["groups"] = {
            s: len({group_of(r, group_by) for r in each}) for s, each in splits.items()
        }
    if stratify:
        notes["strata"] = {
            split: dict(sorted(Counter(stratum_of(r, stratify) for r in each).items()))
            for split, each in splits.items()
        }
    return write_derived(prepared, splits, how, out, notes=notes)


def open_answers(records: Iterable[Record]) -> list[str]:
    """Answers of open questions, lower-cased, each once, in order: the original's candidates."""
    answers = (record.answer.lower() for record in records if record.known_type == "OPEN")
    return list(dict.fromkeys(answers))


def read_splits(prepared: Prepared) -> dict[str, Sequence[Record]]:
    """All records of every split."""
    return {split: prepared.stored(split) for split in prepared.splits}


def write_resized(
    prepared: Prepared, shortest_pixels: int, out: Path, progress: ProgressCallback | None = None
) -> Prepared:
    """Write a folder with the same records and smaller images, so that training decodes less.

    Args:
        shortest_pixels: length of the short side, the `image_size` of the model.

    Raises:
        DataError: the size is not positive, an image is broken, or `out` holds something else.
        WriteError: the disk is full.
    """
    if shortest_pixels < 1:
        raise DataError(f"a side of {shortest_pixels} pixels is too short.")
    images = ResizedImages(prepared.image_folder(MAX_PIXELS), shortest_pixels)
    how = {"made_by": "resize", "shortest_pixels": shortest_pixels}
    return write_derived(prepared, read_splits(prepared), how, out, images, progress)


def write_derived(
    prepared: Prepared,
    splits: Mapping[str, Sequence[Record]],
    how: dict[str, Any],
    out: Path,
    images: ImageBytes | None = None,
    progress: ProgressCallback | None = None,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Prepared:
    """Write a prepared folder whose manifest says which folder it was made from, and how.

    Args:
        how: facts for the manifest; at least `made_by`.
        images: of the records; those of `prepared` where absent.
        notes: further ones for the manifest.
        overwrite: replace another prepared folder at `out`.

    Raises:
        DataError: an image is broken, or `out` holds something else.
        WriteError: the disk is full.
    """
    manifest = prepared.manifest
    kept = ("dataset", "variant", "licence", "origin", "seed", "sources")
    origin = {key: manifest[key] for key in kept if key in manifest}
    origin["made_from"] = {"fingerprint": prepared.fingerprint, **how}
    images = images or prepared.image_folder(MAX_PIXELS)
    told = manifest.get("notes") or {}
    kept_notes = {key: told[key] for key in _NOTES_OF_ROWS if key in told}
    collected = Collected(splits, images, [], notes=kept_notes | facts(splits) | dict(notes or {}))
    return write_prepared(out, collected, origin, overwrite, progress=progress)
