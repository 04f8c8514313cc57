"""Scores of a run with and without the test pictures that look like a training picture.

    PYTHONPATH=src python tools/small_look_alikes.py RUN data/slake

RUN has answers to the test of the prepared folder: `exgra-med evaluate vqa RUN --data data/slake`.
"""

import sys
from pathlib import Path

from claim_data import hashes

from exgra_med.data.lookalikes import near_pairs
from exgra_med.data.records import open_prepared
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.score import score_vqa
from exgra_med.evaluation.session import stored_answers

MEASURES = ("average", "open_recall", "closed_accuracy")


def main(run: Path, data: str) -> None:
    """Print both rows of the table."""
    prepared = open_prepared(data)
    (entry,) = read_results(run).find("vqa", prepared.manifest["dataset"])
    answers = stored_answers(run, entry)
    records = [each.first_exchange() for each in prepared.records("test")]
    own = hashes(prepared, records)
    names, seen = list(own), hashes(prepared, prepared.records("train"))
    near = {names[row] for row, _ in near_pairs(list(own.values()), list(seen.values()))}
    print(f"{len(near)} of {len(names)} pictures look like a training picture")
    for title, chosen in (
        ("in all", records),
        ("without look-alikes", [r for r in records if near.isdisjoint(r.images)]),
    ):
        ids = {each.id for each in chosen}
        scores = score_vqa([a for a in answers if a.id in ids], chosen, groups=False)["scores"]
        cells = []
        for name in MEASURES:
            low, high = scores[name]["interval"]
            cells.append(f"{scores[name]['value']:.1f} ({low:.1f} to {high:.1f})")
        print(f"| {len(chosen):,} {title} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
