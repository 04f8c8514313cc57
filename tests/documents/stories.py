"""What a newcomer has before following a page: the stage on which its commands are executed."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exgra_med.data.records import open_prepared

BUNDLED = "bundled:vqa-rad-sample"
Prepare = Callable[[Path, Path], None]
"""Gets the scratch folder, which is also the home folder, and a run of `debug/tiny`."""


def published_rad(folder: Path) -> None:
    """VQA-RAD in its published layout, with rows of the bundled sample: 40 to learn, 12 to test."""
    prepared = open_prepared(BUNDLED)
    (folder / "images").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for split, kind, count in (("train", "freeform", 40), ("test", "test_freeform", 12)):
        for record in prepared.records(split)[:count]:
            shutil.copy(prepared.path / "images" / record.images[0], folder / "images")
            rows.append(
                {
                    "qid": len(rows),
                    "phrase_type": kind,
                    "image_name": record.images[0],
                    "image_organ": "CHEST",
                    "evaluation": "evaluated",
                    "question": record.question,
                    "question_rephrase": "NULL",
                    "question_type": "PRES",
                    "answer": record.answer,
                    "answer_type": record.answer_type,
                }
            )
    text = json.dumps(rows)
    (folder / "VQA_RAD Dataset Public.json").write_text(text, encoding="utf-8")


def prepared_rad(folder: Path) -> None:
    """A prepared folder, as `data prepare` makes it."""
    from exgra_med.data.prepare import prepare

    source = folder.parent / f"{folder.name}-source"
    published_rad(source)
    prepare("vqa-rad", source, folder)


def trained(*places: str) -> Prepare:
    """Runs that somebody has trained."""

    def put(home: Path, tiny: Path) -> None:
        for place in places:
            shutil.copytree(tiny, home / place)

    return put


def checkpoint(place: str) -> Prepare:
    """A checkpoint that somebody has imported or trained."""

    def put(home: Path, tiny: Path) -> None:
        shutil.copytree(tiny / "checkpoints" / "vqa" / "final", home / place)

    return put


def picture(home: Path, tiny: Path) -> None:
    """`image.png`, something to ask about."""
    from PIL import Image

    Image.new("RGB", (80, 60), (90, 90, 90)).save(home / "image.png")


def rad_at(place: str) -> Prepare:
    """The published files of VQA-RAD."""
    return lambda home, tiny: published_rad(home / place)


def prepared_at(place: str) -> Prepare:
    """A prepared VQA-RAD."""
    return lambda home, tiny: prepared_rad(home / place)


def german_table(home: Path, tiny: Path) -> None:
    """Somebody's own table, whose columns have names of their own."""
    from PIL import Image

    (home / "mine" / "images").mkdir(parents=True)
    with (home / "mine" / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", "Frage", "Antwort"))
        for number in range(30):
            name = f"{number}.png"
            Image.new("L", (40, 40), 8 * number).save(home / "mine" / "images" / name)
            writer.writerow((name, "Is it bright?", "yes" if number > 15 else "no"))


def long_answers(home: Path, tiny: Path) -> None:
    """`long.jsonl`, an extended answer for every answer of data/vqa-rad."""
    prepared_rad(home / "for-long")
    lines = [
        json.dumps({"id": record.id, "extended": [f"It is {answer}." for answer in record.answers]})
        for split in ("train", "validation", "test")
        for record in open_prepared(home / "for-long").records(split)
    ]
    (home / "long.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def the_checkout(home: Path, tiny: Path) -> None:
    """What a page that starts in a checkout finds there."""
    project = Path(__file__).resolve().parents[2]
    for place in ("examples", "src/exgra_med/data/samples"):
        shutil.copytree(project / place, home / place)


STORIES: dict[str, tuple[Prepare, ...]] = {
    "README.md": (rad_at("vqa_rad"),),
    "docs/how-to/cards.md": (),
    "docs/how-to/checkpoints.md": (checkpoint("checkpoints/exgra-med-dci"), picture),
    "docs/how-to/evaluate.md": (
        rad_at("vqa_rad"), trained("runs/demo", "runs/a", "runs/b"),
    ),
    "docs/how-to/extended-captions.md": (),
    "docs/how-to/lora.md": (),
    "docs/how-to/prepare-data.md": (
        rad_at("Downloads/vqa_rad"), german_table, long_answers, checkpoint("checkpoints/start"),
    ),
    "docs/how-to/run-a-study.md": (),
    "docs/how-to/train-at-full-size.md": (),
    "docs/reference/datasets.md": (),
    "docs/reference/recipe-schema.md": (),
    "docs/tutorials/demo.md": (the_checkout,),
    "docs/tutorials/one-gpu.md": (),
    "docs/tutorials/own-data.md": (the_checkout,),
}  # fmt: skip
"""Page -> what is there before its first command. Blocks that need something are passed over."""
