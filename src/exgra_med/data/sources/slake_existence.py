"""Existence questions about SLAKE's pictures: is a finding there, yes or no?

The truth are the published boxes (`detection.json` beside each picture). A box of a finding means
that it is there; no box of it, that the annotators drew none. Organs are not asked for, since their
boxes are incomplete: of SLAKE's 592 questions "Does the picture contain ...?" about an organ
without a box, 224 have the answer yes. Those of findings are not: they agree with the answers to
"What diseases are included in the picture?" in 218 of 221 cases.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from exgra_med.data.existence import MOST_PRESENT, Asked, Truth, existence_questions
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, Turn, read_json_list
from exgra_med.data.sources.rows import text_field
from exgra_med.data.sources.slake import find_release
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.errors import DataError
from exgra_med.reading import inside, read_json

NAME = "slake-existence"
FINDINGS = {
    "Atelectasis": "atelectasis",
    "Brain Edema": "a brain edema",
    "Brain Enhancing Tumor": "an enhancing brain tumor",
    "Brain Non-enhancing Tumor": "a non-enhancing brain tumor",
    "Cardiomegaly": "cardiomegaly",
    "Effusion": "a pleural effusion",
    "Infiltrate": "an infiltrate",
    "Liver Cancer": "liver cancer",
    "Lung Cancer": "lung cancer",
    "Mass": "a mass",
    "Nodule": "a nodule",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "a pneumothorax",
}
"""Published name of a box -> as a question has it; every other name is of an organ."""
OVERLAPS = (
    # A tumour is a mass, and a nodule is a small one.
    {"Mass", "Nodule", "Lung Cancer"},
    {"Mass", "Nodule", "Liver Cancer"},
    {"Mass", "Nodule", "Brain Enhancing Tumor"},
    {"Mass", "Nodule", "Brain Non-enhancing Tumor"},
    # An infiltrate is what pneumonia looks like.
    {"Infiltrate", "Pneumonia"},
)
"""Findings that can be called by each other's names."""


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read a folder with `train.json`, `validate.json`, `test.json` and `imgs/` with its boxes.

    A picture is in the split of its English questions.

    Raises:
        DataError: a file is missing or cannot be understood; names it.
    """
    files, root = find_release(source)
    dropped: list[Dropped] = []
    splits: dict[str, list[Record]] = {}
    counts: dict[str, dict[str, int]] = {}
    for split, path in files.items():
        pictures = _pictures(path, root, split, dropped)
        asked = list(existence_questions(pictures, options.seed, OVERLAPS))
        splits[split] = [_record(split, each) for each in asked]
        counted = Counter(kind for each in asked for kind in each.kinds)
        counts[split] = {"pictures": len(pictures), **dict(sorted(counted.items()))}
    if not any(splits.values()):
        raise DataError(
            f"{root}: no picture has a detection.json beside it.",
            "Unpack the published imgs.zip, which has the boxes.",
        )
    images = ImageFolder(root, options.max_pixels, within=source)
    notes = {"existence_questions": counts, "most_present": MOST_PRESENT}
    return Collected(splits, images, list(files.values()), dropped, notes)


def _pictures(path: Path, root: Path, split: str, dropped: list[Dropped]) -> list[Truth]:
    found: dict[str, Truth] = {}
    for number, row in enumerate(read_json_list(path)):
        where = f"{path.name}: row {number} (qid {row.get('qid')})"
        image = text_field(row, "img_name", where)
        if text_field(row, "q_lang", where) != "en" or image in found:
            continue
        modality, location = (text_field(row, key, where) for key in ("modality", "location"))
        folder = image.rpartition("/")[0]
        boxes = inside(root, f"{folder}/detection.json", where, called="the image folder")
        if not boxes.is_file():
            name = f"{NAME}/{split}/{folder}"
            if name not in {each.id for each in dropped}:
                dropped.append(Dropped(name, "no detection.json beside the picture"))
            continue
        meta: dict[str, Any] = {"modality": modality, "organ": location}
        group = f"{modality}/{location}"
        found[image] = Truth(image, _findings(boxes), group, meta)
    return list(found.values())


def _findings(path: Path) -> frozenset[str]:
    """The findings with a box, by their published names."""
    boxes = read_json(path)
    if not isinstance(boxes, list) or not all(isinstance(each, dict) for each in boxes):
        raise DataError(f"{path}: not a list of boxes.", "It holds objects {name: [x, y, w, h]}.")
    return frozenset(name for each in boxes for name in each if name in FINDINGS)


def _record(split: str, asked: Asked) -> Record:
    name = re.sub(r"[^a-z]+", "-", asked.finding.lower())
    folder = asked.truth.image.rpartition("/")[0] or asked.truth.image
    answer = "Yes" if asked.is_there else "No"
    question = f"Is there {FINDINGS[asked.finding]} in this picture?"
    return Record(
        id=f"{NAME}/{split}/{folder}-{name}",
        image=asked.truth.image,
        turns=[Turn(role="user", text=question), Turn(role="assistant", text=answer)],
        answer_type="CLOSED",
        meta={
            "split": split,
            "language": "en",
            **asked.truth.meta,
            "finding": asked.finding,
            "existence": list(asked.kinds),
            "options": ["Yes", "No"],
        },
    )


SOURCE = Source(
    name=NAME,
    title="Is a finding there? Yes/no questions from the boxes of SLAKE's 642 pictures",
    licence="CC BY 4.0 as a whole; images of upstream sets under their own (some CC BY-NC-SA)",
    variants={"en": "in English; pictures split as the English questions are"},
    collect=collect,
    hub="BoKelvin/SLAKE",
)
