"""PathVQA (He et al. 2020): pathology figures; official pickles, LXMERT JSON, or the hub's parquet.

Pickles go through a reader that can build nothing but plain values. Ids are made from split and
row, because the published ones name the image.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import AnswerType, Record, read_json_list, type_by_answer
from exgra_med.data.sources.hub_copies import collect_parquet
from exgra_med.data.sources.rows import vqa_record
from exgra_med.data.sources.source import Collected, Dropped, PrepareOptions, Source
from exgra_med.data.sources.values import Row, plain_text
from exgra_med.errors import DataError

NAME = "pathvqa"
SPLITS = {"train": "train", "validation": "val", "test": "test"}
MAX_PICKLE_BYTES = 256 * 2**20
"""Larger files are refused; the largest of PathVQA has some megabytes."""


def collect(source: Path, options: PrepareOptions) -> Collected:
    """Read whichever published layout a folder has; the one with answer types is preferred.

    Raises:
        DataError: no layout is complete, or a row cannot be understood.
        MissingExtraError: only parquet files are there and pyarrow is not installed.
    """
    dropped: list[Dropped] = []
    layouts = {
        "vqa pickles": ["qas/{}_vqa.pkl"],
        "qa pickles": ["qas/{0}/{0}_qa.pkl", "qas/{}_qa.pkl"],
        "lxmert json": ["pvqa_{}.json", "qas/pvqa_{}.json"],
    }
    for layout, patterns in layouts.items():
        for pattern in patterns:
            files = {split: source / pattern.format(SPLITS[split]) for split in SPLITS}
            present = [path for path in files.values() if path.is_file()]
            if not present:
                continue
            absent = [path for path in files.values() if path not in present]
            if absent:
                raise DataError(f"{absent[0]}: missing, while {present[0].name} is there.")
            splits = {
                split: list(_records(_rows(layout, path), split, dropped))
                for split, path in files.items()
            }
            images = ImageFolder(source / "images", options.max_pixels, within=source)
            notes = {"layout": layout}
            return Collected(splits, images, list(files.values()), dropped, notes)
    if any(source.rglob("train-*.parquet")):
        return collect_parquet(NAME, source, options)
    raise DataError(
        f"{source}: no layout of PathVQA is there.",
        "Expected qas/*_vqa.pkl, qas/*/*_qa.pkl, pvqa_*.json, or train-*.parquet and so on.",
    )


def _rows(layout: str, path: Path) -> Iterator[Row]:
    """Rows with `img_id`, question, answer, kind of answer, and what else is published."""
    if layout == "lxmert json":
        for number, entry in enumerate(read_json_list(path)):
            where = f"{path.name}: entry {number}"
            questions, answers = (_parallel(entry, key, where) for key in ("sentf", "labelf"))
            if len(questions) != len(answers):
                raise DataError(f"{where}: {len(questions)} questions, {len(answers)} answers.")
            for question, label in zip(questions, answers, strict=True):
                answer = _label(label, where)
                yield where, entry | {"question": question, "answer": answer, "kind": None}
        return
    value = read_plain_pickle(path)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(f"{path.name}: expected a list of dicts.")
    for number, row in enumerate(value):
        where = f"{path.name}: row {number}"
        if layout == "vqa pickles":
            texts = {"question": row.get("sent"), "answer": _label(row.get("label"), where)}
            yield where, row | texts | {"kind": row.get("answer_type")}
        else:
            texts = {"question": row.get("question"), "answer": row.get("answer")}
            yield where, texts | {"img_id": row.get("image"), "kind": None}


def _parallel(entry: dict[str, Any], key: str, where: str) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, dict) or not isinstance(value.get("pvqa"), list):
        raise DataError(f"{where}: {key}.pvqa is not a list.")
    return value["pvqa"]


def _label(label: Any, where: str) -> str:
    """The first answer of a label, which may have none; the original takes the first too."""
    if not isinstance(label, dict):
        raise DataError(f"{where}: the label is not a dict.")
    return str(next(iter(label), ""))


def _records(rows: Iterator[Row], split: str, dropped: list[Dropped]) -> Iterator[Record]:
    for number, (where, row) in enumerate(rows):
        image, kind = row.get("img_id"), row["kind"]
        if not isinstance(image, str) or not image:
            raise DataError(f"{where}: the image id is missing.")
        if kind not in ("yes/no", "other", "number", None):
            raise DataError(
                f"{where}: unknown answer_type {kind!r}.", "Known: yes/no, other, number."
            )
        path = f"{SPLITS[split]}/{image}.jpg"
        # `other` answers that happen to be "yes" stay open, as in the original.
        answer_type: AnswerType = "CLOSED" if kind == "yes/no" else "OPEN"
        if kind is None:
            answer_type = type_by_answer(plain_text(row["answer"], f"{where}: the answer"))
        meta = {"split": split, "published_image": Path(path).stem}
        if row.get("question_id") is not None:
            meta["published_id"] = row["question_id"]
        if row.get("question_type"):
            meta["question_type"] = row["question_type"]
        record = vqa_record(
            f"{NAME}/{split}/{number}",
            row,
            where,
            image=path,
            answer_type=answer_type,
            meta=meta,
            dropped=dropped,
        )
        if record:
            yield record


class _PlainUnpickler(pickle.Unpickler):
    """The one place that unpickles. It refuses every name, so that no function can be called."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it has a persistent id")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, text and numbers.

    Raises:
        DataError: the file names a class or function, is too large, cut short, or no pickle.
    """
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise DataError(f"{path}: larger than {MAX_PICKLE_BYTES} bytes.")
        with path.open("rb") as stream:
            return _PlainUnpickler(stream).load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except DataError:
        raise
    # A hostile or broken pickle raises whatever it likes: all of it means a refused file.
    except Exception as error:
        raise DataError(
            f"{path}: refused, not a pickle of plain values ({error}).",
            "Nothing of it was run; convert it to JSON where you trust it.",
        ) from error


SOURCE = Source(
    name=NAME,
    title="PathVQA: pathology figures from textbooks, 32,795 questions",
    licence="MIT stated; figures and captions belong to their publishers",
    variants={"official": "published train, validation and test"},
    collect=collect,
    hub="flaviagiammarino/path-vqa",
)
