"""Chest pictures with reports: IU X-ray (Open-i), and MIMIC-CXR as R2Gen's annotation has it.

    annotation.json                 R2Gen: {"train": [...], "val": [...], "test": [...]}
    test.json                       MedEvalKit: a list with `findings` and `impression`
    indiana_reports.csv + indiana_projections.csv      the tables of IU X-ray, which state no split

A record is a study with all its pictures. MIMIC-CXR is read from a user's own copy alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import REPORT, Record, read_json_list
from exgra_med.data.sources.rows import (
    facts,
    find_path,
    image_folder,
    report_exchange,
    text_field,
    vqa_record,
)
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.sources.tables import read_rows
from exgra_med.data.sources.values import plain_text
from exgra_med.errors import DataError
from exgra_med.reading import read_object

ANNOTATION, LIST = "annotation.json", "test.json"
TABLES = ("indiana_reports.csv", "indiana_projections.csv")
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_PICTURES = ("images/images_normalized", "images_normalized", "images", "NLMCXR_png")
_MAKE = f"Give the folder that holds {ANNOTATION}, {LIST} or {TABLES[0]}, and the pictures."


@dataclass(frozen=True, slots=True)
class _Study:
    """One report with its pictures."""

    id: str
    where: str
    split: str
    images: list[str]
    sections: Mapping[str, str]
    patient: str = ""


def collect(source: Path, options: PrepareOptions, name: str) -> Collected:
    """Read the first of the layouts above that is there.

    Raises:
        DataError: none is there, or a row cannot be understood; names file and row.
    """
    if (source / ANNOTATION).is_file():
        files = [source / ANNOTATION]
        studies = _annotated(files[0])
    elif name == "iu-xray" and (source / TABLES[0]).is_file():
        files = [source / TABLES[0], find_path(source, TABLES[1:], _MAKE)]
        studies = _tables(*files)
    else:
        names = (LIST,) if name == "iu-xray" else (ANNOTATION,)
        files = [find_path(source, names, _MAKE)]
        studies = _listed(files[0])
    splits: dict[str, list[Record]] = {split: [] for split in _SPLITS.values()}
    dropped: list[Dropped] = []
    numbers: dict[str, int] = {}
    for study in studies:
        meta: dict[str, Any] = {"published_id": study.id, "split": study.split, "task": REPORT}
        if study.patient:
            meta["group"] = numbers.setdefault(study.patient, len(numbers) + 1)
        known = f"{name}/{study.split}/{study.id}"
        if not study.images:
            dropped.append(Dropped(known, "no picture is named"))
            continue
        question, answer = report_exchange(study.sections, len(study.images))
        record = vqa_record(
            known,
            {"question": question, "answer": answer},
            study.where,
            image=study.images,
            answer_type="OPEN",
            meta=meta,
            dropped=dropped,
        )
        if record:
            splits[study.split].append(record)
    there = {split: records for split, records in splits.items() if records}
    return Collected(there or {"test": []}, _images(source, options), files, dropped, facts(there))


def _images(source: Path, options: PrepareOptions) -> ImageFolder:
    for name in _PICTURES:
        if (source / name).is_dir():
            return ImageFolder(source / name, options.max_pixels, within=source)
    return image_folder(source, options)


def _annotated(path: Path) -> Iterator[_Study]:
    """R2Gen's file; its `report` is the section of the findings."""
    whole = read_object(path)
    for key, split in _SPLITS.items():
        rows = whole.get(key, [])
        if not isinstance(rows, list):
            raise DataError(f"{path.name}: {key!r} is not a list.", _MAKE)
        for number, row in enumerate(rows):
            where = f"{path.name}: {key}: row {number}"
            if not isinstance(row, dict):
                raise DataError(f"{where}: not an object.")
            yield _Study(
                id=text_field(row, "id", where),
                where=where,
                split=split,
                images=_names(row, "image_path", where),
                sections={"findings": _section(row, "report", where)},
                patient=_section(row, "subject_id", where),
            )
    if not whole.keys() & _SPLITS.keys():
        raise DataError(f"{path.name}: none of {', '.join(_SPLITS)} is there.", _MAKE)


def _listed(path: Path) -> Iterator[_Study]:
    for number, row in enumerate(read_json_list(path)):
        where = f"{path.name}: row {number}"
        yield _Study(
            id=text_field(row, "id", where),
            where=where,
            split="test",
            images=_names(row, "image", where),
            sections={name: _section(row, name, where) for name in ("findings", "impression")},
        )


def _tables(reports: Path, projections: Path) -> Iterator[_Study]:
    """The two tables, joined by `uid`; the frontal picture comes first."""
    pictures: dict[str, list[tuple[bool, str]]] = {}
    for where, row in read_rows(projections):
        kind = _section(row, "projection", where).lower()
        known = pictures.setdefault(text_field(row, "uid", where), [])
        known.append((kind != "frontal", text_field(row, "filename", where)))
    for where, row in read_rows(reports):
        uid = text_field(row, "uid", where)
        yield _Study(
            id=uid,
            where=where,
            split="test",
            images=[name for _, name in sorted(pictures.get(uid, []))],
            sections={name: _section(row, name, where) for name in ("findings", "impression")},
        )


def _section(row: Mapping[str, Any], key: str, where: str) -> str:
    """A text that may be missing."""
    return plain_text(row.get(key), f"{where}: {key!r}")


def _names(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = row.get(key)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise DataError(f"{where}: {key!r} is no list of file names.")
    return names


IU_XRAY = Source(
    name="iu-xray",
    title="IU X-ray (Open-i): chest pictures of 3,955 studies with findings and impression",
    licence="CC BY-NC-ND 4.0, as Open-i states it",
    variants={"published": "as annotation.json has it; the tables and test.json are all test"},
    collect=partial(collect, name="iu-xray"),
)
MIMIC_CXR = Source(
    name="mimic-cxr",
    title="MIMIC-CXR in R2Gen's form: your own copy, annotation.json and pictures",
    licence="PhysioNet Credentialed Health Data License 1.5.0: not to be shared",
    variants={"published": "as annotation.json has it"},
    collect=partial(collect, name="mimic-cxr"),
)
