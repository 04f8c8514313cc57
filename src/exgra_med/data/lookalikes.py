"""Pictures that look alike: one hash a picture, and which pictures of two folders have a twin.

A twin is a picture with the same bytes, or one whose perceptual hash differs in at most
`NEAR_BITS` of 64 bits. Such pictures are copies, other sizes of one picture and neighbouring slices
of one patient; at 5 and 6 bits also the same region of another patient. A person has to look.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import BUNDLED, MANIFEST, SPLITS, file_sha256, open_prepared
from exgra_med.errors import DataError, ExgraMedError
from exgra_med.terminal import ProgressCallback

NEAR_BITS = 6
"""Perceptual hashes that differ in at most so many of 64 bits count as twins."""

_SIDE = 32
_KEPT = 8
_LISTINGS = ("Thumbs.db", "desktop.ini", "DICOMDIR")
"""Files that systems leave beside pictures, and none of the pictures."""


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay nearly equal under scaling, compression and slight changes of contrast.

    The signs of the 8 x 8 lowest frequencies of a 32 x 32 grey version against their median
    (the "pHash" of Zauner 2010).
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.float64)
    frequencies = dctn(pixels)[:_KEPT, :_KEPT].ravel()
    bits = frequencies > np.median(frequencies[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(
    left: Sequence[int], right: Sequence[int], bits: int = NEAR_BITS
) -> list[tuple[int, int]]:
    """(row of left, row of right) of hashes that differ in at most `bits` bits, in order."""
    if not left or not right:
        return []
    wanted = np.array(right, dtype=np.uint64)
    pairs = []
    for row, value in enumerate(left):
        distance = np.bitwise_count(wanted ^ np.uint64(value))
        pairs += [(row, int(column)) for column in np.flatnonzero(distance <= bits)]
    return pairs


@dataclass(frozen=True, slots=True)
class Twin:
    """A picture and another one that looks like it."""

    picture: str
    twin: str
    bits: int
    """How many of the 64 bits of their hashes differ."""
    same_bytes: bool
    """Whether they are one file."""


@dataclass
class Looks:
    """What the pictures of one place look like.

    Args:
        hashes: picture -> its perceptual hash.
        files: picture -> sha256 of its file.
        not_read: file that is no picture, or cannot be read as one -> why.
    """

    hashes: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    not_read: dict[str, ExgraMedError] = field(default_factory=dict)

    def only(self, names: Collection[str]) -> "Looks":
        """The looks of some of the pictures."""
        return Looks(
            {name: self.hashes[name] for name in sorted(names)},
            {name: self.files[name] for name in sorted(names)},
        )


def read_looks(
    folder: ImageFolder, names: Iterable[str], progress: ProgressCallback | None = None
) -> Looks:
    """Read every picture once; what cannot be read is listed, and the others are still read."""
    names = sorted(names)
    looks = Looks()
    for done, name in enumerate(names, start=1):
        try:
            looks.hashes[name] = perceptual_hash(folder.open(name))
            looks.files[name] = file_sha256(folder.locate(name))
        except ExgraMedError as error:
            looks.not_read[name] = error
        if progress:
            progress("pictures", done, len(names))
    return looks


def twins(left: Looks, right: Looks) -> list[Twin]:
    """The pictures of `left` with those of `right` that look like them, the nearest first."""
    names, others = list(left.hashes), list(right.hashes)
    found = [
        Twin(
            names[row],
            others[column],
            (left.hashes[names[row]] ^ right.hashes[others[column]]).bit_count(),
            left.files[names[row]] == right.files[others[column]],
        )
        for row, column in near_pairs(list(left.hashes.values()), list(right.hashes.values()))
    ]
    return sorted(found, key=lambda each: (each.picture, each.bits, each.twin))


def how_near(found: Iterable[Twin]) -> str:
    """What the threshold is, and how many pictures have a twin within how many bits."""
    nearest: dict[str, int] = {}
    for each in found:
        nearest[each.picture] = min(each.bits, nearest.get(each.picture, each.bits))
    if not nearest:
        return f"no perceptual hashes differ in at most {NEAR_BITS} of 64 bits"
    steps = range(0, NEAR_BITS + 1, 2)
    said = [f"{sum(bits <= step for bits in nearest.values())} at {step}" for step in steps]
    return (
        f"perceptual hashes differ in at most {NEAR_BITS} of 64 bits: {', '.join(said)}; above 4 "
        "some show the same region of another patient"
    )


def with_a_twin(
    folder: ImageFolder, tested: Iterable[str], trained: Iterable[str]
) -> dict[str, str]:
    """Test picture -> the training picture that looks most like it, where one does.

    What cannot be read is in neither; whoever copies the pictures says so.
    """
    nearest: dict[str, str] = {}
    for each in twins(read_looks(folder, tested), read_looks(folder, trained)):
        nearest.setdefault(each.picture, each.twin)
    return nearest


@dataclass(frozen=True)
class Place:
    """Where pictures are: a plain folder of them, or a prepared folder."""

    title: str
    folder: ImageFolder
    names: list[str]

    @classmethod
    def of(cls, path: str | Path, max_pixels: int) -> "Place":
        """The pictures of a prepared folder (or `bundled:NAME`), or every file below another one.

        Raises:
            DataError: there is no such folder, or nothing in it.
        """
        root = Path(path)
        # Other tools call files so, too. One without its images is refused as what it is.
        own = ("images", *(f"{split}.jsonl" for split in SPLITS))
        is_prepared = (root / MANIFEST).is_file() and any((root / name).exists() for name in own)
        if is_prepared or str(path).startswith(BUNDLED):
            prepared = open_prepared(path)
            folder = prepared.image_folder(max_pixels)
        elif root.is_dir():
            folder = ImageFolder(root, max_pixels)
        else:
            raise DataError(
                f"{path}: no such folder.", "Give a prepared folder, or a folder of pictures."
            )
        # A link to a folder is not followed: it is among the names, so that it is said.
        names = sorted(
            file.relative_to(folder.root).as_posix()
            for file in folder.root.rglob("*")
            if (file.is_file() or file.is_symlink())
            and not file.name.startswith(".")
            and file.name not in _LISTINGS
        )
        if not names:
            raise DataError(f"{folder.root}: there are no files in it.", "Is it the right folder?")
        return cls(str(path), folder, names)


@dataclass
class Comparison:
    """Which pictures of a test have a twin in training; counts are of pictures.

    Args:
        twins: all pairs, the nearest of each test picture first.
        not_read: file -> why, of each of the two places, by its title.
    """

    train: str
    test: str
    train_pictures: int
    test_pictures: int
    test_with_twin: int
    test_with_same_bytes: int
    train_with_twin: int
    twins: list[Twin]
    not_read: Mapping[str, Mapping[str, str]]

    def lines(self) -> list[str]:
        """The comparison for a person."""
        lines = [
            f"{self.test_with_twin} of {self.test_pictures} pictures of {self.test} have a twin "
            f"in {self.train}; {self.train_with_twin} of {self.train_pictures} the other way",
            f"by bytes: {self.test_with_same_bytes} are the same file",
            f"by look: {how_near(self.twins)}",
        ]
        for title, files in self.not_read.items():
            if files:
                first = next(iter(files.values()))
                lines.append(
                    f"not compared: {len(files)} of the files of {title}, see --json; the first: "
                    f"{first}"
                )
        return lines


def compare(train: Place, test: Place, progress: ProgressCallback | None = None) -> Comparison:
    """Compare every picture of one place with every one of another.

    Raises:
        DataError: both are one folder, or no picture of one can be read; names the first fault.
    """
    if train.folder.root.resolve() == test.folder.root.resolve():
        raise DataError(
            f"{train.title} and {test.title} are the same folder.",
            "Give two; for the splits of a prepared folder give that folder alone.",
        )
    looks = {}
    for place in (train, test):
        looks[place.title] = found = read_looks(place.folder, place.names, progress)
        if not found.hashes:
            why = next(iter(found.not_read.values()))
            raise DataError(f"{place.title}: none of its files can be read as a picture.", str(why))
    return compared(train.title, looks[train.title], test.title, looks[test.title])


def compared(train: str, trained: Looks, test: str, tested: Looks) -> Comparison:
    """The comparison of pictures that were read, under the titles of their places."""
    pairs = twins(tested, trained)
    return Comparison(
        train=train,
        test=test,
        train_pictures=len(trained.hashes),
        test_pictures=len(tested.hashes),
        test_with_twin=len({each.picture for each in pairs}),
        test_with_same_bytes=len({each.picture for each in pairs if each.same_bytes}),
        train_with_twin=len({each.twin for each in pairs}),
        twins=pairs,
        not_read={
            title: {name: str(why) for name, why in looks.not_read.items()}
            for title, looks in ((train, trained), (test, tested))
        },
    )
