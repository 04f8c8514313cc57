"""The records to extend, read one by one; and the refusal of texts that seem to name patients."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exgra_med.data.llava_format import is_list, read_original
from exgra_med.data.records import BUNDLED, Record, file_sha256, iterate_records, open_prepared
from exgra_med.errors import DataError
from exgra_med.llm.cache import AnswerCache
from exgra_med.llm.identifiers import VERSION, find_identifiers


@dataclass(frozen=True)
class RecordFile:
    """A file of records.

    Args:
        path: JSON Lines of records, or a JSON file of the original.
        records: those of the original's JSON, which can only be read whole.
    """

    path: Path
    total: int
    records: list[Record] | None

    def iterate(self, skip: Callable[[str], bool] = lambda name: False) -> Iterator[Record]:
        """Yield the records one by one; those whose id is skipped are not even decoded.

        Raises:
            DataError: a record is malformed, or an id comes twice.
        """
        if self.records is None:
            return iterate_records(self.path, self.total, skip)
        return (record for record in self.records if not skip(record.id))


def open_records(name: str, limit: int | None = None) -> RecordFile:
    """Open a file of records, the original's JSON, or a prepared folder (its training split).

    Args:
        name: a path, or `bundled:NAME`.

    Raises:
        DataError: nothing of the kind, or the original's JSON is malformed.
    """
    path = Path(name)
    if name.startswith(BUNDLED) or path.is_dir():
        path = open_prepared(name).split_path("train")
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if is_list(path):
        records = read_original(path)[:limit]
        return RecordFile(path, len(records), records)
    with path.open("rb") as stream:
        total = sum(1 for line in stream if line.strip())
    return RecordFile(path, total if limit is None else min(limit, total), None)


_MOST_IDS = 5


def refuse_identifiers(source: RecordFile, skip: Callable[[str], bool], cache: AnswerCache) -> None:
    """Refuse a file whose text seems to name patients, before any of it is sent.

    Every text is scanned; a file once found clean is not scanned again.

    Args:
        skip: ids that will not be sent.
        cache: remembers the hashes of clean files.

    Raises:
        DataError: identifiers were found, or a record is malformed. The message has kinds, counts
            and record ids, never the words.
    """
    of = file_sha256(source.path)
    name = f"no identifiers, patterns {VERSION}, first {source.total} of {of}"
    if cache.recall(name) is not None:
        return
    kinds: Counter[str] = Counter()
    ids: list[str] = []
    scanned = 0
    for record in source.iterate(skip):
        scanned += 1
        found = {kind for turn in record.turns for kind in find_identifiers(turn.text)}
        kinds.update(found)
        if found and len(ids) < _MOST_IDS:
            ids.append(record.id)
    if kinds:
        what = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
        raise DataError(
            f"{source.path}: the text seems to identify patients ({what}); "
            f"first records: {', '.join(map(repr, ids))}.",
            "Remove what identifies, or give --force if you have looked and may send it.",
        )
    # What was passed over may have been sent with --force, unscanned.
    if scanned == source.total:
        cache.remember(name, "clean")
