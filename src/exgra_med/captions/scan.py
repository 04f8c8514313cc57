"""Refuses a source whose text seems to name patients, before any of it is sent."""

from collections import Counter
from collections.abc import Callable

from exgra_med.captions.source import Source
from exgra_med.errors import DataError
from exgra_med.llm.cache import AnswerCache
from exgra_med.llm.phi import VERSION, find_identifiers

_MOST_IDS = 5


def refuse_identifiers(source: Source, skip: Callable[[str], bool], cache: AnswerCache) -> None:
    """Scan every text that would be sent; a file once found clean is not scanned again.

    Args:
        source: the records.
        skip: ids that will not be sent.
        cache: remembers the hashes of clean files.

    Raises:
        DataError: identifiers were found, or a record is malformed. The message has kinds, counts
            and record ids, never the words.
    """
    name = f"no identifiers, patterns {VERSION}, first {source.total} of {source.sha256()}"
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
