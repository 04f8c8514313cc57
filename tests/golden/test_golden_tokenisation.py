"""The original's token ids, prompts and labels, id by id."""

import json
from pathlib import Path
from typing import Any

import pytest
from original_text import encode_conversation_compat, original_pieces

from exgra_med.data.chat_template import (
    IMAGE_BLOCK,
    IMAGE_PATCH,
    alignment_text,
    encode_conversation,
    encode_text,
)
from exgra_med.data.records import Record, Turn
from exgra_med.model.convert.tokenizer import read_sentencepiece
from exgra_med.model.processor import llama_tokenizer

NUM_IMAGE_TOKENS = 16
PATHS = {"pre": "train", "original_pre": "train", "ft_train": "train", "ft_val": "validation"}


@pytest.fixture(scope="module")
def tokenizer(golden: Path) -> Any:
    return llama_tokenizer(*read_sentencepiece(golden / "tokenisation" / "tokenizer.model"))


@pytest.fixture(scope="module")
def cases(golden: Path) -> dict[str, Any]:
    rows = json.loads((golden / "tokenisation" / "cases_input.json").read_text())
    return {row["name"]: row for row in rows}


def messages_of(case: dict[str, Any], suffix: str = "") -> list[tuple[str, str]]:
    key = next(key for key in (f"conversations{suffix}", f"conversatons{suffix}") if key in case)
    return [(message["from"], str(message["value"])) for message in case[key]]


def test_single_strings_equal_the_slow_tokenizer(tokenizer: Any, golden: Path) -> None:
    path = golden / "tokenisation" / "encodings_slow_vs_fast.json"
    for entry in json.loads(path.read_text())["encodings"]:
        assert tokenizer(entry["text"])["input_ids"] == entry["slow_ids"], entry["text"]


def compare(tokenizer: Any, cases: dict[str, Any], path: Path, max_length: int, ends: bool) -> int:
    compared = 0
    layout = PATHS[path.name.split("__")[0]]
    for item in json.loads(path.read_text())["items"]:
        if "error" in item:
            continue
        encoded = encode_conversation_compat(
            tokenizer,
            messages_of(cases[item["name"]]),
            NUM_IMAGE_TOKENS,
            max_length,
            layout,  # type: ignore
            ends,
        )
        assert encoded.input_ids == item["input_ids"], item["name"]
        assert encoded.labels == item["labels"], item["name"]
        compared += 1
    return compared


@pytest.mark.parametrize("name", ["ft_train", "ft_val"])
def test_ids_and_drifting_labels(
    tokenizer: Any, cases: dict[str, Any], golden: Path, name: str
) -> None:
    path = golden / "tokenisation" / f"{name}__bos_s__max2048__imse1.json"
    assert compare(tokenizer, cases, path, 2048, True) == 17


def test_ids_and_drifting_labels_of_every_path(
    cases: dict[str, Any], golden: Path, shared: Path
) -> None:
    pieces = read_sentencepiece(golden / "tokenisation" / "tokenizer.model")
    compared = 0
    for path in sorted((shared / "golden" / "a_tokenisation").glob("*__max*.json")):
        tokenizer = llama_tokenizer(*pieces, begin="</s>" if "bos_eos" in path.name else "<s>")
        max_length = 48 if "max48" in path.name else 2048
        compared += compare(tokenizer, cases, path, max_length, "imse1" in path.name)
    assert compared > 250


def test_alignment_texts(tokenizer: Any, cases: dict[str, Any], shared: Path) -> None:
    path = shared / "golden" / "a_tokenisation" / "pre__bos_s__max2048__imse1.json"
    compared = 0
    for item in json.loads(path.read_text())["items"]:
        if "error" in item:
            continue
        case = cases[item["name"]]
        for suffix, key in (("", "merge_sentence_id"), ("_long", "merge_sentence_id_long")):
            answers = [value for role, value in messages_of(case, suffix)][1::2]
            if any("<image>" in answer for answer in answers):
                continue  # literal placeholders never reach a record
            assert encode_text(tokenizer, alignment_text(answers), 2048) == item[key], item["name"]
            compared += 1
    assert compared > 30


def test_conversation_strings(cases: dict[str, Any], golden: Path) -> None:
    block = IMAGE_BLOCK.replace(IMAGE_PATCH, IMAGE_PATCH * NUM_IMAGE_TOKENS)
    strings = json.loads((golden / "tokenisation" / "conversation_strings.json").read_text())
    strings = [entry for entry in strings if "conversation" in entry]
    for entry in strings:
        layout = {"train": "train", "val": "validation"}[entry["mode"]]
        pieces = original_pieces(messages_of(cases[entry["name"]]), layout, block)  # type: ignore
        assert "".join(pieces) == entry["conversation"]
    assert len(strings) > 30


@pytest.mark.parametrize(
    ("name", "template"), [("ft_train", "original-train"), ("ft_val", "original-validation")]
)
def test_templates_give_the_ids_of_the_original_and_undrifted_labels(
    tokenizer: Any, cases: dict[str, Any], golden: Path, name: str, template: str
) -> None:
    path = golden / "tokenisation" / f"{name}__bos_s__max2048__imse1.json"
    items = {item["name"]: item for item in json.loads(path.read_text())["items"]}
    for case in ("single_image_end", "text_only_single", "closed_lowercase", "int_answer_image"):
        messages = messages_of(cases[case])
        record = Record(
            id=case,
            image=cases[case].get("image"),
            turns=[
                Turn(role="user", text=messages[0][1].removesuffix("\n<image>")),
                Turn(role="assistant", text=messages[1][1]),
            ],
        )
        encoded = encode_conversation(tokenizer, record, template, NUM_IMAGE_TOKENS, 2048)
        assert encoded.input_ids == items[case]["input_ids"]
        learnt = tokenizer.decode([label for label in encoded.labels if label != -100])
        prefix = "Assistant: " if template == "original-validation" else ""
        assert learnt == f"{prefix}{messages[1][1]}\n###"
