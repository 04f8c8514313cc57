"""The one record of the project: image(s) or none, turns of a conversation, extended answers.

Every dataset and every stage reads and writes this. On disk a record is one JSON object a line:

    {"id": "vqa-rad/test/31", "image": "synpic54610.jpg",
     "turns": [{"role": "user", "text": "..."}, {"role": "assistant", "text": "..."}],
     "extended": ["..."], "answer_type": "CLOSED", "meta": {"organ": "HEAD", "split": "test"}}
"""

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from exgra_med.data.images import ImageFolder
from exgra_med.data.on_demand import OnDemand, SetAside
from exgra_med.digests import (
    DIGEST,
    iterate_checked,
    read_document,
    with_digests,
    without_digest,
)
from exgra_med.errors import DamagedFileError, DataError
from exgra_med.files import is_file, is_folder, new_file
from exgra_med.reading import decode_json, inside, read_json, short, stray
from exgra_med.terminal import ProgressCallback

_HEAD = '{"id": "'
_DECODER = json.JSONDecoder()

IMAGE_PLACEHOLDER = "<image>"
"""Where an image stands in a question; a record without any has its images in the usual place."""

REPORT = "report"
"""What `meta.task` says of a record whose answer is a report of its images."""

AnswerType = Literal["OPEN", "CLOSED"]
_YES_NO = frozenset(("yes", "no", "是", "不是"))


def type_by_answer(answer: str) -> AnswerType:
    """The type of a question that states none: CLOSED for yes or no, OPEN for any other answer.

    Preparing, checking, auditing and scoring all ask this function.

    >>> type_by_answer("Yes."), type_by_answer("yes, on the left")
    ('CLOSED', 'OPEN')
    """
    said = answer.strip().rstrip(".!。").rstrip().casefold()
    return "CLOSED" if said in _YES_NO else "OPEN"


GUESSED = "state no answer type; yes and no count as CLOSED, every other answer as OPEN"
"""What is said of records for which `type_by_answer` decides, behind their number."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Turn(_Frozen):
    """One message. A user's may hold `<image>`, see `Record`."""

    role: Literal["user", "assistant"]
    text: str = Field(min_length=1)


class Record(_Frozen):
    """One training or test item.

    Turns alternate and begin with the user; the last one is the assistant's answer. `extended`,
    where present, has one longer answer for each assistant turn.

    Questions may say with `<image>` where the images stand: then there are as many `<image>` in all
    questions as images, and they are the images in this order. Without any, all images belong to
    the first question. Answers never hold `<image>`.
    """

    id: str = Field(min_length=1)
    image: str | list[str] | None = None
    turns: list[Turn] = Field(min_length=2)
    extended: list[str] | None = None
    answer_type: AnswerType | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _turns_alternate(self) -> "Record":
        for position, turn in enumerate(self.turns):
            expected = ("user", "assistant")[position % 2]
            if turn.role != expected:
                raise ValueError(f"turn {position} must be by the {expected}, not the {turn.role}")
        if len(self.turns) % 2:
            raise ValueError("the last turn must be by the assistant")
        if self.extended is not None and len(self.extended) != len(self.answers):
            raise ValueError(
                f"{len(self.extended)} extended answers for {len(self.answers)} assistant turns"
            )
        return self

    @model_validator(mode="after")
    def _images_have_places(self) -> "Record":
        problem = unplaced([turn.text for turn in self.turns[::2]], len(self.images))
        if problem:
            raise ValueError(problem)
        if any(IMAGE_PLACEHOLDER in text for text in (*self.answers, *(self.extended or []))):
            raise ValueError(f"an answer holds {IMAGE_PLACEHOLDER}, which only a question may")
        options = self.meta.get("options")
        if isinstance(options, list) and any(IMAGE_PLACEHOLDER in str(each) for each in options):
            raise ValueError(
                f"an option holds {IMAGE_PLACEHOLDER}; name the options in the question instead"
            )
        return self

    @property
    def images(self) -> list[str]:
        """The image paths, relative to the image folder: none, one or several."""
        if self.image is None:
            return []
        return [self.image] if isinstance(self.image, str) else list(self.image)

    @property
    def places_images(self) -> bool:
        """Whether the questions say where the images stand."""
        return any(IMAGE_PLACEHOLDER in turn.text for turn in self.turns[::2])

    @property
    def question_images(self) -> list[str]:
        """The images of the first question: all of them, unless others stand in later questions."""
        if not self.places_images:
            return self.images
        return self.images[: self.question.count(IMAGE_PLACEHOLDER)]

    @property
    def image_group(self) -> str:
        """A name for what is shown, whatever the order; the id of a record without an image.

        Two records of one group cannot be told apart by the mean of their images.
        """
        return "\n".join(sorted(set(self.images))) or self.id

    @property
    def question(self) -> str:
        """The text of the first user turn."""
        return self.turns[0].text

    @property
    def answers(self) -> list[str]:
        """The text of every assistant turn, in order."""
        return [turn.text for turn in self.turns if turn.role == "assistant"]

    @property
    def answer(self) -> str:
        """The text of the first assistant turn: the reference answer of a VQA record."""
        return self.turns[1].text

    @property
    def known_type(self) -> AnswerType:
        """Whether the first question is OPEN or CLOSED: as stated, else by its answer."""
        return self.answer_type or type_by_answer(self.answer)

    @property
    def is_report(self) -> bool:
        """Whether its answer is a report: long, and the reference for another one."""
        return self.meta.get("task") == REPORT

    def first_exchange(self) -> "Record":
        """The first question with its images, and its answer; `extended` is left out."""
        first = {"turns": self.turns[:2], "image": self.question_images, "extended": None}
        return self.model_copy(update=first)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this record; absent fields are left out."""
        return self.model_dump(exclude_none=True)


def unplaced(questions: Iterable[str], num_images: int) -> str:
    """Why the placeholders of a conversation do not fit its images; empty where they do."""
    places = sum(text.count(IMAGE_PLACEHOLDER) for text in questions)
    if places in (0, num_images):
        return ""
    times = f"{places} time{'s' * (places != 1)}"
    number = f"{num_images} image{'s' * (num_images != 1)}"
    return (
        f"the questions hold {IMAGE_PLACEHOLDER} {times} for {number}; give one for each image, or "
        "none at all"
    )


def linked_images(groups: Iterable[Sequence[str]]) -> list[str]:
    """For each group of images one of them, the same for groups that share one, directly or not.

    What is drawn, or split, by image must keep such groups together.

    >>> linked_images([["before", "after"], ["other"], ["later", "after"]])
    ['later', 'other', 'later']
    """
    groups = list(groups)
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while (parent := parents.setdefault(name, name)) != name:
            parents[name] = name = parents[parent]
        return name

    for first, *others in groups:
        for other in others:
            parents[root(other)] = root(first)
    return [root(group[0]) for group in groups]


def numbered_images(text: str, first: int = 1) -> str:
    """A question for readers and models that get words alone: `<image>` -> `[image 1]` and so on.

    >>> numbered_images("Is <image> older than <image>?")
    'Is [image 1] older than [image 2]?'
    """
    head, *rest = text.split(IMAGE_PLACEHOLDER)
    return head + "".join(f"[image {first + n}]{part}" for n, part in enumerate(rest))


def parse_record(value: Any, where: str) -> Record:
    """Check one JSON value and return it as a record.

    Raises:
        DataError: a field is missing, unknown or of the wrong type.
    """
    try:
        return Record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"]) or "record"
        name = value.get("id") if isinstance(value, dict) else None
        raise DataError(
            f"{where}: record {name!r}: {path}: {first['msg'].removeprefix('Value error, ')}.",
            "See docs/reference/record-format.md for the fields of a record.",
        ) from error


# Strict reading of JSON files, and records on disk: one JSON object a line, UTF-8, unique ids.


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """Decode a JSON file that must hold a list of objects; outer blanks of keys are stripped.

    Raises:
        DataError: the file holds something else.
    """
    value = read_json(path)
    if not isinstance(value, list):
        raise DataError(f"{path}: expected a JSON list, found {type(value).__name__}.")
    for number, row in enumerate(value):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is a {type(row).__name__}, not an object.")
    return [{key.strip(): item for key, item in row.items()} for row in value]


class Met:
    """What was met before: 16 to 32 bytes a value, as 64-bit hashes in an open table.

    Of a million values, two are taken for one with a chance of 3 in 100 million.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, value: Hashable) -> bool:
        """Note a value; says whether it is new."""
        key = self._key(value)
        place = self._place(key)
        if self._slots[place]:
            return False
        self._slots[place] = key
        self._count += 1
        if 2 * self._count > len(self._slots):
            before, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
            for each in before:
                if each:
                    self._slots[self._place(each)] = each
        return True

    def __contains__(self, value: object) -> bool:
        return bool(self._slots[self._place(self._key(value))])

    @staticmethod
    def _key(value: object) -> int:
        """The hash of a value as it is kept: 0 marks a free slot, and Python has no hash of -1."""
        return hash(value) % 2**64 or 2**64 - 1

    def _place(self, key: int) -> int:
        """Where a hash is, or could be put."""
        slots, last = self._slots, len(self._slots) - 1
        place = key & last
        while slots[place] and slots[place] != key:
            place = (place + 1) & last
        return place


def iterate_records(
    path: Path,
    limit: int | None = None,
    skip: Callable[[str], bool] = lambda name: False,
    starts: "array[int] | None" = None,
) -> Iterator[Record]:
    """Yield the records of a file one by one; of their ids a hash stays in memory.

    Args:
        limit: take only the first so many lines.
        skip: ids to pass over; their records are not even decoded.
        starts: is told at which byte of the file each line begins.

    Raises:
        DataError: a line is not a record, or an id comes twice; the message names file and line.
    """
    met = Met()
    for where, text in islice(iterate_lines(path, starts), limit):
        name = leading_id(text)
        record = None
        if name is None or not skip(name):
            record = parse_record(decode_json(text, where), where)
            name = record.id
        if not met.add(name):
            raise DataError(f"{where}: the id {name!r} comes twice.", "Ids must be unique.")
        if record is not None and not skip(name):
            yield record


def leading_id(line: str) -> str | None:
    """The id of a JSON line that begins with it, as ours do; None for other lines."""
    if not line.startswith(_HEAD):
        return None
    try:
        return _DECODER.raw_decode(line, len(_HEAD) - 1)[0]
    except ValueError:
        return None


def iterate_lines(path: Path, starts: "array[int] | None" = None) -> Iterator[tuple[str, str]]:
    """Yield (`FILE:LINE`, text) of each line that is not blank, without its SHA-256.

    `starts` is told at which byte of the file each of them begins.

    Raises:
        DataError: the file is absent, cannot be read, or is not UTF-8.
        DamagedFileError: its lines have digests, and one is not what was written.
    """
    number = begin = end = 0

    def measured(stream: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal begin, end
        for line in stream:
            begin, end = end, end + len(line)
            yield line

    try:
        with path.open("rb") as stream:
            lines = iterate_checked(measured(stream), path, _MAKE_AGAIN)
            for number, raw in enumerate(lines, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    if starts is not None:
                        starts.append(begin)
                    yield f"{path}:{number}", text
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8 text.", "Save the file as UTF-8.") from error


def iterate_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`FILE:LINE`, row) of each line that is not blank, whatever its keys.

    Raises:
        DataError: see `iterate_lines`, or a line is no JSON object.
    """
    for where, text in iterate_lines(path):
        row = decode_json(text, where)
        if not isinstance(row, dict):
            raise DataError(f"{where}: not an object.")
        yield where, row


def read_records(path: Path) -> list[Record]:
    """All records of a file, in order.

    Raises:
        DataError: a line is not a record, or an id comes twice.
    """
    return list(iterate_records(path))


def image_names(records: Iterable[Record]) -> set[str]:
    """The images of some records, each once."""
    return {name for record in records for name in record.images}


class StoredRecords(OnDemand[Record]):
    """The records of a file, each read again when it is asked for: 8 bytes a record in memory.

    All of them are read once at first, so that a later one cannot fail while nobody changes the
    file. A file that takes the name of this one afterwards is not read.

    Args:
        path: the file.
        progress: is told how many records were read.
        total: how many there should be, for `progress`.

    Raises:
        DataError: a line is not a record, or an id comes twice.
        DamagedFileError: its lines have digests, and one is not what was written.
    """

    def __init__(
        self, path: Path, progress: ProgressCallback | None = None, total: int | None = None
    ) -> None:
        self.path, self._starts = path, array("q")
        for number, _ in enumerate(iterate_records(path, starts=self._starts), start=1):
            if progress and not number % _RECORDS_BETWEEN_WORDS:
                progress("records", number, total)
        self._stream: IO[bytes] = path.open("rb")
        self._starts.append(os.fstat(self._stream.fileno()).st_size)

    def __getstate__(self) -> "tuple[Path, array[int]]":
        # What a process that reads ahead gets where it is started anew.
        return self.path, self._starts

    def __setstate__(self, state: "tuple[Path, array[int]]") -> None:
        self.path, self._starts = state
        try:
            self._stream = self.path.open("rb")
        except OSError as error:
            raise self._changed() from error
        if os.fstat(self._stream.fileno()).st_size != self._starts[-1]:
            raise self._changed()

    def _changed(self) -> DamagedFileError:
        return DamagedFileError(
            f"{self.path} was changed or removed while its records were in use.",
            "Leave it as it is until the work is done, then start the same command again.",
        )

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _at(self, row: int) -> Record:
        begin, end = self._starts[row], self._starts[row + 1]
        raw = _read_at(self._stream, end - begin, begin).partition(b"\n")[0]
        if _HAS_DIGEST in raw[-64:]:
            raw = without_digest(raw)
        try:
            return Record.model_validate_json(raw.removeprefix(b"\xef\xbb\xbf") if not row else raw)
        except ValidationError as error:
            # It was read before with every check.
            raise self._changed() from error


class RecordsAside(SetAside[Record]):
    """Records that are not to stay in memory, and have no file yet."""

    @staticmethod
    def _value(item: Record) -> Any:
        return item.model_dump()

    @staticmethod
    def _item(value: Any) -> Record:
        return Record.model_validate(value)


def _read_at(stream: IO[bytes], size: int, place: int) -> bytes:
    """Bytes at a place, wherever the stream stands: processes that read ahead share that."""
    if hasattr(os, "pread"):
        return os.pread(stream.fileno(), size, place)
    stream.seek(place)  # Windows, where no process begins as a copy of another
    return stream.read(size)


_RECORDS_BETWEEN_WORDS = 1000
_HAS_DIGEST = f', "{DIGEST}": "'.encode()

_MAKE_AGAIN = (
    f"Make the file again; if it was changed on purpose, delete `{DIGEST}` from its lines."
)


def write_records(path: Path, records: Iterable[Record], stands_alone: bool = False) -> int:
    """Write records atomically and return how many there were.

    Args:
        stands_alone: no manifest has the SHA-256 of the file, so its lines have it.

    Raises:
        WriteError: the disk is full or the folder cannot be written; `path` is as it was before.
        DataError: an id comes twice.
    """
    met = Met()
    before = hashlib.sha256()
    with new_file(path) as stream:
        for record in records:
            if not met.add(record.id):
                raise DataError(f"{path}: the id {record.id!r} comes twice.")
            value = record.to_json()
            stream.write(with_digests([value], before) if stands_alone else json_line(value))
    return len(met)


def json_line(value: Any) -> bytes:
    """The bytes of one value in a JSON Lines file, its line end included."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n"


# A prepared folder: `train.jsonl`, `validation.jsonl`, `test.jsonl`, `images/`, a manifest.


MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
FORMAT = 1
"""Version of the layout; a reader refuses folders of a later one."""

_AGAIN = "Delete the folder and prepare it again."

NOT_STATED = "not stated"
"""What a manifest says of a licence or origin that nobody named."""

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
        """The file of a split, which is the one that was prepared.

        Raises:
            DataError: the folder has no such split.
            DamagedFileError: its file was changed.
        """
        path = self.path / f"{split}.jsonl"
        if split not in self.manifest["counts"]:
            raise DataError(
                f"{self.path}: there is no split {split!r}.", f"It has {', '.join(self.splits)}."
            )
        try:
            found = file_sha256(path)
        except OSError as error:
            raise DamagedFileError(f"{path} cannot be read ({error.strerror}).", _AGAIN) from error
        if found != self.manifest["files"].get(path.name):
            raise DamagedFileError(
                f"{path} is not the file that {MANIFEST} describes: its SHA-256 differs.",
                f"{_AGAIN} If it was changed on purpose, say so in {MANIFEST}: under `files` it is "
                f"{found}, and `{DIGEST}` is deleted.",
            )
        return path

    def records(self, split: str) -> list[Record]:
        """All records of a split.

        Raises:
            DataError: no such split, or a line is malformed.
            DamagedFileError: its file was changed.
        """
        return list(self.iterate(split))

    def stored(self, split: str, progress: ProgressCallback | None = None) -> StoredRecords:
        """All records of a split, which stay on disk until they are asked for.

        Raises:
            DataError: no such split, or a line is malformed.
            DamagedFileError: its file was changed.
        """
        return StoredRecords(self.split_path(split), progress, self.manifest["counts"][split])

    def iterate(self, split: str) -> Iterator[Record]:
        """Stream the records of a split without holding them.

        Raises:
            DataError: no such split, or a line is malformed.
            DamagedFileError: its file was changed.
        """
        return iterate_records(self.split_path(split))

    def image_folder(self, max_pixels: int) -> ImageFolder:
        """The folder's images, for reading."""
        return ImageFolder(self.path / "images", max_pixels, within=self.path)


def open_prepared(folder: str | Path) -> Prepared:
    """Open a prepared folder, or with `bundled:NAME` a sample that comes with the package.

    Raises:
        DataError: not a prepared folder.
        DamagedFileError: a file is missing, or the manifest is not what was written.
    """
    path = Path(folder)
    if str(folder).startswith(BUNDLED):
        sample = str(folder).removeprefix(BUNDLED)
        names = sorted(item.name for item in SAMPLES.iterdir() if (item / MANIFEST).is_file())
        if sample not in names:
            known = f"Known: {', '.join(names)}."
            raise DataError(f"there is no bundled sample {sample!r}.", known)
        path = SAMPLES / sample
    if not is_folder(path):
        if not is_file(path):
            raise DataError(f"{path}: no such folder.", "Make it with `exgra-med data prepare`.")
        is_inside = is_file(path.parent / MANIFEST)
        raise DataError(
            f"{path}: a file, and no prepared folder.",
            f"Name the folder that it lies in, {path.parent}."
            if is_inside
            else "Make a folder of it with `exgra-med data prepare`.",
        )
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise DataError(
            f"{path}: not a prepared folder, there is no {MANIFEST}.",
            "Make one with `exgra-med data prepare`.",
        )
    own = f"{_AGAIN} If it was changed on purpose, delete `{DIGEST}` in it."
    manifest = read_document(manifest_path, own)
    if not isinstance(manifest.get("format"), int):
        raise DataError(f"{manifest_path}: not the manifest of a prepared folder.")
    if manifest["format"] > FORMAT:
        raise DataError(
            f"{manifest_path}: layout {manifest['format']} is later than {FORMAT}.",
            "Update exgra-med.",
        )
    for key in ("dataset", "counts", "files"):
        if key not in manifest:
            raise DataError(f"{manifest_path}: the field {key!r} is missing.", _AGAIN)
    _check_manifest(manifest, manifest_path)
    for split in manifest["counts"]:
        if not inside(
            path, f"{split}.jsonl", f"{manifest_path}: the split {short(split)}"
        ).is_file():
            raise DamagedFileError(f"{path / split}.jsonl is missing.", _AGAIN)
    if not (path / "images").is_dir():
        raise DamagedFileError(f"{path}: the folder images/ is missing.", _AGAIN)
    return Prepared(path, manifest, file_sha256(manifest_path))


class _Notes(BaseModel):
    identifiers_left_out: dict[str, str] = {}
    group_column: str = ""
    groups: dict[str, int] = {}
    groups_in_two_splits: int = 0
    rows_without_group: int = 0
    rows_with_identifiers_in_image_names: int = 0
    rows_with_identifiers_in_texts: int = 0
    strata: dict[str, dict[str, int]] = {}
    columns_left_out: list[str] = []
    closed_without_options: list[str] = []


class _Manifest(BaseModel):
    """The types of what is read of a manifest; there may be more in it."""

    model_config = ConfigDict(strict=True)
    dataset: str
    variant: str | None = None
    licence: str | None = None
    origin: str | None = None
    counts: dict[str, NonNegativeInt]
    files: dict[str, str]
    counts_by_type: dict[str, dict[str, int]] = {}
    images: dict[str, int | str] = {}
    dropped: list[dict[Literal["id", "reason"], str]] = []
    notes: _Notes = _Notes()


def _check_manifest(manifest: dict[str, Any], where: Path) -> None:
    """Refuse a manifest whose names leave the folders that are called so, or of odd types."""
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        fault = error.errors()[0]
        path = ".".join(str(part) for part in fault["loc"])
        raise DataError(f"{where}: {path}: {fault['msg']}.", _AGAIN) from error
    # Answers to a data set go into a folder of its name.
    names = [manifest["dataset"], *manifest["counts"], *manifest["files"]]
    for name in names:
        if problem := stray(name, parts=1):
            raise DataError(f"{where}: the name {short(name)} {problem}.", _AGAIN)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
