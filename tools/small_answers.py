"""Right and wrong answers of the small model, with their pictures, for the documentation.

    PYTHONPATH=src python tools/small_answers.py RUN docs/figures/small

RUN has answers to `bundled:slake-sample` (CC BY pictures alone):
`exgra-med evaluate vqa small --data bundled:slake-sample --out RUN`. Of each kind of question one
right and one wrong answer are drawn, by a hash of their ids and not by how they look.
"""

import sys
from collections import defaultdict
from pathlib import Path

from exgra_med.data.records import Record, open_prepared
from exgra_med.data.subset import seeded_key
from exgra_med.evaluation.reading import words
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.session import stored_answers
from exgra_med.files import write_text

DATA = "bundled:slake-sample"
WIDTH = 120
"""Pixels of a picture in the table."""


def chosen(records: list[Record], answers: dict[str, str]) -> list[tuple[Record, bool]]:
    """(record, whether it was answered rightly) by kind of question, each picture at most once."""
    by_kind: dict[str, dict[bool, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda record: seeded_key(0, record.id)):
        right = words(answers[record.id]) == words(record.answer)
        by_kind[str(record.meta["question_type"])][right].append(record)
    shown: set[str] = set()
    found = []
    for kind in sorted(by_kind):
        for right in (True, False):
            new = [each for each in by_kind[kind][right] if each.image_group not in shown]
            if new:
                shown.add(new[0].image_group)
                found.append((new[0], right))
    return found


def main(run: Path, out: Path) -> None:
    """Write the pictures and a table in Markdown beside them."""
    (entry,) = read_results(run).find("vqa", "slake-sample")
    answers = {each.id: each.text for each in stored_answers(run, entry)}
    prepared = open_prepared(DATA)
    images = prepared.image_folder(50_000_000)
    out.mkdir(parents=True, exist_ok=True)
    lines = ["| picture | question, and SLAKE's answer | `small` |", "| --- " * 3 + "|"]
    for number, (record, right) in enumerate(chosen(prepared.records("test"), answers)):
        picture = images.open(record.images[0])
        picture.thumbnail((WIDTH, WIDTH))
        picture.save(out / f"{number:02}.jpg", quality=85)
        alt = f"{record.meta['modality']} of SLAKE"
        said = f"{'right' if right else '**wrong**'}: {answers[record.id]}"
        question = f"{record.question} SLAKE: {record.answer}"
        cells = (f"![{alt}](../figures/small/{number:02}.jpg)", question, said)
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    write_text(out / "answers.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
