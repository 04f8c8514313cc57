"""Images per second and core: full images, and images resized once, in one run.

    PYTHONPATH=src python benchmarks/data_loading.py PREPARED --out RESULT.json

Three ways to a batch of pixel values, on the same images in the same process:
`pil`: Image.open + the stock CLIP processor; `folder`: this project's checked `ImageFolder` + the
stock processor; `resized`: the same on a copy made by `data resize`. The rounds of the three are
interleaved, so that a slow moment of the machine hits all of them. Median and quartiles of rounds.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import torch
import transformers
from PIL import Image

from exgra_med.data.derive import write_resized
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import open_prepared

Opener = Callable[[str], Image.Image]


def image_names(folder: ImageFolder, limit: int) -> list[str]:
    """The first images of a folder, by name."""
    paths = sorted(path for path in folder.root.rglob("*") if path.is_file())
    return [path.relative_to(folder.root).as_posix() for path in paths][:limit]


def measure(openers: dict[str, tuple[Opener, list[str]]], process, rounds: int) -> dict:
    """Way -> images per second: median and quartiles over rounds."""
    rates: dict[str, list[float]] = {way: [] for way in openers}
    for number in range(rounds + 1):
        for way, (opener, names) in openers.items():
            start = time.perf_counter()
            for name in names:
                process([opener(name)], return_tensors="pt")
            # The first round fills the disk cache and is not counted.
            if number:
                rates[way].append(len(names) / (time.perf_counter() - start))
    return {way: summary(values) for way, values in rates.items()}


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles, rounded to a tenth."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 1), "q1": round(low, 1), "q3": round(high, 1)}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="prepared folder with full images")
    parser.add_argument("--image-size", type=int, default=336)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = arguments.image_size
    process = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    prepared = open_prepared(arguments.folder)
    with tempfile.TemporaryDirectory() as temporary:
        small = write_resized(prepared, size, Path(temporary) / "small").image_folder(10**9)
        full = prepared.image_folder(10**9)
        names = image_names(full, arguments.images)
        small_names = [name if name.endswith(".png") else f"{name}.png" for name in names]
        for name, small_name in zip(names, small_names, strict=True):
            both = process([full.open(name), small.open(small_name)])["pixel_values"]
            if not np.array_equal(*both):
                raise SystemExit(f"{name}: the resized image gives other pixel values")
        openers = {
            "pil": (lambda name: Image.open(full.root / name).convert("RGB"), names),
            "folder": (full.open, names),
            "resized": (small.open, small_names),
        }
        result = measure(openers, process, arguments.rounds)
    report = {
        "benchmark": "data_loading",
        "unit": "images per second on one core",
        "dataset": prepared.manifest["dataset"],
        "images": len(names),
        "image_size": size,
        "rounds": arguments.rounds,
        "results": result,
        "pixel_values_equal": True,
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "pillow": PIL.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["results"], indent=2))


if __name__ == "__main__":
    main()
