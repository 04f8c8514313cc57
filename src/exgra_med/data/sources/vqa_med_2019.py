"""VQA-Med 2019 (Ben Abacha et al. 2019): lines `image|question|answer`, four kinds of questions.

`#` stands between several right answers, of which any one counts, and in the test a part in
brackets may be left out. The answer of a record is the first one; all are `meta.accepted_answers`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, type_by_answer
from exgra_med.data.sources.pictures import RowImages
from exgra_med.data.sources.rows import check_counts, facts, vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.errors import DataError
from exgra_med.reading import read_text

NAME = "vqa-med-2019"
EXPECTED = {("train",): 12_792, ("validation",): 2_000, ("test",): 500}
"""Rows of the complete release."""

_CATEGORIES = ("modality", "plane", "organ", "abnormality")
_ENDINGS = {"train": "train", "validation": "val"}
_TEST = "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
_HINT = "Get the three archives at https://zenodo.org/records/10499039 and unpack each."


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read the unpacked archives of training, validation and test; what is not there stays empty.

    Raises:
        DataError: nothing is there, or a line cannot be understood; names file and line.
    """
    images = RowImages.of(ImageFolder(source, options.max_pixels))
    dropped: list[Dropped] = []
    found: Counter[Any] = Counter()
    files: list[Path] = []
    splits: dict[str, list[Record]] = {split: [] for split in ("train", "validation", "test")}
    for split, records in splits.items():
        for path, category in _files(source, split):
            files.append(path)
            folder = _pictures(path.parent if category is None else path.parent.parent, source)
            for number, (where, parts) in enumerate(_lines(path, 4 if split == "test" else 3)):
                found[split,] += 1
                kind = parts[1].strip().lower() if split == "test" else category
                name = f"{NAME}/{split}/{f'{category}/' if category else ''}{number}"
                image = images.names(f"{folder}/{parts[0].strip()}", where)
                record = _record(name, split, kind, image, parts, where, dropped)
                if record:
                    records.append(record)
    if not files:
        packed = ", ".join(path.name for path in sorted(source.glob("*.zip")))
        state = f", {packed} not unpacked" if packed else ""
        raise DataError(f"{source}: there are no questions of VQA-Med 2019{state}.", _HINT)
    notes = {"completeness": check_counts(NAME, found, EXPECTED), **facts(splits)}
    return Collected(splits, images, files, dropped, notes)


def _files(source: Path, split: str) -> list[tuple[Path, str | None]]:
    """The files of a split with their category; all in one, without it, where it is not sorted."""
    if split == "test":
        return [(path, None) for path in sorted(source.rglob(_TEST))[:1]]
    ending = _ENDINGS[split]
    sorted_by_kind = [
        (path, category)
        for number, category in enumerate(_CATEGORIES, start=1)
        for path in sorted(source.rglob(f"C{number}_*_{ending}.txt"))[:1]
    ]
    if len(sorted_by_kind) in (0, len(_CATEGORIES)):
        whole = sorted(source.rglob(f"All_QA_Pairs_{ending}.txt"))[:1]
        return [*sorted_by_kind] or [(path, None) for path in whole]
    present = ", ".join(path.name for path, _ in sorted_by_kind)
    raise DataError(f"{source}: of the four categories of {split} only {present} is there.", _HINT)


def _pictures(folder: Path, source: Path) -> str:
    """The folder of pictures beside the questions, such as `Train_images`."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.lower().endswith("images"):
            return path.relative_to(source).as_posix()
    archive = next((path.name for path in sorted(folder.glob("*[Ii]mages.zip"))), "its pictures")
    raise DataError(f"{folder}: there is no folder with images.", f"Unpack {archive} there.")


def _lines(path: Path, num_parts: int) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split("|", num_parts - 1)
        if len(parts) != num_parts:
            wanted = "image|category|question|answer" if num_parts == 4 else "image|question|answer"
            raise DataError(f"{path}:{number}: {len(parts)} parts.", f"A line is {wanted}.")
        yield f"{path}:{number}", parts


def _record(
    name: str,
    split: str,
    category: str | None,
    image: list[str],
    parts: list[str],
    where: str,
    dropped: list[Dropped],
) -> Record | None:
    question, published = parts[-2].strip(), parts[-1].strip()
    accepted = [text.strip() for text in published.split("#") if text.strip()]
    meta: dict[str, Any] = {"published_id": parts[0].strip(), "split": split}
    if category:
        meta["question_type"] = category
    answer = accepted[0] if accepted else ""
    if split == "test":
        accepted = [each for text in accepted for each in _with_and_without(text)]
    if len(accepted) > 1:
        meta |= {"accepted_answers": accepted, "raw_answer": published}
    return vqa_record(
        name,
        {"question": question, "answer": answer},
        where,
        image=image,
        answer_type=type_by_answer(answer),
        meta=meta,
        dropped=dropped,
    )


def _with_and_without(text: str) -> list[str]:
    """A text, and where a part of it stands in brackets, also without brackets, and without it.

    >>> _with_and_without("noncontrast (mri)")
    ['noncontrast (mri)', 'noncontrast mri', 'noncontrast']
    """
    each = (text, re.sub(r"[()]", "", text), re.sub(r"\([^()]*\)", "", text))
    return list(dict.fromkeys(" ".join(one.split()) for one in each if one.strip()))


SOURCE = Source(
    name=NAME,
    title="VQA-Med 2019: 4,200 radiology images, modality, plane, organ and abnormality",
    licence="not stated with the files; images from MedPix (US National Library of Medicine)",
    variants={"published": "published training, validation and test"},
    collect=collect,
)
