"""Records with none, one, two, three and four images, some placed in the questions; as a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from exgra_med.data.records import Record, file_sha256, write_records

DATASET = "several"
NUM_IMAGES = 8
TALKS: dict[str, tuple[Any, list[str]]] = {
    "none": (None, ["Is a heart an organ?", "yes"]),
    "one": ("0.png", ["Is the left lung clear?", "left"]),
    "two": (["1.png", "2.png"], ["Which changed?", "the right lung"]),
    "four": (["3.png", "4.png", "5.png", "6.png"], ["Which is the liver?", "the last"]),
    "in a sentence": (
        ["2.png", "1.png"],
        ["Compare <image> with <image>: is one older?", "yes"],
    ),
    "one in a sentence": ("7.png", ["In <image>, which lung?", "right"]),
    "at the beginning": (["6.png", "7.png"], ["<image><image>\nWhich is larger?", "the left"]),
    "over turns": (
        ["0.png", "5.png", "1.png"],
        ["<image> What is this?", "a lung", "Is it clear?", "no", "And <image> or <image>?", "no"],
    ),
}
"""Name -> image field of a record, and what is said in turn."""


def talk(name: str, split: str = "test", **more: Any) -> Record:
    """A record of `TALKS` with extended answers."""
    image, said = TALKS[name]
    roles = ("user", "assistant")
    value: dict[str, Any] = {
        "id": f"{DATASET}/{split}/{name}",
        "turns": [{"role": roles[n % 2], "text": text} for n, text in enumerate(said)],
        "extended": [f"It is {text}, as the image shows." for text in said[1::2]],
    }
    if image is not None:
        value["image"] = image
    return Record.model_validate(value | more)


def make_pictures(folder: Path) -> Path:
    """Eight pictures of different sizes and contents."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        pixels = numbers.integers(0, 255, (4 + number % 3, 6), dtype=np.uint8)
        Image.fromarray(pixels).resize((60 + 8 * number, 64)).save(folder / f"{number}.png")
    return folder


def make_several(folder: Path, *more: Record) -> Path:
    """A prepared folder with every talk in every split, and more records in `train`."""
    make_pictures(folder / "images")
    splits = {
        split: [talk(name, split) for name in TALKS] for split in ("train", "validation", "test")
    }
    splits["train"] += more
    for split, records in splits.items():
        write_records(folder / f"{split}.jsonl", records)
    manifest = {
        "format": 1,
        "dataset": DATASET,
        "licence": "CC0",
        "counts": {split: len(records) for split, records in splits.items()},
        "files": {f"{split}.jsonl": file_sha256(folder / f"{split}.jsonl") for split in splits},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
