"""SLAKE 1.0 (Liu et al. 2021): English and Chinese questions on 642 images.

Each language is split by image, but not the two together: 142 images are in the training split of
one language and in the test split of the other. The variant `both-disjoint` leaves such training
rows out. Pictures of one patient are in both, too: 34 of the 96 English test pictures are
neighbouring slices or other look-alikes of training pictures, which `en-without-twins` leaves out.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.lookalikes import NEAR_BITS, with_a_twin
from exgra_med.data.records import Record, image_names, read_json_list
from exgra_med.data.sources.rows import (
    answer_type_field,
    check_counts,
    facts,
    find_path,
    text_field,
    text_fields,
    vqa_record,
    without_images,
)
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.errors import DataError

NAME = "slake"
FILES = {
    "train": ("train.json",),
    # The hub's copy calls the same file validation.json.
    "validation": ("validate.json", "validation.json"),
    "test": ("test.json",),
}
EXPECTED = {
    ("train", "en"): 4919,
    ("train", "zh"): 4916,
    ("validation", "en"): 1053,
    ("validation", "zh"): 1046,
    ("test", "en"): 1061,
    ("test", "zh"): 1033,
}
"""Rows of the complete release, by split and language."""

_LANGUAGES = {
    "en": {"en"},
    "zh": {"zh"},
    "both": {"en", "zh"},
    "both-disjoint": {"en", "zh"},
    "en-without-twins": {"en"},
}


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read a folder with `train.json`, `validate.json`, `test.json` and `imgs/`.

    Raises:
        DataError: a file is missing or a row cannot be understood; names file and row.
    """
    files, root = find_release(source)
    languages = _LANGUAGES[options.variant]
    dropped: list[Dropped] = []
    found: Counter[tuple[str, str]] = Counter()
    splits: dict[str, list[Record]] = {split: [] for split in FILES}
    for split, path in files.items():
        for number, row in enumerate(read_json_list(path)):
            where = f"{path.name}: row {number} (qid {row.get('qid')})"
            language = text_field(row, "q_lang", where)
            if language not in ("en", "zh"):
                raise DataError(f"{where}: unknown q_lang {language!r}.", "Known are en and zh.")
            found[split, language] += 1
            if language not in languages:
                continue
            qid = text_field(row, "qid", where)
            meta: dict[str, Any] = {
                "published_id": qid,
                "split": split,
                "language": language,
                **text_fields(row, where, organ="location", modality="modality"),
                **text_fields(row, where, question_type="content_type", base_type="base_type"),
                "image_id": text_field(row, "img_id", where),
                "triple": row.get("triple"),
            }
            record = vqa_record(
                f"{NAME}/{split}/{qid}",
                row,
                where,
                image=text_field(row, "img_name", where),
                answer_type=answer_type_field(row, where),
                meta=meta,
                dropped=dropped,
            )
            if record:
                splits[split].append(record)
    notes: dict[str, Any] = {"completeness": check_counts(NAME, found, EXPECTED)}
    images = ImageFolder(root, options.max_pixels, within=source)
    trained, tested = image_names(splits["train"]), image_names(splits["test"])
    notes["test_images_in_train"] = len(trained & tested)
    if options.variant == "both-disjoint":
        reason = "its image is in validation or test of the other language"
        for split, later in (("train", ("validation", "test")), ("validation", ("test",))):
            taken = set().union(*(image_names(splits[name]) for name in later))
            splits[split] = without_images(splits[split], taken, reason, dropped)
    if options.variant == "en-without-twins":
        nearest = with_a_twin(images, tested, trained)
        reason = f"its image looks like one of train (at most {NEAR_BITS} of 64 bits differ)"
        splits["test"] = without_images(splits["test"], set(nearest), reason, dropped)
        notes["test_images_with_twin_in_train"] = nearest
    notes |= facts(splits)
    return Collected(splits, images, list(files.values()), dropped, notes)


def find_release(source: Path) -> tuple[dict[str, Path], Path]:
    """The file of each split, and the folder of the pictures.

    Raises:
        DataError: one is missing.
    """
    hint = "Get SLAKE 1.0 from the hub: BoKelvin/SLAKE."
    files = {split: find_path(source, names, hint) for split, names in FILES.items()}
    hint = "Unpack imgs.zip beside the JSON."
    return files, find_path(source, ("imgs", "images"), hint, is_folder=True)


SOURCE = Source(
    name=NAME,
    title="SLAKE 1.0: 642 radiology images, 14,028 questions in English and Chinese",
    licence="CC BY 4.0 as a whole; images of upstream sets under their own (some CC BY-NC-SA)",
    variants={
        "en": "the English questions, as in the paper",
        "zh": "the Chinese questions",
        "both": "both languages; test images of one are in train of the other (reported)",
        "both-disjoint": "both languages, training rows on a held-out image left out (listed)",
        "en-without-twins": "English, test images that look like one of train left out (listed)",
    },
    collect=collect,
    hub="BoKelvin/SLAKE",
)
