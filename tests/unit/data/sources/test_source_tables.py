"""Tables, JSON and JSON Lines of people: separators, names of columns, nulls, numbers, booleans."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.prepare import prepare
from exgra_med.data.records import Record
from exgra_med.data.sources.values import plain_text
from exgra_med.errors import DataError

HEAD = "image,question,answer\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (9, 8), (90, 60, 30)).save(folder / "images/a.png")
    return folder


def read(folder: Path, content: str | bytes, name: str = "train.csv", **options: Any) -> list:
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(data)
    prepared = prepare("custom", folder, folder.parent / f"out-{name}", overwrite=True, **options)
    return prepared.records(name.partition(".")[0])


def said(record: Record) -> tuple[str | list[str] | None, str, str]:
    return record.image, record.question, record.answer


LUNG = ("a.png", "Is it a lung?", "yes")


@pytest.mark.parametrize(
    "table",
    [
        "image,question,answer\na.png,Is it a lung?,yes\n",
        "image;question;answer\na.png;Is it a lung?;yes\n",
        "image\tquestion\tanswer\na.png\tIs it a lung?\tyes\n",
        "image|question|answer\na.png|Is it a lung?|yes\n",
        "sep=;\nimage;question;answer\na.png;Is it a lung?;yes\n",
        "sep=,\r\nimage,question,answer\r\na.png,Is it a lung?,yes\r\n",
        '"sep=;"\nimage;question;answer\na.png;Is it a lung?;yes\n',
        "sep=\t\nimage\tquestion\tanswer\na.png\tIs it a lung?\tyes\n",
        "image;question;answer;notes, if any\na.png;Is it a lung?;yes;none\n",
        "image;question;answer;a, b, c\na.png;Is it a lung?;yes;1, 2, 3\n",
        "image;question;answer;x|y\na.png;Is it a lung?;yes;|\n",
        "image,question,answer;type\na.png,Is it a lung?,yes\n",
        "image\tquestion\tanswer\tage,sex\na.png\tIs it a lung?\tyes\t5,f\n",
        "\ufeffimage;question;answer\r\na.png;Is it a lung?;yes\r\n",
        "image,question,answer\ra.png,Is it a lung?,yes\r",
        "Image,QUESTION,Answer\na.png,Is it a lung?,yes\n",
        " image , question , answer \n a.png , Is it a lung? , yes \n",
        "image,question,answer,,\na.png,Is it a lung?,yes,,\n",
        "image,question,answer\na.png,Is it a lung?,yes,,,\n",
        ",image,question,answer\n0,a.png,Is it a lung?,yes\n",
        "\n\nimage,question,answer\n\na.png,Is it a lung?,yes\n\n\n",
        "Image Path,question,answer\na.png,Is it a lung?,yes\n",
        "img_name,Question,Answer\na.png,Is it a lung?,yes\n",
        '"image","question","answer"\n"a.png","Is it a lung?","yes"\n',
    ],
    ids=repr,
)
def test_the_separator_and_the_names_are_found(mine: Path, table: str) -> None:
    # `answer;type` is one name in a table of commas.
    mapping = {"answer": "answer;type"} if "answer;type" in table else {}
    [record] = read(mine, table, mapping=mapping)
    assert said(record) == LUNG


def test_a_mapping_that_fits_no_row_is_refused(mine: Path) -> None:
    table = HEAD.replace("answer", "answer,Wahl") + "a.png,Q?,CT,CT|MRI\n"
    [record] = read(mine, table, mapping={"options": "wahl"})
    assert record.meta["options"] == ["CT", "MRI"]
    with pytest.raises(DataError, match=r"no row has the column 'Whal' of --map options=Whal"):
        read(mine, table, mapping={"options": "Whal"})


def test_rows_in_the_form_of_a_record(mine: Path) -> None:
    turns = [{"role": "user", "text": "Q?"}, {"role": "assistant", "text": "x"}]
    row = {"id": "z", "image": "images/a.PNG", "turns": turns}
    [record] = read(mine, json.dumps(row), "train.jsonl")
    assert (record.id, record.image) == ("z", "a.png")


def test_repeated_ids_get_their_row(mine: Path) -> None:
    records = read(mine, "id," + HEAD + "7,a.png,Q?,yes\n7,a.png,R?,no\n")
    assert [record.id for record in records] == ["custom/train/7", "custom/train/7#1"]
    assert [record.meta["published_id"] for record in records] == ["7", "7"]


def test_a_tsv_and_a_file_with_a_capital_name(mine: Path) -> None:
    [record] = read(mine, "image\tquestion\tanswer\na.png\tIs it, a lung?\tyes\n", "train.tsv")
    assert record.question == "Is it, a lung?"
    (mine / "train.tsv").rename(mine / "Train.TSV")
    assert prepare("custom", mine, mine.parent / "again").records("train") == [record]


@pytest.mark.parametrize(
    "table, question, answer",
    [
        ('image,question,answer\r\na.png,"Is it\r\na lung?","yes, ""it"" is"\r\n',
         "Is it\na lung?", 'yes, "it" is'),
        ('image;question;answer\na.png;"1; 2";"a;b"\n', "1; 2", "a;b"),
        ('image,question,answer\na.png,"\n\nline",x|y\n', "line", "x|y"),
        ("image,question,answer\na.png,Größe?,5 µm ≥ 3\n", "Größe?", "5 µm ≥ 3"),
        ("image,question,answer\na.png,Sex?,NA\n", "Sex?", "NA"),
        ("image,question,answer\na.png,Contrast?,None\n", "Contrast?", "None"),
        ("image,question,answer\na.png,True or false?,TRUE\n", "True or false?", "TRUE"),
        ("image,question,answer\na.png,How many?,3.0\n", "How many?", "3.0"),
        ("image,question,answer\na.png,Status?,-\n", "Status?", "-"),
        ("image,question,answer\na.png,Code?,007\n", "Code?", "007"),
        ('image,question,answer\na.png,Box?,"[10, 20, 30, 40]"\n', "Box?", "[10, 20, 30, 40]"),
        ("image,question,answer\na.png,Lung?,['yes']\n", "Lung?", "yes"),
    ],
)  # fmt: skip
def test_the_text_of_a_cell_stays(mine: Path, table: str, question: str, answer: str) -> None:
    [record] = read(mine, table)
    assert (record.question, record.answer) == (question, answer)


@pytest.mark.parametrize(
    "content, message",
    [
        ("image\tquestion\tanswer\n".encode("utf-16"), "not UTF-8 text.*Save the file as UTF-8"),
        (HEAD.encode("utf-16-le"), "NUL characters, as UTF-16.*Save the file as UTF-8"),
        (b"PK\x03\x04\x14\0\0\0", "NUL characters.*spreadsheet as CSV"),
        ("image,question,answer\na.png,是否?,是\n".encode("gbk"), "not UTF-8.*UTF-8"),
        ("image,question,answer\na.png,Größe?,5\n".encode("latin-1"), "not UTF-8.*UTF-8"),
        ("image,question,answer,answer\na.png,Q?,yes,no\n", "column 'answer' is there twice"),
        ("image,question,answer, answer\na.png,Q?,yes,no\n", "column 'answer' is there twice"),
        ("image,question,answer,Answer\na.png,Q?,yes,no\n", "both 'answer' and 'Answer' may be"),
        ("image_path,img,question,answer\na.png,a.png,Q?,yes\n", "'image_path' and 'img' may be"),
        (HEAD + "a.png,Q?,\"['yes', 'Yes it is']\"\n", "the answer is a list of 2 different texts"),
        ("image,images,question,answer\na.png,a.png,Q?,yes\n", "both 'image' and 'images'"),
        (HEAD + "a.png,Left, or right?,left\n", r":2: 4 cells, and the header has 3 .*quotes"),
        (HEAD + "a.png,Q?,yes\na.png,Q?\n", r":3: 2 cells, and the header has 3"),
        ("sep=;\n" + HEAD.replace(",", ";") + "a.png;b\n", r":3: 2 cells"),
        (HEAD + 'a.png,"Q?,yes\n', r"not valid CSV"),
        (HEAD + 'a.png,"Q"?,yes\n', r":2: not valid CSV"),
        ("", "the table is empty"),
        ("\n\n", "the table is empty"),
        (
            "image;asked;answer\na.png;Side;yes\n",
            r"no column 'question'.*image, asked, answer.*--map",
        ),
        ("pic,question,answer\na,Q?,yes\n", r"no column 'image'.*It has pic.*--map image="),
        ("image,question,answer,\na.png,Q?,yes,stray\n", r"column 4 has no name and holds 'stray'"),
        ("image,question,answer, Split\na.png,Q?,yes,dev\n", "says 'dev', the file's name 'train'"),
        (
            "image,question,answer,split\na.png,Q?,yes,test\n",
            "says 'test', the file's name 'train'",
        ),
    ],
    ids=repr,
)
def test_a_table_that_may_be_read_wrong_is_refused(
    mine: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(mine, content)


@pytest.mark.parametrize("name", ["train.xls", "train.ods", "val.csv", "dev.json", "train_2.csv"])
def test_a_table_that_would_not_be_read_is_named(mine: Path, name: str) -> None:
    (mine / name).write_bytes(b"x")
    with pytest.raises(DataError, match=rf"{name} would not be read.*\.tsv"):
        read(mine, HEAD + "a.png,Q?,yes\n", "test.csv")


def test_blank_rows_are_listed_as_dropped(mine: Path) -> None:
    (mine / "train.csv").write_text("image;question;answer\na.png;Q?;yes\n;;\n a.png;Q?; \n")
    manifest = prepare("custom", mine, mine.parent / "out").manifest
    assert manifest["dropped"] == [
        {"id": "custom/train/1", "reason": "empty question"},
        {"id": "custom/train/2", "reason": "empty answer"},
    ]


# --- JSON ----------------------------------------------------------------------------------------

ROW = {"image": "a.png", "question": "Is it a lung?", "answer": "yes"}


@pytest.mark.parametrize(
    "name, content",
    [
        ("train.json", json.dumps([ROW])),
        ("train.json", json.dumps([ROW], indent=2)),
        ("train.json", json.dumps(ROW) + "\n"),
        ("train.jsonl", json.dumps([ROW])),
        ("train.jsonl", "\ufeff" + json.dumps(ROW) + "\r\n\r\n"),
        ("train.jsonl", json.dumps({"Image": "a.png", " question ": ROW["question"],
                                    "ANSWER": "yes"})),
        ("train.jsonl", json.dumps(ROW | {"note": float("nan")})),
        ("train.jsonl", json.dumps(ROW | {"smile": "\U0001f600"})),
    ],
)  # fmt: skip
def test_a_list_or_one_object_a_line(mine: Path, name: str, content: str) -> None:
    [record] = read(mine, content, name)
    assert said(record) == LUNG
    assert record.meta.get("note") is None


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("train.json", '{"image": {"0": "a.png"},\n "question": {"0": "Q?"}}', r"orient=.records"),
        ("train.json", '{"image": {"0": "a.png"}, "question": {"0": "Q?"}}', r"orient=.records"),
        ("train.json", json.dumps({"data": [ROW]}), "one object with 'data', not a list of rows"),
        ("train.json", json.dumps({"data": [ROW]}, indent=1), "one object with 'data', not a list"),
        ("train.jsonl", json.dumps(ROW | {"extended": ["a", "b"]}), "2 extended answers for 1"),
        ("train.jsonl", json.dumps(ROW | {"extended": ["a", ""]}), "extended answers are empty"),
        ("train.jsonl", "{\n" + json.dumps(ROW)[1:], "one object with 'image'"),
        ("train.jsonl", json.dumps(ROW | {"note": "\ud800"}), ":1: half of a character"),
        ("train.json", json.dumps([ROW, ROW | {"image": "\ud800"}]), "row 1: half of a character"),
        ("train.jsonl", json.dumps(ROW)[:-1] + ', "n": ' + "[" * 900 + "]" * 900 + "}", "deeply"),
        ("train.jsonl", json.dumps(ROW | {"answer": [["a"]]}), "the answer is a list of lists"),
        ("train.jsonl", json.dumps(ROW | {"image": [["a.png"]]}), "images are a list of lists"),
        ("train.jsonl", json.dumps(ROW | {"answer": None}), r"left \(1 dropped: empty answer\)"),
        ("train.json", "[1]", "row 0: not an object"),
        ("train.json", '[{"a": 1}', "not valid JSON"),
        ("train.jsonl", "[]\n{}", "not valid JSON"),
        ("train.jsonl", '{"answer": "a", "answer": "b"}', "'answer' is given twice"),
        ("train.jsonl", '{"answer": "a", "answer ": "b"}', "column 'answer' is there twice"),
        ("train.jsonl", '{"image": "a.png", "question": "Q?", "answer": Infinity}', "Infinity"),
        ("train.jsonl", '{"a": "a.png", "b": "a.png", "question": "Q?", "answer": "x"}', "--map"),
    ],
)
def test_json_that_is_no_list_of_rows_is_refused(
    mine: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(mine, content, name)


# --- what a value says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, text",
    [
        (None, ""), (float("nan"), ""), ("  ", ""), (" x ", "x"), (3, "3"), (3.0, "3"),
        (2.5, "2.5"), (-5.0, "-5"), (1e22, "1" + "0" * 22), (0.1, "0.1"), (True, "yes"),
        (False, "no"), (["yes"], "yes"), (["yes", "yes "], "yes"), ([], ""), (b"yes", "yes"),
        ("None", "None"), ("nan", "nan"), ("3.0", "3.0"), ("TRUE", "TRUE"),
    ],
)  # fmt: skip
def test_one_rule_for_every_value(value: Any, text: str) -> None:
    assert plain_text(value, "row 1: the answer") == text


@pytest.mark.parametrize(
    "value", [["yes", "Yes it is"], {"text": "yes"}, float("inf"), b"\xff\xfe"]
)
def test_what_has_no_one_text_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"^row 1: the answer is"):
        plain_text(value, "row 1: the answer")


def rows_of_values() -> list[dict[str, Any]]:
    values = [3.0, None, 2.5, True, False, float("nan"), "", "yes", ["no"], 4]
    return [{"image": "a.png", "question": f"Q{n}?", "answer": v} for n, v in enumerate(values)]


EXPECTED = ["3", "2.5", "yes", "no", "yes", "no", "4"]
NO_ANSWER = ["custom/train/1", "custom/train/5", "custom/train/6"]


@pytest.mark.parametrize("name", ["train.json", "train.jsonl"])
def test_null_and_nan_drop_one_row_and_not_the_set(mine: Path, name: str) -> None:
    rows = rows_of_values()
    lines = json.dumps(rows) if name == "train.json" else "\n".join(map(json.dumps, rows))
    assert [record.answer for record in read(mine, lines, name)] == EXPECTED
    manifest = prepare("custom", mine, mine.parent / f"out-{name}").manifest
    assert manifest["dropped"] == [{"id": i, "reason": "empty answer"} for i in NO_ANSWER]


def test_true_and_false_among_options(mine: Path) -> None:
    row = ROW | {"answer": True}
    lines = [row | {"options": ["True", "False"]}, row | {"options": ["No", "Yes"]}]
    first, second = read(mine, "\n".join(map(json.dumps, lines)), "train.jsonl")
    assert (first.answer, first.meta["answer_index"]) == ("True", 0)
    assert (second.answer, second.meta["answer_index"]) == ("Yes", 1)


# --- options in files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, content",
    [
        ("test.csv", "image,question,answer,options\na.png,Q?,B,CT|MRI|X-ray\n"),
        ("test.csv", "image,question,answer,A,B,C,D\na.png,Q?,B,CT,MRI,X-ray,\n"),
        ("test.csv", "image,question,answer,opa,opb,opc\na.png,Q?,mri.,CT,MRI,X-ray\n"),
        ("test.csv", "Figure_path,Question,Answer,Choice A,Choice B,Choice C\n"
                     "a.png,Q?,B, A: CT , B: MRI ,C: X-ray\n"),
        ("test.csv", "image,question,answer,choices\n"
                     "a.png,Q?,(B),\"['CT', 'MRI', 'X-ray']\"\n"),
        ("test.csv", "image;question;answer;options\na.png;Q?;B. MRI;A. CT B. MRI C. X-ray\n"),
        ("test.csv", "image,question,answer,options\na.png,Q?,1,CT|MRI|X-ray\n"
                     "a.png,Q?,0,CT|MRI|X-ray\n"),
        ("test.jsonl", json.dumps(ROW | {"answer": "B", "options": {"A": "CT", "B": "MRI",
                                                                    "C": "X-ray"}})),
        ("test.jsonl", json.dumps(ROW | {"answer": ["B"], "options": ["CT", "MRI", "X-ray"]})),
        ("test.json", json.dumps([ROW | {"answer": 1, "options": ["CT", "MRI", "X-ray"]},
                                  ROW | {"answer": 0.0, "options": ["CT", "MRI", "X-ray"]}])),
    ],
)  # fmt: skip
def test_options_of_a_file_and_the_answer_among_them(mine: Path, name: str, content: str) -> None:
    record = read(mine, content, name)[0]
    assert (record.answer, record.answer_type) == ("MRI", "CLOSED")
    assert record.meta["options"] == ["CT", "MRI", "X-ray"] and record.meta["answer_index"] == 1


@pytest.mark.parametrize(
    "row, message",
    [
        ({"answer": "US", "options": ["CT", "MRI"]}, r"train.jsonl:1: the answer 'US' is none of"),
        ({"answer": 1, "options": ["CT", "MRI", "US"]}, "whether the first option is 0 or 1"),
        ({"answer": "CT", "options": "CT"}, "'options': the options 'CT' cannot be told apart"),
        ({"answer": "CT", "options": ["CT", "MRI"], "answer_type": "OPEN"}, "answer_type is OPEN"),
        ({"answer": "CT", "options": ["CT", "MRI"], "A": "CT", "B": "MRI"}, "both 'options' and"),
        ({"answer": "CT", "choices": ["CT", "MRI"], "candidates": ["CT"]}, "may be the column"),
    ],
)
def test_an_answer_that_fits_no_option_is_refused_by_name(
    mine: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(mine, json.dumps(ROW | row), "train.jsonl")


def test_own_data_has_a_name_of_its_own(mine: Path, tmp_path: Path) -> None:
    (mine / "train.csv").write_text(HEAD + "a.png,Q?,yes\n")
    prepared = prepare("custom", mine, tmp_path / "out", dataset_name="wards")
    assert prepared.manifest["dataset"] == "wards"
    for name in ("../up", "a/b", "", "two\nlines"):
        with pytest.raises(DataError, match="--name"):
            prepare("custom", mine, tmp_path / "other", dataset_name=name)
    with pytest.raises(DataError, match="--name is for"):
        prepare("slake", mine, tmp_path / "other", dataset_name="mine")
