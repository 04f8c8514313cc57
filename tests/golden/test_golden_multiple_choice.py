"""The original's option choice by difflib, item by item."""

import json
from pathlib import Path
from typing import Any

import pytest

from exgra_med.data.chat_template import multiple_choice_question
from exgra_med.evaluation.tasks.multiple_choice import choose_by_similarity, similarities

DATA = Path(__file__).parent / "data" / "evaluation" / "medical_eval.json"
GOLDEN = json.loads(DATA.read_text(encoding="utf-8"))


def _options(item: dict[str, Any]) -> list[str]:
    return [item[f"option_{letter}"] for letter in "ABCD" if item.get(f"option_{letter}")]


@pytest.mark.parametrize("row", range(len(GOLDEN["items"])))
def test_similarities_and_choice_are_equal(row: int) -> None:
    expected = GOLDEN["similarities"][row]
    if "error" in expected:
        # The original raised, so the item was wrong; our reader refuses such an item by name.
        assert "is_correct" not in GOLDEN["result"][row]
        return
    item = GOLDEN["items"][row]
    assert _options(item) == expected["options"]
    assert similarities(item["model_pred"], expected["options"]) == expected["ratios"]
    chosen = choose_by_similarity(item["model_pred"], expected["options"])
    assert chosen == expected["picked"]
    marked = GOLDEN["result"][row].get("is_correct")
    right = chosen is not None and expected["options"][chosen] == item.get("gt_answer")
    assert right == (marked == "yes")


def test_the_fraction_over_all_items_is_equal() -> None:
    hits = 0
    for item, expected in zip(GOLDEN["items"], GOLDEN["similarities"], strict=True):
        if "error" not in expected:
            chosen = choose_by_similarity(item["model_pred"], expected["options"])
            hits += chosen is not None and expected["options"][chosen] == item.get("gt_answer")
    assert hits / len(GOLDEN["items"]) == GOLDEN["correct_percentage"]


def test_prompts_are_equal() -> None:
    for each in GOLDEN["preprocess_input"][:2]:
        asked = multiple_choice_question(each["item"]["question"], _options(each["item"]))
        assert f"{asked}\n<image>" == each["question"]["value"]
