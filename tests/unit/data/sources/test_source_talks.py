"""Talks as LLaVA, LLaMA-Factory, ms-swift and OpenAI write them, and the places of images."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.prepare import prepare
from exgra_med.data.records import Record
from exgra_med.data.talks import place_images
from exgra_med.errors import DataError


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png"]):
        Image.new("RGB", (9, 8), (number * 90, 60, 30)).save(folder / "images" / name)
    return folder


def read(folder: Path, *rows: dict[str, Any]) -> list[Record]:
    (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    return prepare("custom", folder, folder.parent / "out", overwrite=True).records("train")


def llava(*texts: Any) -> list[dict[str, Any]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def chat(*texts: Any) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text}
            for n, text in enumerate(texts)]  # fmt: skip


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


URL = {"type": "image_url", "image_url": {"url": "a.png"}}
SYSTEM = "You are a radiologist."


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.png", "conversations": llava("<image>\nLung?", "yes")},
        {"image": "a.png", "conversatons": llava("Lung?\n<image>", "yes")},
        {"image": ["a.png"], "conversations": llava("Lung?", "yes")},
        {"images": ["a.png"], "conversations": llava("<image>Lung?", "yes")},
        {"images": "a.png", "conversations": chat("<image>Lung?", "yes")},
        {"images": ["a.png"], "messages": chat("<image>Lung?", "yes")},
        {"images": [{"path": "a.png", "bytes": None}], "messages": chat("Lung?", "yes")},
        {"messages": chat([URL, text("Lung?")], "yes")},
        {"messages": chat([text("Lung?"), URL], [text("yes")])},
        {"messages": chat([{"type": "image", "image": "a.png"}, text("Lung?")], "yes")},
        {"messages": chat([{"type": "input_image", "image_url": "a.png"},
                           {"type": "input_text", "text": "Lung?"}], "yes")},
        {"images": ["a.png"], "messages": chat([{"type": "image"}, text("Lung?")], "yes")},
        {"messages": chat([{"type": "image", "image": {"path": "a.png", "bytes": None}},
                           text("Lung?")], "yes")},
        {"images": ["a.png"], "messages": chat([{"type": "image", "text": None}, text("Lung?")],
                                               [{"type": "text", "text": "yes"}])},
        {"images": ["a.png"], "conversation": [{"human": "<image>Lung?", "assistant": "yes"}]},
        {"images": ["a.png"], "instruction": "<image>Lung?", "input": "", "output": "yes"},
        {"images": ["a.png"], "instruction": "Lung?", "output": "yes", "history": []},
        {"images": ["a.png"], "query": "<image>Lung?", "response": "yes", "history": None},
        {"images": ["images\\A.PNG"], "query": "Lung?", "response": "yes", "videos": []},
        {"image": "a.png", "question": "<image>\nLung?", "answer": "yes"},
    ],
    ids=lambda row: json.dumps(row)[:90],
)  # fmt: skip
def test_every_shape_gives_the_same_record(mine: Path, row: dict[str, Any]) -> None:
    [record] = read(mine, row)
    assert (record.image, record.question, record.answer) == ("a.png", "Lung?", "yes")
    assert len(record.turns) == 2
    assert record.meta.keys() <= {"published_id", "split", "raw_question"}


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": llava("<image>\nLung?", "yes", "Side?", "left")},
        {"messages": chat("<image>\nLung?", "yes", "Side?", "left")},
        {"conversation": [{"human": "<image>Lung?", "assistant": "yes"},
                          {"assistant": "left", "human": "Side?"}]},
        {"query": "Side?", "response": "left", "history": [["<image>Lung?", "yes"]]},
        {"instruction": "Side?", "output": "left", "history": [["Lung?", "yes"]]},
    ],
    ids=lambda row: next(iter(row)),
)  # fmt: skip
def test_several_turns(mine: Path, row: dict[str, Any]) -> None:
    [record] = read(mine, {"images": ["a.png"], "id": "x7"} | row)
    assert [turn.text for turn in record.turns] == ["Lung?", "yes", "Side?", "left"]
    assert record.id == "custom/train/x7" and record.image == "a.png"


def test_alpaca_joins_instruction_and_input(mine: Path) -> None:
    [record] = read(mine, {"images": "a.png", "instruction": "<image>Describe.",
                           "input": "History: cough", "output": "A lung."})  # fmt: skip
    assert record.question == "Describe.\nHistory: cough"
    empty = {
        "images": "a.png",
        "instruction": "Describe.",
        "input": float("nan"),
        "output": "A lung.",
    }
    [record] = read(mine, empty)
    assert record.question == "Describe."
    [record] = read(mine, empty | {"input": 3.0})
    assert record.question == "Describe.\n3"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": SYSTEM}, *chat("Lung?", "yes")]},
        {"conversations": [{"from": "system", "value": SYSTEM}, *llava("Lung?", "yes")]},
        {"system": SYSTEM, "conversations": llava("Lung?", "yes")},
        {"system": SYSTEM, "query": "Lung?", "response": "yes"},
        {"messages": [{"role": "system", "content": [text(SYSTEM)]}, *chat("Lung?", "yes")]},
    ],
)
def test_a_system_prompt_is_kept_beside_the_talk_and_counted(mine: Path, row: dict) -> None:
    [record] = read(mine, {"images": ["a.png"]} | row)
    assert [turn.text for turn in record.turns] == ["Lung?", "yes"]
    assert record.meta["system"] == SYSTEM
    manifest = prepare("custom", mine, mine.parent / "out").manifest
    assert manifest["notes"]["system_prompts_in_meta"] == 1


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["<image>\n<image>\nWhich changed?", "left"], ["Which changed?", "left"]),
        (["Which changed?\n<image><image>", "left"], ["Which changed?", "left"]),
        (["Image-1: <image>\nImage-2: <image>\nSame?", "no"],
         ["Image-1: <image>\nImage-2: <image>\nSame?", "no"]),
        (["<image>\nFirst.\n<image>", "no"], ["<image>\nFirst.\n<image>", "no"]),
        (["<image>Lung?", "yes", "And <image>?", "no"],
         ["<image>Lung?", "yes", "And <image>?", "no"]),
        (["Hi!", "Hello!", "<image><image>Same?", "no"],
         ["Hi!", "Hello!", "<image><image>Same?", "no"]),
        (["<image 1> or <image 2>?", "first"], ["<image> or <image>?", "first"]),
        (["<|image_1|>\n<|image_2|>\nSame?", "no"], ["Same?", "no"]),
        (["<|vision_start|><|image_pad|><|vision_end|>A, <IMAGE> B?", "A"],
         ["<image>A, <image> B?", "A"]),
        (["<start_of_image> to <ImageHere>", "ok"], ["<image> to <image>", "ok"]),
        (["<image><image>", "Two lungs."], ["<image><image>", "Two lungs."]),
        (["No placeholder.", "ok"], ["No placeholder.", "ok"]),
    ],
)  # fmt: skip
def test_an_image_stands_where_its_placeholder_does(
    mine: Path, texts: list[str], expected: list[str]
) -> None:
    [record] = read(mine, {"images": ["a.png", "b.png"], "conversations": llava(*texts)})
    assert [turn.text for turn in record.turns] == expected
    assert record.image == ["a.png", "b.png"]


def test_parts_keep_their_order(mine: Path) -> None:
    parts = [text("Before:"), URL, text("after:"), URL | {"image_url": {"url": "b.png"}}]
    [record] = read(mine, {"messages": chat([*parts, text("Changed?")], "yes")})
    assert record.question == "Before:\n<image>\nafter:\n<image>\nChanged?"
    assert record.image == ["a.png", "b.png"]


def test_one_image_in_mid_sentence_keeps_its_place(mine: Path) -> None:
    [record] = read(mine, {"image": "a.png", "conversations": llava("In <image>, lung?", "yes")})
    assert record.question == "In <image>, lung?" and record.image == "a.png"


@pytest.mark.parametrize(
    "row, message",
    [
        ({"image": "a.png", "conversations": llava("<image><image>Same?", "no")},
         "2 <image> for 1 image"),
        ({"images": ["a.png", "b.png"], "conversations": llava("<image>Same?", "no")},
         "1 <image> for 2 images"),
        ({"conversations": llava("<image>Lung?", "no")}, "1 <image> for 0 images"),
        ({"image": "a.png", "question": "Is <image> <image>?", "answer": "x"},
         "2 <image> for 1 image"),
        ({"image": "a.png", "conversations": llava("Lung?", "see <image>")}, "turn 1 holds"),
        ({"image": "a.png", "question": "Lung?", "answer": "<image>yes"}, "turn 1 holds <image>"),
        ({"images": ["a.png", "b.png"], "query": "<image 2> and <image 1>?", "response": "x"},
         r"another order than 1, 2, ... \(\[2, 1\]\)"),
        ({"query": "<img>a.png</img>Lung?", "response": "x"}, "named inside the text"),
        ({"image": "a.png", "messages": chat([URL, text("Lung?"), URL], "yes")},
         "some images are named in the messages and some beside"),
        ({"image": "b.png", "messages": chat([URL, text("Lung?")], "yes")}, "some beside"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "unknown role 'tool'"),
        ({"conversations": [{"from": "observation", "value": "x"}]}, "unknown role 'observation'"),
        ({"messages": [*chat("Lung?", "yes"), {"role": "system", "content": "x"}]},
         "system message stands first"),
        ({"messages": chat("Lung?")}, "at least a question and an answer"),
        ({"messages": chat("Lung?", "yes", "Side?")}, "the last turn must be by the assistant"),
        ({"messages": [*chat("Hi", "Hello")[1:], *chat("Lung?", "yes")]}, "turn 0 must be by"),
        ({"messages": [*chat("Lung?"), *chat("Side?", "left")]}, "turn 1 must be by the assistant"),
        ({"messages": []}, "has no turns"),
        ({"messages": "Lung?"}, "is not a list"),
        ({"messages": [["user", "Lung?"]]}, "message 0 is not an object"),
        ({"messages": [{}, *chat("Lung?", "yes")]}, "message 0 lacks 'from' or 'value'"),
        ({"conversation": [{"human": "Q?", "assistant": "x", "system": "S"}]}, "lacks 'from'"),
        ({"messages": [{"role": "user", "text": "Lung?"}]}, "lacks 'from' or 'value'"),
        ({"messages": chat({"text": "Lung?"}, "yes")}, "message 0 is not text"),
        ({"messages": chat([{"type": "video", "video": "x"}], "yes")}, "neither text nor an image"),
        ({"messages": chat("Lung?", "yes"), "videos": ["x.mp4"]}, "videos are not understood"),
        ({"conversations": llava("Lung?"), "chosen": {"from": "gpt"}}, "preferences"),
        ({"messages": chat("Lung?", "yes"), "tools": '[{"name": "x"}]'}, "tools are not"),
        ({"messages": [*chat("Lung?"), {"role": "assistant", "content": "x", "loss": False}]},
         "not to be learned"),
        ({"messages": [*chat("Lung?"), {"role": "assistant", "content": None,
                                        "tool_calls": [{"id": "1"}]}]}, "tool calls"),
        ({"messages": chat("Lung?", "yes"), "conversations": llava("Lung?", "yes")},
         "both 'conversations' and 'messages'"),
        ({"messages": chat("Lung?", "yes"), "query": "Lung?", "response": "yes"},
         "both 'messages' and 'query'"),
        ({"query": "Lung?", "response": "x", "history": ["Hi"]}, r"not a list of \[question"),
        ({"messages": chat("Lung?", "yes", "Side?", "L"), "options": ["CT", "MRI"]},
         "options, and more than one question"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_would_be_read_wrong_is_refused_with_file_and_row(
    mine: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(mine, {"image": "a.png", "question": "Q?", "answer": "x"}, row)
    assert "train.json: row 1" in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": llava("Lung?", "")},
        {"messages": chat("Lung?", None)},
        {"messages": chat(" ", "yes")},
        {"messages": chat("<image>Lung?", "yes", "Side?", None)},
        {"query": "Lung?", "response": None},
        {"instruction": "", "input": None, "output": "yes"},
    ],
)
def test_an_empty_message_drops_its_row_and_is_listed(mine: Path, row: dict[str, Any]) -> None:
    good = {"image": "a.png", "question": "Q?", "answer": "x"}
    assert len(read(mine, good, {"image": "a.png"} | row)) == 1
    [dropped] = prepare("custom", mine, mine.parent / "out").manifest["dropped"]
    assert dropped["id"] == "custom/train/1" and "empty" in dropped["reason"]


def test_a_choice_and_longer_answers_of_a_talk(mine: Path) -> None:
    base = {"images": ["a.png"], "query": "<image>Which?", "response": "B"}
    [record] = read(mine, base | {"options": {"A": "CT", "B": "MRI"}})
    assert (record.answer, record.answer_type, record.meta["answer_index"]) == ("MRI", "CLOSED", 1)
    longer = llava("<image>\nLung?", "Yes, a lung.", "Side?", "The left one.")
    short = llava("<image>\nLung?", "yes", "Side?", "left")
    [record] = read(mine, {"image": "a.png", "conversations": short, "conversations_long": longer})
    assert record.extended == ["Yes, a lung.", "The left one."]
    [record] = read(mine, {"image": "a.png", "conversations": short, "extended": ["yes!", "left!"]})
    assert record.extended == ["yes!", "left!"]


def test_a_mapping_makes_a_talk_of_one_question_a_row(mine: Path) -> None:
    row = {"images": "a.png", "instruction": "Answer shortly.", "input": "Lung?", "output": "yes"}
    (mine / "train.json").write_text(json.dumps([row]), encoding="utf-8")
    mapping = {"question": "input", "answer": "output"}
    [record] = prepare("custom", mine, mine.parent / "out", mapping=mapping).records("train")
    assert (record.question, record.answer) == ("Lung?", "yes")
    assert record.meta["instruction"] == "Answer shortly."


def test_llava_med_keeps_places_and_understands_paths(tmp_path: Path) -> None:
    root = tmp_path / "llava"
    (root / "images").mkdir(parents=True)
    for n in range(4):
        Image.new("RGB", (9, 8), (n * 50, 9, 9)).save(root / f"images/{n}.png")
    items = [{"id": n, "image": f"images\\{n}.PNG", "conversations": llava("See <image>.", "ok")}
             for n in range(4)]  # fmt: skip
    items[3] |= {"image": ["2.png", "3.png"], "conversations": llava("<image> or <image>?", "x")}
    (root / "a.json").write_text(json.dumps(items), encoding="utf-8")
    records = {r.id: r for r in prepare("llava-med", root, tmp_path / "out").records("train")}
    assert records["llava-med/a/3"].question == "<image> or <image>?"
    assert records["llava-med/a/3"].image == ["2.png", "3.png"]
    items[1] |= {"conversations": llava("<image><image>?", "x")}
    (root / "a.json").write_text(json.dumps(items), encoding="utf-8")
    with pytest.raises(DataError, match=r"a.json: item 1 \('1'\): 2 <image> for 1 image"):
        prepare("llava-med", root, tmp_path / "other")


def test_placing_twice_changes_nothing() -> None:
    turns = [{"role": "user", "text": "A <image> b <image>"}, {"role": "assistant", "text": "x"}]
    once = place_images(turns, 2, "row 1")
    assert once == turns == place_images(once, 2, "row 1")
    assert place_images(turns, None, "row 1") == turns
