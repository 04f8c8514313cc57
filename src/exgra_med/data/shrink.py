"""A prepared folder with a share of the training records of another."""

from pathlib import Path

from exgra_med.data.prepare import MAX_PIXELS, write_prepared
from exgra_med.data.prepared import Prepared
from exgra_med.data.source import Collected
from exgra_med.data.subset import nested_subset


def write_subset(prepared: Prepared, fraction: float, seed: int, out: Path) -> Prepared:
    """Write a folder with a share of `train`; the other splits stay whole, so scores compare.

    Args:
        prepared: the whole.
        fraction: share of the training records, in (0, 1].
        seed: another seed takes others.
        out: the folder to make.

    Raises:
        DataError: the fraction is out of range, or `out` holds something else.
        WriteError: the disk is full.
    """
    splits = {
        split: nested_subset(records, fraction, seed) if split == "train" else records
        for split in prepared.splits
        for records in [prepared.records(split)]
    }
    manifest = prepared.manifest
    origin = {
        **{key: manifest.get(key) for key in ("dataset", "variant", "licence", "seed", "sources")},
        "subset": {"of": prepared.fingerprint, "fraction": fraction, "seed": seed},
    }
    notes = {key: value for key, value in manifest["notes"].items() if isinstance(value, str)}
    collected = Collected(splits, prepared.image_folder(MAX_PIXELS), [], notes=notes)
    return write_prepared(out, collected, origin)
