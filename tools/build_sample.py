"""Rebuild the bundled sample from the official VQA-RAD release and the written extended answers.

    PYTHONPATH=src python tools/build_sample.py --source PATH/TO/vqa_rad

The records and the manifest come out byte for byte; the JPEGs too with the Pillow version that
`ATTRIBUTION.md` of the sample names.
"""

import argparse
import hashlib
import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepare import MAX_PIXELS, write_prepared
from exgra_med.data.records import SAMPLES, SPLITS, Record, file_sha256
from exgra_med.data.sources import vqa_rad
from exgra_med.data.sources.source import Collected, ImageBytes, PrepareOptions

NAME = "vqa-rad-sample"
IMAGES_PER_ORGAN = 16
# Images of each organ that go to validation and to test; the rest is for training.
HELD_OUT = {"HEAD": (4, 3), "CHEST": (4, 2), "ABD": (4, 3)}
# Images with few or very many questions are left out, so that the splits have like sizes.
ROWS_PER_IMAGE = range(6, 9)
LONGEST_SIDE = 256
JPEG_QUALITY = 85


@dataclass(frozen=True)
class ScaledImages:
    """The release's images, scaled down for the package."""

    folder: ImageFolder

    def stored_name(self, name: str) -> str:
        """The image's name in the sample: unchanged."""
        return name

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The scaled image as JPEG."""
        image = self.folder.open(name, where)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
        return stream.getvalue()


def order(name: str) -> str:
    """Sort key that the written answers were made for; another choice needs other answers."""
    return hashlib.sha256(f"sample{name}".encode()).hexdigest()


def choose(records: list[Record]) -> dict[str, str]:
    """Image -> split of the sample."""
    images: dict[str, dict[str, int]] = defaultdict(dict)
    for record in records:
        count = images[record.meta["organ"]]
        count[record.images[0]] = count.get(record.images[0], 0) + 1
    chosen = {}
    for organ, (num_validation, num_test) in HELD_OUT.items():
        fitting = [name for name, rows in images[organ].items() if rows in ROWS_PER_IMAGE]
        names = sorted(fitting, key=order)[:IMAGES_PER_ORGAN]
        num_train = IMAGES_PER_ORGAN - num_validation - num_test
        splits = ["train"] * num_train + ["validation"] * num_validation + ["test"] * num_test
        chosen |= dict(zip(names, splits, strict=True))
    return chosen


def build(source: Path, answers_path: Path, out: Path) -> None:
    """Write the sample."""
    collected = vqa_rad.collect(source, PrepareOptions("official", 0, MAX_PIXELS))
    records = [record for split in collected.splits.values() for record in split]
    records.sort(key=lambda record: int(record.meta["published_id"]))
    chosen = choose(records)
    answers = json.loads(answers_path.read_text(encoding="utf-8"))
    splits: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for record in records:
        split = chosen.get(record.images[0])
        if split is None:
            continue
        published = record.meta["published_id"]
        if split != "test" and published not in answers:
            raise SystemExit(f"no extended answer for {published}: {record.question}")
        splits[split].append(
            record.model_copy(
                update={
                    "id": f"{NAME}/{split}/{published}",
                    "extended": None if split == "test" else [answers[published]],
                    "meta": record.meta | {"split": split},
                }
            )
        )
    images: ImageBytes = ScaledImages(ImageFolder(source / "images", MAX_PIXELS))
    origin = {
        "dataset": NAME,
        "variant": "image-disjoint sample",
        "licence": "CC0 1.0",
        "seed": 0,
        "sources": {
            path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            for path in [*collected.files, answers_path]
        },
    }
    notes = {
        "images": f"scaled to at most {LONGEST_SIDE} pixels a side, JPEG quality {JPEG_QUALITY}",
        "split": "by image; not the published split, so scores on it compare with no publication",
    }
    write_prepared(out, Collected(splits, images, [], notes=notes), origin, overwrite=True)
    text = (answers_path.parent / "sample_attribution.md").read_text(encoding="utf-8")
    (out / "ATTRIBUTION.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of the release")
    parser.add_argument("--out", type=Path, default=SAMPLES / NAME)
    arguments = parser.parse_args()
    build(
        arguments.source,
        Path(__file__).with_name("sample_extended_answers.json"),
        arguments.out,
    )
