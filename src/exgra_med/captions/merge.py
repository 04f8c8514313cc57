"""Extended answers joined to the data they were made from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exgra_med.captions.source import open_source
from exgra_med.data.derive import merge_captions
from exgra_med.data.json_files import write_records
from exgra_med.data.prepared import BUNDLED, open_prepared
from exgra_med.data.record import Record
from exgra_med.errors import DataError


def merge(data: str, captions: Path, out: Path, allow_missing: bool = False) -> dict[str, Any]:
    """Join extended answers by record id and say what came of it.

    Args:
        data: a prepared folder, `bundled:NAME`, a file of records, or the original's JSON.
        captions: output of `generate`.
        out: a prepared folder where `data` is one, else JSON Lines of records.
        allow_missing: records without an extended answer are no error.

    Raises:
        DataError: nothing fits, a record has no extended answer, or they do not fit its turns.
        WriteError: the disk is full.
    """
    if data.startswith(BUNDLED) or Path(data).is_dir():
        prepared = merge_captions(open_prepared(data), captions, out, allow_missing)
        made = prepared.manifest["made_from"]
        return {
            "out": str(out),
            "fingerprint": prepared.fingerprint,
            "without": made["training_records_without"],
            "unused": made["unused_captions"],
        }
    extended = {
        record.id: record.extended
        for record in open_source(str(captions)).iterate()
        if record.extended is not None
    }
    used: set[str] = set()
    missing: list[str] = []

    def joined() -> Iterator[Record]:
        for record in open_source(data).iterate():
            answers = extended.get(record.id)
            if answers is None:
                missing.append(record.id)
                yield record
                continue
            if len(answers) != len(record.answers):
                raise DataError(
                    f"{record.id}: {len(answers)} extended answers for "
                    f"{len(record.answers)} assistant turns."
                )
            used.add(record.id)
            yield record.model_copy(update={"extended": answers})
        if not used:
            raise DataError(f"{captions}: no id of it is in {data}.")
        if missing and not allow_missing:
            raise DataError(
                f"{captions}: {len(missing)} records have no extended answer, "
                f"first {missing[0]!r}.",
                "Generate the rest, or give --allow-missing.",
            )

    write_records(out, joined())
    return {"out": str(out), "without": len(missing), "unused": len(extended) - len(used)}
