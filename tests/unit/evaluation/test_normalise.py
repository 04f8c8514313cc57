"""Comparable words: Unicode, numbers, roles, lists."""

import pytest

from exgra_med.evaluation.reading import answer_text, items, positions, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The X-ray, 3.5 cm (left)", ("x", "ray", "3.5", "cm", "left")),
        ("1,000 cells", ("1000", "cells")),
        ("two nodules", ("2", "nodules")),
        ("10th rib", ("10th", "rib")),
        ("50%", ("50%",)),
        ("T2-weighted", ("t2", "weighted")),
        ("T1- and T2-weighted", ("t1", "and", "t2", "weighted")),
        ("left- and right-sided", ("left", "and", "right", "sided")),
        ("mid- to lower zone", ("mid", "to", "lower", "zone")),
        ("5- to 10-mm nodule", ("5–10", "mm", "nodule")),
        ("- MRI", ("mri",)),
        ("A MASS IN THE LUNG", ("mass", "in", "lung")),
        ("a mass and hepatitis a", ("mass", "and", "hepatitis", "a")),
        ("CT -> MRI", ("ct", "mri")),
        ("It’s", ("it's",)),
        ("0'0 'left' x''y", ("0", "0", "left", "x", "y")),
        ("Café", ("café",)),
        ("cafe\u0301", ("café",)),
        ("ＭＲＩ", ("mri",)),
        ("肺部和心脏", ("肺", "部", "和", "心", "脏")),
        ("Straße", ("strasse",)),
        ("", ()),
        ("the", ()),
        ("...", ()),
    ],
)
def test_words(text: str, expected: tuple[str, ...]) -> None:
    assert words(text) == expected


def test_the_role_name_and_a_next_turn_are_no_part_of_the_answer() -> None:
    assert answer_text("### Assistant: Yes ###Human: and the other side?") == "Yes"
    assert answer_text("the assistant: no") == "the assistant: no"


def test_a_list_is_a_set_whatever_its_order_or_separator() -> None:
    assert items("Liver, Heart and Spleen") == items("spleen; heart, liver")
    assert items("肝脏、心脏") == items("心脏，肝脏")
    assert items("1,000 cells") == {("1000", "cells")}


def test_a_phrase_is_found_as_whole_words_only() -> None:
    assert positions(("left", "lung"), ("lung",))
    assert not positions(("normal",), ("no",))
    assert not positions(("left",), ())
