"""Rebuild the bundled part of SLAKE from its release.

    PYTHONPATH=src python tools/build_slake_sample.py --source PATH/TO/slake

Chest X-rays (NIH ChestX-ray8) and brain MRI (Medical Segmentation Decathlon, task 1) alone: of the
other images the upstream licence forbids commercial use, or is not known.
"""

import argparse
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.data.prepare import MAX_PIXELS, write_prepared
from exgra_med.data.records import SAMPLES, Record, file_sha256
from exgra_med.data.sources import slake
from exgra_med.data.sources.source import Collected, PrepareOptions

NAME = "slake-sample"
LONGEST_SIDE = 256
JPEG_QUALITY = 85
KINDS = {("X-Ray", "Lung"): 40, ("MRI", "Brain"): 10, ("MRI", "Brain_Tissue"): 25}
"""Modality and organ, and how many images train; a fifth of that validates, and all images of the
published test split test."""


@dataclass(frozen=True)
class SmallImages:
    """The release's images, scaled down for the package; small ones keep their bytes."""

    folder: ImageFolder

    def stored_name(self, name: str) -> str:
        """One flat name."""
        return name

    def expand(self, name: str, where: str = "") -> list[str]:
        """Itself."""
        return [name]

    def read_bytes(self, name: str, where: str = "") -> bytes:
        """The image as JPEG."""
        content = self.folder.read_bytes(name, where)
        image = self.folder.open(name, where)
        if max(image.size) <= LONGEST_SIDE:
            return content
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
        return stream.getvalue()


def order(name: str) -> str:
    """Sort key of a choice that nothing but names decides."""
    return hashlib.sha256(f"sample{name}".encode()).hexdigest()


def build(source: Path, out: Path) -> None:
    """Write the sample."""
    collected = slake.collect(source, PrepareOptions("en", 0, MAX_PIXELS))
    splits: dict[str, list[Record]] = {}
    for split, share in (("train", 1), ("validation", 5), ("test", 0)):
        records = list(collected.splits[split])
        chosen: set[str] = set()
        for kind, most in KINDS.items():
            names = {r.images[0] for r in records if (r.meta["modality"], r.meta["organ"]) == kind}
            chosen |= set(sorted(names, key=order)[: most // share if share else None])
        splits[split] = [_sampled(r, split) for r in records if r.images[0] in chosen]
    origin = {
        "dataset": NAME,
        "variant": "X-rays and brain MRI, published split",
        "licence": "CC BY 4.0 as a whole; brain MRI CC BY-SA 4.0",
        "seed": 0,
        "sources": {
            path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            for path in collected.files
        },
    }
    notes = {
        "images": f"scaled to at most {LONGEST_SIDE} pixels a side",
        "extended": "made by a template from answer, modality and organ; no language model",
    }
    images = SmallImages(ImageFolder(source / "imgs", MAX_PIXELS))
    write_prepared(out, Collected(splits, images, [], notes=notes), origin, overwrite=True)
    text = Path(__file__).with_name("slake_sample_attribution.md").read_text(encoding="utf-8")
    (out / "ATTRIBUTION.md").write_text(text, encoding="utf-8")


def _sampled(record: Record, split: str) -> Record:
    what = f"{record.meta['modality']} image of the {record.meta['organ'].lower()}"
    told = f"{record.turns[-1].text}. The picture is an {what.replace('_', ' ')}."
    return record.model_copy(
        update={
            "id": f"{NAME}/{split}/{record.meta['published_id']}",
            "extended": None if split == "test" else [told],
        }
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of the release")
    parser.add_argument("--out", type=Path, default=SAMPLES / NAME)
    arguments = parser.parse_args()
    build(arguments.source, arguments.out)
