"""Large image-text collections such as MedTrinity: parquet or webdataset shards, read as a stream.

Nothing is unpacked to disk and no shard is held in memory. Every shard is read twice, once for each
split; which image is held out depends on its own hash alone.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from exgra_med.data.download.archives import tar_members
from exgra_med.data.images import MAX_IMAGE_BYTES
from exgra_med.data.records import Record
from exgra_med.data.sources.parquet import iterate_rows
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import check_mapping, image_folder, vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.sources.values import Row, plain_text
from exgra_med.data.subset import seeded_key
from exgra_med.errors import DataError
from exgra_med.reading import decode_json

NAME = "shards"
QUESTION = "Describe this image."
VALIDATION_SHARE = 0.01
FIELDS = ("image", "question", "answer", "id")
_IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "dcm", "dicom")


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read `*.parquet` or `*.tar` shards; `--map answer=caption` names a column.

    Raises:
        DataError: no shard, both kinds, or an unknown mapping.
        MissingExtraError: parquet shards and pyarrow is not installed.
    """
    check_mapping(options.mapping, FIELDS)
    parquet, tars = sorted(source.glob("*.parquet")), sorted(source.glob("*.tar"))
    if bool(parquet) == bool(tars):
        found = "both kinds of shards" if parquet else "no *.parquet and no *.tar shards"
        raise DataError(f"{source}: {found}.")
    images = RowImages.of(image_folder(source, options))
    dropped: list[Dropped] = []
    splits = {
        split: _records(parquet or tars, split, images, options, dropped)
        for split in ("train", "validation")
    }
    notes = {"layout": "parquet" if parquet else "webdataset"}
    return Collected({**splits, "test": []}, images, parquet or tars, dropped, notes)


def _records(
    paths: list[Path],
    split: str,
    images: RowImages,
    options: PrepareOptions,
    dropped: list[Dropped],
) -> Iterator[Record]:
    column = {field: options.mapping.get(field, field) for field in FIELDS}
    needed, optional = (
        [column[field] for field in fields] for fields in (("image", "answer"), ("question", "id"))
    )
    rows = (
        (f"{NAME}/{split}/{path.stem}/{number}", *each)
        for path in paths
        for number, each in enumerate(
            _webdataset(path, column)
            if path.suffix == ".tar"
            else iterate_rows([path], needed, optional)
        )
    )
    for name, where, row in rows:
        names = images.names(row.get(column["image"]), where)
        held = [_share(options.seed, each) < VALIDATION_SHARE for each in names]
        if not names or any(held) != all(held):
            if split == "train":
                reason = "shares an image with validation" if names else "no image"
                dropped.append(Dropped(name, reason))
            continue
        if all(held) != (split == "validation"):
            continue
        meta: dict[str, Any] = {"split": split}
        if row.get(column["id"]) is not None:
            meta["published_id"] = plain_text(row[column["id"]], f"{where}: the id")
        question = plain_text(row.get(column["question"]), f"{where}: the question")
        record = vqa_record(
            name,
            {
                "question": question or QUESTION,
                "answer": row.get(column["answer"]),
            },
            where,
            image=names,
            answer_type=None,
            meta=meta,
            dropped=dropped,
        )
        if record:
            yield record


def _share(seed: int, image: str) -> float:
    return int(seeded_key(seed, image)[:12], 16) / 16**12


def _webdataset(path: Path, column: dict[str, str]) -> Iterator[Row]:
    """Samples of a tar: neighbouring members whose names agree up to the first full stop."""
    row: dict[str, Any] = {}
    number, current = 0, None
    with path.open("rb") as stream:
        # Nothing is written, so a shard may be as large as it wants.
        for member in tar_members(stream, str(path), max_bytes=max(path.stat().st_size, 2**30)):
            name = PurePosixPath(member.name).name
            key, _, ending = name.partition(".")
            if current not in (None, key):
                yield f"{path.name}: row {number}", row
                number, row = number + 1, {}
            current = key
            content = member.content(MAX_IMAGE_BYTES)
            row |= _member(content, ending.lower(), f"{path}: {name}", column)
            row.setdefault(column["id"], key)
    if row:
        yield f"{path.name}: row {number}", row


def _member(content: bytes, ending: str, where: str, column: dict[str, str]) -> dict[str, Any]:
    if ending in _IMAGE_ENDINGS:
        return {column["image"]: content}
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: neither a picture nor UTF-8 text.") from error
    if ending == "json":
        value = decode_json(text, where, nan_is_null=True)
        if not isinstance(value, dict):
            raise DataError(f"{where}: not an object.")
        return value
    return {column["answer"]: text} if ending == "txt" else {}


SOURCE = Source(
    name=NAME,
    title="large image-text collections as parquet or webdataset shards (MedTrinity and the like)",
    licence="of the collection",
    variants={"all": "everything for training, 1 % of the images held out"},
    collect=collect,
)
