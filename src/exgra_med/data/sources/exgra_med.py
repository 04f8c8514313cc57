"""ExGra-Med's prepared question files `{train,val,test}_w_options_new.json`.

Their questions carry the options as a prompt suffix; here the suffix becomes `meta["options"]`, and
the chat text puts it back.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.llava_format import parse_items
from exgra_med.data.records import Record, Turn, read_json_list
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import facts, has_empty_message
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.errors import DataError

NAME = "exgra-med"
FILES = {"train": "train", "validation": "val", "test": "test"}

_SUFFIX = re.compile(r"\s*\(Answer with either (?P<options>.*?)\)\.?\s*$", re.DOTALL)


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read the files of a folder that are there; at least one must be.

    Raises:
        DataError: none is there, or an item cannot be understood; names file and item.
    """
    found: Counter[str] = Counter()
    dropped: list[Dropped] = []
    files = []
    images = RowImages.of(ImageFolder(source / "images", options.max_pixels, within=source))
    splits: dict[str, list[Record]] = {split: [] for split in FILES}
    for split, stem in FILES.items():
        path = source / f"{stem}_w_options_new.json"
        if not path.is_file():
            continue
        files.append(path)
        items = []
        for number, item in enumerate(read_json_list(path)):
            messages = item.get("conversations") or item.get("conversatons") or []
            if has_empty_message(messages):
                dropped.append(Dropped(f"{NAME}/{split}/{item.get('id', number)}", "empty answer"))
            else:
                items.append(item)
        for item in parse_items(items, path.name, found):
            record = images.found(item, f"{path.name}: item {item.id!r}")
            question, choices = split_suffix(record.question)
            meta = record.meta | {"split": split} | ({"options": choices} if choices else {})
            turns = [Turn(role="user", text=question or record.question), *record.turns[1:]]
            update = {"id": f"{NAME}/{split}/{record.id}", "turns": turns, "meta": meta}
            splits[split].append(record.model_copy(update=update))
    if not files:
        raise DataError(f"{source}: none of {', '.join(FILES.values())}_w_options_new.json.")
    notes: dict[str, Any] = {"spellings_found": dict(sorted(found.items())), **facts(splits)}
    return Collected(splits, images, files, dropped, notes)


def split_suffix(question: str) -> tuple[str, list[str]]:
    """A question without the original's prompt suffix, and the options the suffix names.

    Example:
        >>> split_suffix('Is it? (Answer with either "Yes" or "No").')
        ('Is it?', ['Yes', 'No'])
    """
    match = _SUFFIX.search(question)
    if not match:
        return question, []
    return question[: match.start()], re.findall(r'"([^"]+)"', match["options"])


SOURCE = Source(
    name=NAME,
    title="ExGra-Med's prepared files *_w_options_new.json",
    licence="of the dataset they were made from",
    variants={"published": "the files' own split"},
    collect=collect,
)
