"""What a data set is to `data prepare`: a name, and a function from published files to records."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from exgra_med.data.records import Record


class ImageBytes(Protocol):
    """Where a source keeps its images."""

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The image for the prepared folder: its file unchanged, or PNG; decoded once in full.

        Raises:
            DataError: the image is missing or broken.
        """
        ...

    def stored_name(self, name: str) -> str:
        """The image's name in the prepared folder, asked for once it was read.

        It differs where the format does: what is rendered ends in `.png`.
        """
        return name

    def expand(self, name: str, where: str = "") -> list[str]:
        """The images that a name stands for: itself, or those of a volume or series.

        Raises:
            DataError: it asks for slices or frames that are not there.
        """
        return [name]


@dataclass(frozen=True)
class Dropped:
    """A row that is not among the records, and why."""

    id: str
    reason: str
    """What is wrong, the same on every machine: it goes into the manifest."""
    hint: str = ""
    """How to mend it; may name a folder of this machine."""


def kind_of_reason(reason: str) -> str:
    """A reason without the name of the image, by which rows are counted together."""
    return re.sub(r"the image (['\"]).*?\1", "the image", reason)


@dataclass
class Collected:
    """What a source found.

    Args:
        splits: records of each split; may be generators, read once and in order.
        dropped: rows left out; may grow while the splits are read.
        notes: facts for the manifest that have no field of their own.
    """

    splits: Mapping[str, Iterable[Record]]
    images: ImageBytes
    files: list[Path]
    dropped: list[Dropped] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Column:
    """What a column of somebody's own table was taken for."""

    name: str
    meaning: str
    """A field of a record, or why it is left out."""
    first: str
    """The first value that is not empty, cut short; nothing where it may say who a person is."""


@dataclass(frozen=True)
class OwnData:
    """What a user says about data of their own, for `custom`.

    Args:
        images: folder of the pictures; `images/` beside the table, or the table's folder, where
            absent.
        sheet: of an Excel file; the one that holds rows where absent.
        keep: columns that are kept although they may say who a person is.
        drop: columns that are not read at all.
        approve: is told what each column was taken for, before a record is made; whatever it
            raises ends the work.
    """

    images: Path | None = None
    sheet: str | None = None
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    approve: Callable[[list[Column]], None] | None = None


@dataclass(frozen=True)
class PrepareOptions:
    """What a user asked for.

    Args:
        seed: seed of every split that is not published.
        settings: name -> value, for data that is made and not read.
        own: what a user says about data of their own.
    """

    variant: str
    seed: int
    max_pixels: int
    mapping: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    own: OwnData = field(default_factory=OwnData)


@dataclass(frozen=True)
class Source:
    """A dataset that can be prepared.

    Args:
        title: one line for `data list`.
        variants: split variants, the default first, each with one line.
        collect: reads the published files in a folder.
        hub: dataset repository for `--download`, where one is public.
        revision: commit of that repository that is downloaded; the newest where absent.
        has_image_urls: whether a list of URLs is published with it, for `--download`.
        needs_files: whether files are read; if not, data is made from settings.
    """

    name: str
    title: str
    licence: str
    variants: Mapping[str, str]
    collect: Callable[[Path, PrepareOptions], Collected]
    hub: str | None = None
    revision: str | None = None
    has_image_urls: bool = False
    needs_files: bool = True
