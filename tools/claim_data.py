"""Make the data of the study `real-small` out of prepared folders.

    PYTHONPATH=src python tools/claim_data.py --instructions data/open-instructions \\
        --captions data/open-captions --vqa-rad data/vqa-rad --slake data/slake --out data/claim

`instruct`: the conversations that people wrote (SLAKE's), with answers
extended by what is published of their pictures (`captions compose`), and in `meta.group` the group
of pictures that look alike. `slake` and `vqa-rad`: the test alone. A test record whose picture
looks like one that is learnt from, in either stage, has `meta.seen_look_alike`.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import networkx
from rich.progress import track

from exgra_med.captions.compose import compose_captions
from exgra_med.captions.merge import merge_captions
from exgra_med.data.lookalikes import near_pairs, perceptual_hash
from exgra_med.data.prepare import prepare
from exgra_med.data.records import Prepared, Record, open_prepared, write_records

MAX_PIXELS = 50_000_000
SOURCES = {"SLAKE"}
"""Of the open corpus: the questions that people wrote. Others are templates over a label."""


def hashes(prepared: Prepared, records: Iterable[Record]) -> dict[str, int]:
    """Picture -> its perceptual hash, of all pictures of some records."""
    names = sorted({name for record in records for name in record.images})
    images = prepared.image_folder(MAX_PIXELS)
    found = track(names, description=f"pictures of {prepared.path.name}")
    return {name: perceptual_hash(images.open(name)) for name in found}


def look_alike_groups(found: Mapping[str, int]) -> dict[str, str]:
    """Picture -> first picture of its connected component of look-alikes."""
    names = list(found)
    graph = networkx.Graph()
    graph.add_nodes_from(names)
    values = [found[name] for name in names]
    graph.add_edges_from((names[a], names[b]) for a, b in near_pairs(values, values))
    groups = networkx.connected_components(graph)
    return {name: min(group) for group in groups for name in group}


def marked(records: Iterable[Record], own: Mapping[str, int], seen: list[int]) -> list[Record]:
    """Records that say whether one of their pictures looks like one that is learnt from."""
    names = list(own)
    near = {names[row] for row, _ in near_pairs([own[name] for name in names], seen)}
    return [
        record.model_copy(
            update={"meta": record.meta | {"seen_look_alike": not near.isdisjoint(record.images)}}
        )
        for record in records
    ]


def write(splits: Mapping[str, Sequence[Record]], images: Mapping[str, Path], out: Path) -> None:
    """Prepare a folder of records whose pictures lie in several folders, by the name before `/`."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        for name, folder in images.items():
            shutil.copytree(folder, source / "images" / name)
        for split, records in splits.items():
            write_records(source / f"{split}.jsonl", records)
        prepare("custom", source, out, dataset_name=out.name)


def moved(records: Iterable[Record], folder: str) -> list[Record]:
    """Records whose pictures and ids begin with the name of their folder."""
    return [
        record.model_copy(
            update={
                "id": f"{folder}/{record.id}",
                "image": [f"{folder}/{name}" for name in record.images] or None,
            }
        )
        for record in records
    ]


def main() -> None:
    """Make both folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("instructions", "captions", "vqa-rad", "slake", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        longer, folder = Path(scratch) / "long.jsonl", Path(scratch) / "merged"
        captions = [str(given.captions)]
        # One other question: more would double the tokens of a step with graphs.
        print(compose_captions(str(given.instructions), captions, longer, num_questions=1))
        merge_captions(str(given.instructions), longer, folder)
        instructions = open_prepared(folder)
        chosen = {
            split: [r for r in instructions.records(split) if r.meta.get("source") in SOURCES]
            for split in ("train", "validation")
        }
        learnt = hashes(instructions, chosen["train"])
        groups = look_alike_groups(learnt)
        train = [
            record.model_copy(update={"meta": record.meta | {"group": groups[min(record.images)]}})
            for record in chosen["train"]
        ]
        print(f"{len(groups)} pictures in {len(set(groups.values()))} groups")
        splits = chosen | {"train": train}
        write(
            {name: moved(records, "corpus") for name, records in splits.items()},
            {"corpus": folder / "images"},
            given.out / "instruct",
        )
    described = open_prepared(given.captions)
    seen = [*learnt.values(), *hashes(described, described.records("train")).values()]
    for folder in (given.slake, given.vqa_rad):
        prepared = open_prepared(folder)
        records = [each.first_exchange() for each in prepared.records("test")]
        own = marked(records, hashes(prepared, records), seen)
        name = folder.name
        print(f"{name}: {sum(r.meta['seen_look_alike'] for r in own)} of {len(own)} look alike")
        write({"test": moved(own, name)}, {name: prepared.path / "images"}, given.out / name)


if __name__ == "__main__":
    main()
