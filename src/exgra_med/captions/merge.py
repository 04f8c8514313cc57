"""Extended answers joined to the records that they were made from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exgra_med.captions.records import open_records
from exgra_med.data.derive import read_splits, write_derived
from exgra_med.data.llava_format import read_original
from exgra_med.data.records import (
    BUNDLED,
    Record,
    file_sha256,
    iterate_objects,
    open_prepared,
    write_records,
)
from exgra_med.errors import DataError


def merge_captions(
    data: str, captions: Path, out: Path, allow_missing: bool = False
) -> dict[str, Any]:
    """Join extended answers by record id, else by published id, and return what came of it.

    Args:
        data: a prepared folder, `bundled:NAME`, a file of records, or the original's JSON.
        captions: JSON Lines with `id` and `extended`, such as the output of `generate`; or the
            original's JSON with longer answers.
        out: a prepared folder where `data` is one, else JSON Lines of records.
        allow_missing: records without an extended answer are no error. Of a prepared folder, only
            the training split needs them.

    Raises:
        DataError: nothing fits, a record has no extended answer, or they do not fit its turns.
        WriteError: the disk is full.
    """
    extended = _read_captions(captions)
    used: set[str] = set()
    missing: list[str] = []

    def joined(records: Iterator[Record], are_needed: bool) -> Iterator[Record]:
        for record in records:
            record = _extended(record, extended, used)
            if record.extended is None and are_needed:
                missing.append(record.id)
            yield record

    def check() -> None:
        if not used:
            raise DataError(f"{captions}: no id of it is in {data}.")
        if missing and not allow_missing:
            raise DataError(
                f"{captions}: {len(missing)} records have no extended answer, "
                f"first {missing[0]!r}.",
                "Generate the rest, or give --allow-missing.",
            )

    result: dict[str, Any] = {"out": str(out)}
    if data.startswith(BUNDLED) or Path(data).is_dir():
        prepared = open_prepared(data)
        splits = {
            split: list(joined(iter(records), are_needed=split == "train"))
            for split, records in read_splits(prepared).items()
        }
        check()
        how = {
            "made_by": "merge-captions",
            "captions_sha256": file_sha256(captions),
            "unused_captions": len(extended) - len(used),
            "training_records_without": len(missing),
        }
        result["fingerprint"] = write_derived(prepared, splits, how, out).fingerprint
    else:

        def checked() -> Iterator[Record]:
            yield from joined(open_records(data).iterate(), are_needed=True)
            check()

        write_records(out, checked(), stands_alone=True)
    return result | {"without": len(missing), "unused": len(extended) - len(used)}


def _extended(record: Record, extended: Mapping[str, list[str]], used: set[str]) -> Record:
    for key in (record.id, str(record.meta.get("published_id", ""))):
        if key in extended:
            used.add(key)
            if len(extended[key]) != len(record.answers):
                raise DataError(
                    f"{record.id}: {len(extended[key])} extended answers for "
                    f"{len(record.answers)} assistant turns."
                )
            return record.model_copy(update={"extended": extended[key]})
    return record


def _read_captions(path: Path) -> dict[str, list[str]]:
    if path.suffix == ".json":
        records = read_original(path, texts_only=True)
        return {record.id: record.extended or record.answers for record in records}
    extended: dict[str, list[str]] = {}
    for where, row in iterate_objects(path):
        value = row.get("extended")
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
            raise DataError(f"{where}: 'extended' is not a list of texts.")
        name = str(row.get("id", ""))
        if not name or name in extended:
            raise DataError(f"{where}: the id {name!r} is missing or comes twice.")
        extended[name] = value
    return extended
