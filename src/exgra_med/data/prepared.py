"""A prepared folder: `train.jsonl`, `validation.jsonl`, `test.jsonl`, `images/`, a manifest."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.json_files import decode_json, iterate_records, read_records, read_text
from exgra_med.data.record import Record
from exgra_med.errors import DataError

MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
FORMAT = 1
"""Version of the layout; a reader refuses folders of a later one."""

BUNDLED = "bundled:"
SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Prepared:
    """A prepared folder with all its files.

    Args:
        path: the folder.
        manifest: the decoded `manifest.json`.
        fingerprint: sha256 of `manifest.json`, which holds the sha256 of every other file.
    """

    path: Path
    manifest: dict[str, Any]
    fingerprint: str

    @property
    def splits(self) -> list[str]:
        """Names of the splits that the folder has, in the usual order."""
        counts = self.manifest["counts"]
        return [*(name for name in SPLITS if name in counts), *sorted(set(counts) - set(SPLITS))]

    def split_path(self, split: str) -> Path:
        """The file of a split.

        Raises:
            DataError: the folder has no such split.
        """
        path = self.path / f"{split}.jsonl"
        if split not in self.manifest["counts"] or not path.is_file():
            raise DataError(
                f"{self.path}: there is no split {split!r}.", f"It has {', '.join(self.splits)}."
            )
        return path

    def records(self, split: str) -> list[Record]:
        """All records of a split, after a check that its file is the one that was prepared.

        Raises:
            DataError: no such split, or its file was changed, cut short or is malformed.
        """
        path = self.split_path(split)
        if file_sha256(path) != self.manifest["files"].get(path.name):
            raise DataError(
                f"{path}: the file is not the one that {MANIFEST} describes.",
                "Prepare the folder again, or make your own with `exgra-med data prepare custom`.",
            )
        return read_records(path)

    def iterate(self, split: str) -> Iterator[Record]:
        """Stream the records of a split without holding them.

        Raises:
            DataError: no such split, or a line is malformed.
        """
        return iterate_records(self.split_path(split))

    def image_folder(self, max_pixels: int) -> ImageFolder:
        """The folder's images, for reading."""
        return ImageFolder(self.path / "images", max_pixels)


def open_prepared(folder: str | Path) -> Prepared:
    """Open a prepared folder, or with `bundled:NAME` a sample that comes with the package.

    Raises:
        DataError: not a prepared folder, or one in which a file is missing.
    """
    path = _bundled(str(folder)) if str(folder).startswith(BUNDLED) else Path(folder)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder.", "Make it with `exgra-med data prepare`.")
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise DataError(
            f"{path}: not a prepared folder, there is no {MANIFEST}.",
            "Make one with `exgra-med data prepare`.",
        )
    text = read_text(manifest_path)
    manifest = decode_json(text, str(manifest_path))
    check_manifest(manifest, manifest_path)
    for split in manifest["counts"]:
        if not (path / f"{split}.jsonl").is_file():
            raise DataError(f"{path}: {split}.jsonl is missing.", "Prepare the folder again.")
    if not (path / "images").is_dir():
        raise DataError(f"{path}: the folder images/ is missing.", "Prepare the folder again.")
    return Prepared(path, manifest, hashlib.sha256(text.encode("utf-8")).hexdigest())


def check_manifest(manifest: Any, where: Path) -> None:
    """Check that a decoded manifest is one this version can read.

    Raises:
        DataError: a field is missing or the layout is of a later version.
    """
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise DataError(f"{where}: not the manifest of a prepared folder.")
    if manifest["format"] > FORMAT:
        raise DataError(
            f"{where}: layout {manifest['format']} is later than {FORMAT}.",
            "Update exgra-med.",
        )
    for key in ("dataset", "counts", "files"):
        if key not in manifest:
            raise DataError(f"{where}: the field {key!r} is missing.", "Prepare the folder again.")


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _bundled(name: str) -> Path:
    sample = name.removeprefix(BUNDLED)
    names = sorted(item.name for item in SAMPLES.iterdir() if (item / MANIFEST).is_file())
    if sample not in names:
        raise DataError(f"there is no bundled sample {sample!r}.", f"Known: {', '.join(names)}.")
    return SAMPLES / sample
