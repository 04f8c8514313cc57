"""LLaVA-Med's and ExGra-Med's training files: captions and instructions over PubMed figures.

A folder with JSON files of the original's layout (`conversations`, `*_long`) and `images/`. All is
for training; a small seeded validation split takes whole images.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from exgra_med.data.llava_format import parse_items
from exgra_med.data.records import Record, read_json_list
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import has_empty_message, image_folder, without_images
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.subset import images_for_share
from exgra_med.errors import DataError

NAME = "llava-med"
VALIDATION_SHARE = 0.01


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read every `*.json` of a folder as conversations for training.

    Raises:
        DataError: there is no JSON file, or an item cannot be understood; names file and item.
    """
    files = sorted(path for path in source.glob("*.json") if path.name != "manifest.json")
    if not files:
        raise DataError(
            f"{source}: there are no JSON files.", "Give the folder with the conversations."
        )
    found: Counter[str] = Counter()
    dropped: list[Dropped] = []
    images = RowImages.of(image_folder(source, options))
    records: list[Record] = []
    for path in files:
        items = _with_text(read_json_list(path), path, dropped)
        for record in parse_items(items, path.name, found):
            named = images.found(record, f"{path.name}: item {record.id!r}")
            name = f"{NAME}/{path.stem}/{record.id}"
            records.append(named.model_copy(update={"id": name}))
    shown = Counter(image for record in records for image in record.images)
    chosen = images_for_share(shown, VALIDATION_SHARE, options.seed, "validation")
    splits: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in records:
        held_out = bool(record.images) and chosen.issuperset(record.images)
        splits["validation" if held_out else "train"].append(record)
    # A record with several images may share one with validation; it is in neither split then.
    reason = "shares an image with validation"
    splits["train"] = without_images(splits["train"], chosen, reason, dropped)
    notes: dict[str, Any] = {
        "spellings_found": dict(sorted(found.items())),
        "held_out_images": f"{len(chosen)} of {len(shown)}, in `validation`, never trained on",
        "with_extended_answers": sum(record.extended is not None for record in records),
    }
    return Collected(splits, images, files, dropped, notes)


def _with_text(
    items: list[dict[str, Any]], path: Path, dropped: list[Dropped]
) -> list[dict[str, Any]]:
    """Items without an empty message; the others are listed as dropped."""
    kept = []
    for number, item in enumerate(items):
        conversations = [value for key, value in item.items() if key.startswith("convers")]
        if has_empty_message(m for each in conversations if isinstance(each, list) for m in each):
            name = item.get("id", number)
            dropped.append(Dropped(f"{NAME}/{path.stem}/{name}", "an empty message"))
        else:
            kept.append(item)
    return kept


SOURCE = Source(
    name=NAME,
    title="LLaVA-Med and ExGra-Med training files: captions, instructions, extended answers",
    licence="CC BY-NC 4.0",
    variants={"all": "everything for training, 1 % of the images held out"},
    collect=collect,
    has_image_urls=True,
)
