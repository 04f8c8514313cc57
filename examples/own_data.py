"""Draws a folder as a newcomer might have it: pictures, and a table of questions and answers.

    python examples/own_data.py mine

Each of 60 grey pictures shows one bright shape, left or right, large or small. Three pictures each
are of one made-up patient. It stands in for your own images in docs/tutorials/own-data.md. Nothing
medical is in it, and nobody was born on these days.
"""

import csv
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

QUESTIONS = (
    ("Is the shape on the left or on the right?", "side", "CLOSED"),
    ("Is there a circle?", "is_circle", "CLOSED"),
    ("What shape is it?", "shape", "OPEN"),
    ("How large is it?", "size", "OPEN"),
)


def draw(path: Path, scene: dict[str, str], numbers: random.Random) -> None:
    """One picture of 112 x 112 pixels."""
    picture = Image.new("L", (112, 112), numbers.randrange(20, 60))
    reach = 22 if scene["size"] == "large" else 11
    along = 30 if scene["side"] == "left" else 82
    down = numbers.randrange(35, 78)
    box = (along - reach, down - reach, along + reach, down + reach)
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if scene["shape"] == "circle" else pen.rectangle)(box, fill=220)
    picture.save(path)


def make(folder: Path, num_images: int = 60) -> None:
    """Write `images/` and `cases.csv`; the same folder every time."""
    (folder / "images").mkdir(parents=True)
    numbers = random.Random(0)
    rows = []
    for number in range(num_images):
        scene = {
            "side": numbers.choice(("left", "right")),
            "shape": numbers.choice(("circle", "square")),
            "size": numbers.choice(("large", "small")),
        }
        scene["is_circle"] = "yes" if scene["shape"] == "circle" else "no"
        draw(folder / "images" / f"{number:03}.png", scene, numbers)
        for question, key, kind in QUESTIONS:
            patient = number // 3
            person = (f"P{patient:04}", f"19{40 + patient}-05-17")
            rows.append((*person, f"{number:03}.png", question, scene[key], kind))
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("patient_id", "birth_date", "picture", "question", "answer", "type"))
        writer.writerows(rows)
    print(f"{num_images} images and {len(rows)} questions in {folder}")


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else "mine"))
