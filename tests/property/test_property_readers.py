"""One set of questions, written in every format that `custom` reads, comes back the same."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from exgra_med.data.sources.custom import collect
from exgra_med.data.sources.options import plain_option, read_options
from exgra_med.data.sources.source import PrepareOptions
from exgra_med.errors import ExgraMedError

NAMES = ["a.png", "b, c.png", "sub/d.png"]
TEXT = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda text: text and "<i" not in text.lower() and "<|" not in text)
)
ROW = st.fixed_dictionaries(
    {
        "question": TEXT,
        "answer": TEXT,
        "images": st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
        "options": st.none() | st.lists(TEXT, min_size=2, max_size=4, unique_by=plain_option),
    }
)


def table(path: Path, rows: list[dict[str, Any]], separator: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator)
        writer.writerow(["image", "question", "answer", "options"])
        for row in rows:
            options = json.dumps(row["options"]) if row["options"] else ""
            writer.writerow([json.dumps(row["images"]), row["question"], row["answer"], options])


def lines(path: Path, rows: list[dict[str, Any]], make: Callable[[dict], dict]) -> None:
    made = [make(row) | ({"options": row["options"]} if row["options"] else {}) for row in rows]
    text = json.dumps(made) if path.suffix == ".json" else "\n".join(map(json.dumps, made))
    path.write_text(text, encoding="utf-8")


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    written = pytest.importorskip("pyarrow.parquet")
    text, many = pyarrow.string(), pyarrow.list_(pyarrow.string())
    schema = [("images", many), ("question", text), ("answer", text), ("options", many)]
    written.write_table(pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(schema)), path)


def places(row: dict[str, Any]) -> str:
    return "<image>" * len(row["images"]) + "\n" + row["question"]


def llava(row: dict[str, Any]) -> dict[str, Any]:
    talk = [{"from": "human", "value": places(row)}, {"from": "gpt", "value": row["answer"]}]
    return {"image": row["images"], "conversations": talk}


def messages(row: dict[str, Any]) -> dict[str, Any]:
    talk = [
        {"role": "user", "content": places(row)},
        {"role": "assistant", "content": row["answer"]},
    ]
    return {"images": row["images"], "messages": talk}


def parts(row: dict[str, Any]) -> dict[str, Any]:
    images = [{"type": "image_url", "image_url": {"url": name}} for name in row["images"]]
    content = [*images, {"type": "text", "text": row["question"]}]
    talk = [{"role": "user", "content": content}, {"role": "assistant", "content": row["answer"]}]
    return {"messages": talk}


def alpaca(row: dict[str, Any]) -> dict[str, Any]:
    return {"images": row["images"], "instruction": places(row), "output": row["answer"]}


def swift(row: dict[str, Any]) -> dict[str, Any]:
    return {"images": row["images"], "query": places(row), "response": row["answer"]}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {"image": row["images"], "question": row["question"], "answer": row["answer"]}


FORMATS: dict[str, tuple[str, Callable[[Path, list], None]]] = {
    **{f"table {mark!r}": ("csv", lambda path, rows, mark=mark: table(path, rows, mark))
       for mark in ",;\t|"},
    "parquet": ("parquet", parquet),
    **{f"{make.__name__} {ending}": (ending, lambda path, rows, make=make: lines(path, rows, make))
       for make in (plain, llava, messages, parts, alpaca, swift) for ending in ("json", "jsonl")},
}  # fmt: skip


def read(folder: Path) -> list[tuple[Any, ...]]:
    collected = collect(folder, PrepareOptions("given", 0, 10_000))
    return [
        (r.images, r.question, r.answer, r.meta.get("options"), r.meta.get("answer_index"))
        for r in collected.splits["train"]
    ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(ROW, min_size=1, max_size=3), st.data())
def test_every_format_reads_the_same_records(rows: list[dict[str, Any]], data: Any) -> None:
    for row in rows:
        if row["options"]:
            options = read_options(row["options"], "row")
            # Texts such as "A. x", "B. y" lose their letters: the same ones in every format.
            assume(options is not None and options.texts == row["options"])
            row["answer"] = data.draw(st.sampled_from(row["options"]))
    expected = [
        (row["images"], row["question"], row["answer"], row["options"],
         row["options"].index(row["answer"]) if row["options"] else None)
        for row in rows
    ]  # fmt: skip
    with TemporaryDirectory() as name:
        folder = Path(name)
        for image in NAMES:
            path = folder / "images" / image
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2)).save(path)
        for form, (ending, write) in FORMATS.items():
            path = folder / f"train.{ending}"
            write(path, rows)
            assert read(folder) == expected, form
            path.unlink()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from(["a.png", "<image>", "A", "B", "CT|MRI", "['a', 'b']", "user", "text"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["A", "B", "role", "content", "from", "value", "type", "text", "x"]),
        inner,
        max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = ["id", "image", "images", "question", "answer", "options", "answer_type", "messages"]
KEYS += ["conversations", "query", "response", "history", "system", "A", "B", "extended", "turns"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=6), max_size=3))
def test_whatever_a_row_holds_is_read_or_refused_in_a_sentence(rows: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as name:
        (Path(name) / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        try:
            read(Path(name))
        except ExgraMedError as error:
            assert str(error).count("Traceback") == 0 and len(str(error)) < 2000
