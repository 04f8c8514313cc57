"""Extended answers joined to the records that they were made from."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exgra_med.captions.check import CheckedAnswer, checked_records
from exgra_med.captions.faults import WEIGHTS
from exgra_med.captions.judgements import (
    Judgement,
    Place,
    judged,
    needed_judgements,
    read_judgements,
)
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

FLAGGED, REJECTED = "flagged", "rejected"
REASONS = (FLAGGED, REJECTED, *WEIGHTS)
"""For which records can be left out: any sign of a fault, a rater's no, one kind of sign."""


def merge_captions(
    data: str,
    captions: Path,
    out: Path,
    allow_missing: bool = False,
    *,
    only_extended: bool = False,
    leave_out: Collection[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Join extended answers by record id, else by published id, and return what came of it.

    Of a prepared folder, only the training split needs extended answers and loses records.

    Args:
        data: a prepared folder, `bundled:NAME`, a file of records, or the original's JSON.
        captions: JSON Lines with `id` and `extended`, such as the output of `generate`; or the
            original's JSON with longer answers.
        out: a prepared folder where `data` is one, else JSON Lines of records.
        allow_missing: records without an extended answer are kept. Stages that align need them.
        only_extended: records of which `captions` has nothing are left out, also where they have an
            extended answer already.
        leave_out: of `REASONS`, for which a record is left out. What a rater accepts and nobody
            rejects stays, whatever its signs.
        overwrite: replace another prepared folder at `out`.

    Returns:
        How many records are `written`; how many of these are `extended`, and `had` their extended
        answer before; how many were `without` one, kept or left out; why others were `left_out`;
        and `unused` captions.

    Raises:
        DataError: nothing fits, a record has no extended answer, they do not fit its turns, no
            record is left, or a reason is unknown or has no judgements.
        WriteError: the disk is full.
    """
    if allow_missing and only_extended:
        raise DataError("--allow-missing keeps what --only-extended leaves out.", "Give one.")
    if unknown := [each for each in leave_out if each not in REASONS]:
        raise DataError(
            f"{unknown[0]!r} is nothing to leave out.", f"There are {', '.join(REASONS)}."
        )
    extended = _read_captions(captions)
    read = needed_judgements if REJECTED in leave_out else read_judgements
    by_rater = read(str(captions)) if leave_out else {}
    used: dict[str, str] = {}
    missing: list[str] = []
    left_out: Counter[str] = Counter()
    kept: Counter[str] = Counter()

    def joined(records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            yield _extended(record, extended, used)

    def chosen(records: Iterable[Record]) -> Iterator[Record]:
        for record, answers in checked_records(joined(records)):
            if only_extended and record.id not in used:
                missing.append(record.id)
                continue
            if record.extended is None:
                missing.append(record.id)
            elif reason := _reason(answers, used.get(record.id, record.id), leave_out, by_rater):
                left_out[reason] += 1
                continue
            kept["written"] += 1
            kept["extended"] += record.extended is not None
            kept["had"] += record.extended is not None and record.id not in used
            yield record

    def check() -> None:
        if not used:
            raise DataError(f"{captions}: no id of it is in {data}.")
        if missing and not (allow_missing or only_extended):
            have = kept["extended"] + left_out.total()
            raise DataError(
                f"{captions}: {len(missing)} of {len(missing) + have} records have no extended "
                f"answer, first {missing[0]!r}.",
                "--only-extended leaves them out; or generate the rest.",
            )
        if not kept["written"]:
            told = reasons_text(left_out | ({"without a caption": len(missing)} if missing else {}))
            raise DataError(f"{captions}: no record is left, {told}.", "Leave out less.")

    result: dict[str, Any] = {"out": str(out)}
    if data.startswith(BUNDLED) or Path(data).is_dir():
        prepared = open_prepared(data)
        splits = {
            split: list((chosen if split == "train" else joined)(records))
            for split, records in read_splits(prepared).items()
        }
        check()
        how: dict[str, Any] = {
            "made_by": "merge-captions",
            "captions_sha256": file_sha256(captions),
            "unused_captions": _unused(extended, used),
            "training_records_without": 0 if only_extended else len(missing),
        }
        if only_extended or leave_out:
            how["left_out"] = dict(left_out) | ({"without": len(missing)} if only_extended else {})
        result["fingerprint"] = write_derived(
            prepared, splits, how, out, overwrite=overwrite
        ).fingerprint
    else:

        def checked() -> Iterator[Record]:
            yield from chosen(open_records(data).iterate())
            check()

        write_records(out, checked(), stands_alone=True)
    return result | {
        "written": kept["written"],
        "extended": kept["extended"],
        "had": kept["had"],
        "without": len(missing),
        "left_out": dict(left_out),
        "unused": _unused(extended, used),
    }


def reasons_text(left_out: Mapping[str, int]) -> str:
    """Why records were left out, as words of a sentence.

    >>> reasons_text({"rejected": 2, "prompt leaked": 1})
    '2 rejected, 1 prompt leaked'
    """
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


def _unused(extended: Mapping[str, list[str]], used: Mapping[str, str]) -> int:
    return len(extended) - len(set(used.values()))


def _reason(
    answers: list[CheckedAnswer],
    name: str,
    leave_out: Collection[str],
    by_rater: Mapping[str, Mapping[Place, Judgement]],
) -> str:
    """Why a record is left out; empty where it stays.

    Args:
        name: the id under which its captions, and so the judgements, are.
    """
    for answer in answers:
        said = judged(by_rater, (name, answer.turn), answer.extended)
        if REJECTED in leave_out and said.is_rejected:
            return REJECTED
        if answer.faults and not said.is_accepted:
            if FLAGGED in leave_out:
                return FLAGGED
            for kind in WEIGHTS:
                if kind in leave_out and kind in answer.kinds:
                    return kind
    return ""


def _extended(record: Record, extended: Mapping[str, list[str]], used: dict[str, str]) -> Record:
    """The record with its captions; `used` gets the id under which they are."""
    for key in (record.id, str(record.meta.get("published_id", ""))):
        if key in extended:
            used[record.id] = key
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
