"""Options in every shape of public sets, and answers as text, letter or number among them."""

from typing import Any

import pytest

from exgra_med.data.sources.options import (
    answers_among,
    option_columns,
    options_of_columns,
    read_options,
)
from exgra_med.errors import DataError

THREE = ["CT", "MRI", "X-ray"]


@pytest.mark.parametrize(
    "value",
    [
        ["CT", "MRI", "X-ray"],
        ("CT", "MRI", "X-ray"),
        ["A. CT", "B. MRI", "C. X-ray"],
        ["(A) CT", "(B) MRI", "(C) X-ray"],
        [" A: CT ", " B: MRI ", " C: X-ray "],
        ["1. CT", "2. MRI", "3. X-ray"],
        ["Ａ．CT", "Ｂ．MRI", "Ｃ．X-ray"],
        {"A": "CT", "B": "MRI", "C": "X-ray"},
        {"C": "X-ray", "A": "CT", "B": "MRI"},
        {"a": "CT", "b": "MRI", "c": "X-ray", "d": None},
        {"option_a": "CT", "option_b": "MRI", "option_c": "X-ray"},
        {"opa": "CT", "opb": "MRI", "opc": "X-ray", "opd": ""},
        {"0": "CT", "1": "MRI", "2": "X-ray"},
        {"label": ["A", "B", "C"], "text": ["CT", "MRI", "X-ray"]},
        [{"key": "A", "value": "CT"}, {"key": "B", "value": "MRI"}, {"key": "C", "value": "X-ray"}],
        [{"label": x, "text": text} for x, text in zip("ABC", THREE, strict=True)],
        [{"A": "CT"}, {"B": "MRI"}, {"C": "X-ray"}],
        '["CT", "MRI", "X-ray"]',
        "['CT', 'MRI', 'X-ray']",
        "('CT', 'MRI', 'X-ray')",
        "['CT' 'MRI' 'X-ray']",
        """['CT' "MRI" 'X-ray']""",
        "['CT'\n 'MRI'\n 'X-ray']",
        '{"A": "CT", "B": "MRI", "C": "X-ray"}',
        "{'A': 'CT', 'B': 'MRI', 'C': 'X-ray', 'D': None}",
        "CT|MRI|X-ray",
        "CT | MRI | X-ray |",
        "CT; MRI; X-ray",
        "CT\nMRI\nX-ray\n",
        "A. CT\nB. MRI\nC. X-ray",
        "A. CT B. MRI C. X-ray",
        "A) CT, B) MRI, C) X-ray",
        "(A) CT (B) MRI (C) X-ray",
        "(a) CT; (b) MRI; (c) X-ray",
        "A: CT|B: MRI|C: X-ray",
        "A.CT B.MRI C.X-ray",
        "1. CT 2. MRI 3. X-ray",
        "A．CT B．MRI C．X-ray",
    ],
    ids=repr,
)
def test_every_shape_gives_the_same_options(value: Any) -> None:
    options = read_options(value, "row 1")
    assert options is not None and options.texts == THREE


@pytest.mark.parametrize(
    "value, texts",
    [
        ("A. E. coli B. S. aureus C. C. difficile D. H. pylori",
         ["E. coli", "S. aureus", "C. difficile", "H. pylori"]),
        ("E. coli|S. aureus|C. difficile", ["E. coli", "S. aureus", "C. difficile"]),
        ("A. baumannii|E. coli|S. aureus", ["A. baumannii", "E. coli", "S. aureus"]),
        ("A. baumannii; B. fragilis; E. coli", ["A. baumannii", "B. fragilis", "E. coli"]),
        (["1.5 cm", "2.0 cm", "3.1 cm"], ["1.5 cm", "2.0 cm", "3.1 cm"]),
        (["1:10", "2:10", "3:10"], ["1:10", "2:10", "3:10"]),
        ("HER2+|HER2-", ["HER2+", "HER2-"]),
        ("<5 mm; >5 mm", ["<5 mm", ">5 mm"]),
        ("CT, with contrast|CT, without", ["CT, with contrast", "CT, without"]),
        ([1, 2.0, 2.5], ["1", "2", "2.5"]),
        ([True, False], ["yes", "no"]),
        ({"A": 1, "B": 2.0}, ["1", "2"]),
        ('["it\'s CT", "MRI"]', ["it's CT", "MRI"]),
        ("""['left' "patient's right"]""", ["left", "patient's right"]),
        ("""['a, b', 'c \\'d\\' e']""", ["a, b", "c 'd' e"]),
        ("['(a) left', '(b) right']", ["left", "right"]),
    ],
    ids=repr,
)  # fmt: skip
def test_texts_that_look_like_letters_or_numbers_stay(value: Any, texts: list[str]) -> None:
    options = read_options(value, "row 1")
    assert options is not None and options.texts == texts


@pytest.mark.parametrize(
    "value", [None, "", "  ", "nan", [], {}, "[]", "{}", float("nan"), {"A": None}]
)
def test_no_options(value: Any) -> None:
    assert read_options(value, "row 1") is None


@pytest.mark.parametrize(
    "value, message",
    [
        ("CT, MRI, X-ray", "cannot be told apart"),
        ("CT", "cannot be told apart"),
        ("A. B. fragilis B. E. coli", "cannot be told apart"),
        ("A. CT; with contrast B. MRI", "cannot be told apart"),
        ("['CT', 'MRI'", "cannot be read"),
        ("['CT', 'MRI' 'X-ray']", "cannot be read"),
        ("['CT' 'MRI' ... 'X-ray']", "cannot be read"),
        ('{"A": "CT", "A": "MRI", "B": "US"}', "cannot be read"),
        ("{'A': 'CT', 'A': 'MRI', 'B': 'US'}", "cannot be read"),
        ("['CT', MRI]", "cannot be read"),
        ("[__import__('os').getcwd(), 'MRI']", "cannot be read"),
        ({"CT": True, "MRI": False}, "the key 'CT', not a letter"),
        ({"A": "CT", "a": "MRI"}, "given twice"),
        (["CT"], "only option"),
        (["CT", "", "MRI"], "empty option"),
        (["CT", ["MRI", "US"]], "list of 2 different texts"),
        ([{"x": 1, "y": 2}, "CT"], "an object with x, y"),
        (5, "the options are a int"),
        ({"CT"}, "the options are a set"),
    ],
    ids=repr,
)
def test_what_is_no_list_of_options_is_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_options(value, "train.csv:7")
    assert str(caught.value).startswith("train.csv:7")


@pytest.mark.parametrize(
    "names, expected",
    [
        (["id", "A", "B", "C", "D", "answer"], ["A", "B", "C", "D"]),
        (["b", "a"], ["a", "b"]),
        (["Choice B", "Choice A", "Figure_path"], ["Choice A", "Choice B"]),
        (["opa", "opb", "opc", "opd", "cop"], ["opa", "opb", "opc", "opd"]),
        (["option_A", "option_B", "gt_answer"], ["option_A", "option_B"]),
        (["option2", "option1", "option3"], ["option1", "option2", "option3"]),
        (["choice_0", "choice_1"], ["choice_0", "choice_1"]),
        (["A", "B", "C", "x", "y", "z"], ["A", "B", "C"]),
        (["A", "B", "D"], ["A", "B"]),
        (["A", "question"], []),
        (["B", "C"], []),
        (["1", "2"], []),
        (["image_1", "image_2"], []),
    ],
)
def test_columns_of_one_option_each(names: list[str], expected: list[str]) -> None:
    assert option_columns(names) == expected


def test_empty_columns_are_no_options_and_keep_the_letters_of_the_others() -> None:
    row = {"A": "CT", "B": "", "C": None, "D": "MRI"}
    options = options_of_columns(row, ["A", "B", "C", "D"], "row 1")
    assert options is not None and options.texts == ["CT", "MRI"]
    assert answers_among([("row 1", "D", options)]) == [1]
    assert options_of_columns({"A": "", "B": None}, ["A", "B"], "row 1") is None


def chosen(*rows: tuple[Any, str]) -> list[int]:
    read = []
    for number, (value, answer) in enumerate(rows):
        options = read_options(value, f"row {number}")
        assert options is not None
        read.append((f"row {number}", answer, options))
    return answers_among(read)


@pytest.mark.parametrize(
    "answer", ["MRI", "mri", "MRI.", "B", "b", "(B)", "B.", "B)", "Option B", "option_b", "opb",
               "B. MRI", "(B) MRI", "b: mri", "Ｂ", "**B**"],
)  # fmt: skip
def test_an_answer_as_text_or_letter(answer: str) -> None:
    assert chosen((THREE, answer)) == [1]
    assert chosen(({"A": "CT", "B": "MRI", "C": "X-ray"}, answer)) == [1]


def test_numbers_count_from_where_the_data_set_shows_it() -> None:
    assert chosen((THREE, "0"), (THREE, "2"), (THREE, "1")) == [0, 2, 1]
    assert chosen((THREE, "3"), (THREE, "1"), (THREE, "2")) == [2, 0, 1]
    with pytest.raises(DataError, match="whether the first option is 0 or 1"):
        chosen((THREE, "1"), (THREE, "2"))
    # The row itself numbers them.
    assert chosen(("1. CT 2. MRI 3. X-ray", "2")) == [1]
    assert chosen(({"0": "CT", "1": "MRI"}, "1")) == [1]
    # Numbers that are the options' texts.
    assert chosen((["2", "3", "1"], "1")) == [2]


def test_texts_that_are_letters_are_read_as_the_data_set_reads() -> None:
    groups = ["O", "A", "B", "AB"]
    assert chosen((groups, "A"), (groups, "AB"), (THREE, "MRI")) == [1, 3, 1]
    assert chosen((groups, "D"), (groups, "A")) == [3, 0]
    with pytest.raises(DataError, match="the text of one option and the letter of another"):
        chosen(({"A": "B", "B": "A"}, "A"))
    with pytest.raises(DataError, match="row 1: the answer 'A' is the text of one"):
        chosen((groups, "AB"), (groups, "A"), (THREE, "B"))
    assert chosen((["E. coli", "S. aureus"], "E. coli")) == [0]
    assert chosen((["Vitamin A", "Vitamin B"], "B"), (["CT", "MRI"], "CT")) == [1, 0]


@pytest.mark.parametrize("answer", ["US", "E", "D", "AC", "A, C", "B. CT", "4", "HER2"])
def test_an_answer_that_is_no_option_is_refused(answer: str) -> None:
    with pytest.raises(DataError, match=r"row 0: the answer .* is none of the options 'CT', 'MRI'"):
        chosen((THREE, answer))


def test_signs_and_case_are_never_lost() -> None:
    assert chosen((["HER2+", "HER2-"], "HER2-"), (["mM", "MM"], "MM")) == [1, 1]
    assert chosen((["-5 D", "+5 D"], "\u22125 D"), (["5 \u00b5m", "5 mm"], "5 \u03bcm")) == [0, 0]
    with pytest.raises(DataError, match="none of the options"):
        chosen((["mM", "MM"], "mm"))
