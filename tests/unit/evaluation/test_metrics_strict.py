"""The sound scorer on answers worked by hand."""

import pytest

from exgra_med.evaluation.metrics import Verdict, closed, open_overlap, yes_or_no
from exgra_med.evaluation.reading import chosen_options

RIGHT, WRONG = Verdict.RIGHT, Verdict.WRONG
SEVERAL, ABSTAINED, UNPARSED = Verdict.SEVERAL, Verdict.ABSTAINED, Verdict.UNPARSED


@pytest.mark.parametrize(
    ("prediction", "reference", "verdict"),
    [
        ("yes", "Yes", RIGHT),
        ("Yes.", "yes", RIGHT),
        ("Assistant: Yes", "yes", RIGHT),
        ("Yes, the lung is normal", "yes", RIGHT),
        ("There is no fracture.", "no", RIGHT),
        ("no", "yes", WRONG),
        ("normal", "no", UNPARSED),
        ("unknown", "no", ABSTAINED),
        ("It is not visible", "no", UNPARSED),
        ("noyes", "yes", UNPARSED),
        ("yes no", "yes", SEVERAL),
        ("yes and no", "no", SEVERAL),
        ("I cannot tell", "no", ABSTAINED),
        ("There is no way to tell", "no", ABSTAINED),
        ("", "no", UNPARSED),
        ("是的", "是", RIGHT),
        ("没有", "不是", RIGHT),
        ("存在", "没有", WRONG),
        ("不确定", "不是", ABSTAINED),
        ("图中存在异常", "存在", RIGHT),
    ],
)
def test_yes_and_no_are_words(prediction: str, reference: str, verdict: Verdict) -> None:
    assert closed(prediction, reference).verdict is verdict


@pytest.mark.parametrize(
    ("prediction", "reference", "question", "verdict"),
    [
        ("the left side", "Left", "Is it on the left or right?", RIGHT),
        ("left or right", "Left", "Is it on the left or right?", SEVERAL),
        ("right", "Left side", "Is it on the left or right?", WRONG),
        ("not left", "left", "Is it on the left or right?", UNPARSED),
        ("both lungs", "Both", "Is it on the left, right or both sides?", RIGHT),
        ("An MRI of the brain", "MRI", "Is this a CT or an MRI?", RIGHT),
        ("CT", "MRI", "Is this a CT or an MRI?", WRONG),
        ("sagittal", "Axial", "Is this an axial or sagittal view?", WRONG),
        ("flair", "FLAIR", "Is this a T1 weighted, T2 weighted, or FLAIR image?", RIGHT),
        ("t2", "FLAIR", "Is this a T1 weighted, T2 weighted, or FLAIR image?", WRONG),
        ("a cystic mass", "Cystic", 'Cystic? (Answer with either "Cystic" or "Solid").', RIGHT),
        ("solid", "Cystic", 'Cystic? (Answer with either "Cystic" or "Solid").', WRONG),
        ("冠状面", "横断面", "扫描的是图像的哪个平面,横断面还是冠状面?", WRONG),
        ("横断面", "横断面", "扫描的是图像的哪个平面,横断面还是冠状面?", RIGHT),
        ("非常大", "都是", "图中心脏和肺部哪个是异常的?", UNPARSED),
    ],
)
def test_options_are_whole_words_of_the_question(
    prediction: str, reference: str, question: str, verdict: Verdict
) -> None:
    assert closed(prediction, reference, question).verdict is verdict


def test_options_of_the_record_come_first() -> None:
    given = ("non-contrast", "contrast")
    assert closed("a non-contrast CT", "non-contrast", given=given).hit == 1
    assert closed("a non-contrast CT", "contrast", given=given).verdict is WRONG


def test_the_reference_itself_is_always_right_and_never_part_of_another_word() -> None:
    assert closed("Not sure", "Not sure").hit == 1
    assert closed("hypodensely", "hypodense").hit == 0


def test_the_longer_name_goes_first_whatever_it_is_called() -> None:
    options = {"both": (("left", "lung"),), "the longer label": (("left",),)}
    assert chosen_options(("left", "lung"), options) == {"both"}


def test_a_longer_reference_stands_for_the_option_that_it_names() -> None:
    read = closed("left", "the left lung", "Is the mass on the left or on the right?")
    assert read.verdict is RIGHT
    assert read.expected == "left"
    assert closed("right", "the left lung", "Is it left or right?").verdict is WRONG


def test_yes_or_no_of_a_reference() -> None:
    assert [yes_or_no(text) for text in ("Yes.", "NO", "left", "没有", "")] == [
        "yes", "no", None, "no", None,
    ]  # fmt: skip


def test_open_overlap_is_over_sets() -> None:
    assert open_overlap("left left left", "left lung") == (0.0, 2 / 3, 1.0, 0.5)
    assert open_overlap("right lung and left lung", "left lung").exact_match == 0.0
    assert open_overlap("Heart, Liver", "liver, heart").exact_match == 1.0
    assert open_overlap("left", "left lung").exact_match == 0.0
    assert open_overlap("", "left") == (0.0, 0.0, 0.0, 0.0)
    assert open_overlap("肺部", "肺").recall == 1.0


def test_a_note_in_the_question_lists_the_options() -> None:
    question = 'Which one? (Answer with either "Alpha" or\n"Beta").'
    assert closed("beta", "Alpha", question).verdict is WRONG
    assert closed("gamma", "Alpha", question).verdict is UNPARSED


def test_a_negation_that_belongs_to_a_name_negates_nothing_behind_it() -> None:
    options = {"absent": (("is", "not"),), "left": (("left",),)}
    assert chosen_options(("is", "not", "left"), options) == {"absent", "left"}
