"""Answer files of VLMEvalKit, lmms-eval, MedEvalKit and LLaVA-Med, in the shapes they write."""

import csv
import io
import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.records import AnswerType
from exgra_med.errors import DataError, ExgraMedError, ScoreError
from exgra_med.evaluation.answers import Pairing, Question, pair, read_predictions
from exgra_med.evaluation.compare import compare_stored
from exgra_med.evaluation.score import score_files

# Questions that are alike on several pictures, as in SLAKE, and two that stand alone.
ASKED: list[tuple[str, str, str, str, AnswerType]] = [
    ("11934", "xmlab102/source.jpg", "What modality is used?", "MRI", "OPEN"),
    ("11935", "xmlab102/source.jpg", "Is the lung normal?", "yes", "CLOSED"),
    ("11936", "xmlab103/source.jpg", "What modality is used?", "CT", "OPEN"),
    ("11937", "xmlab103/source.jpg", "Is the lung normal?", "no", "CLOSED"),
    ("11938", "xmlab104/source.jpg", "What modality is used?", "CT", "OPEN"),
    ("11939", "xmlab104/source.jpg", "Where is the liver?", "left, upper side", "OPEN"),
    ("11940", "xmlab104/source.jpg", "Does it show bones?", "no", "CLOSED"),
]
SAID = ["MRI", "no", "CT scan", "No", "PET", "upper left", "yes"]


def questions() -> list[Question]:
    return [
        Question(f"slake/test/{qid}", text, answer, kind, (image,), meta={"published_id": qid})
        for qid, image, text, answer, kind in ASKED
    ]


def vlmevalkit() -> list[dict]:
    rows = zip(ASKED, SAID, strict=True)
    return [
        {
            "index": n,
            "question": text,
            "answer": answer,
            "image_path": f"/data/LMUData/images/SLAKE/{n}.jpg",
            "prediction": said,
            "thinking": "",
        }
        for n, ((_, _, text, answer, _), said) in enumerate(rows)
    ]


def lmms_eval() -> list[dict]:
    """As commit 75571cfe writes it: no `doc`, one reply not in a list."""
    rows = []
    for n, ((qid, _, text, answer, kind), said) in enumerate(zip(ASKED, SAID, strict=True)):
        record = {"id": qid, "prediction": said, "target": answer, "answer_type": kind.lower()}
        rows.append(
            {
                "doc_id": n,
                "target": answer,
                "filtered_resps": said,
                "token_counts": [{"input_tokens": 9, "output_tokens": 2}],
                "doc_hash": "0c4f",
                "slake_accuracy": record,
                "slake_open_accuracy": record,
                "input": f"{text}\nAnswer the question using a single word or phrase.",
            }
        )
    return rows


def lmms_eval_earlier() -> list[dict]:
    rows = zip(ASKED, SAID, strict=True)
    return [
        {
            "doc_id": n,
            "doc": {"question": text, "answer": answer, "qid": int(qid), "img_name": image},
            "target": answer,
            "arguments": [f"{text}\nAnswer the question using a single word or phrase."],
            "resps": [[said]],
            "filtered_resps": [said],
        }
        for n, ((qid, image, text, answer, _), said) in enumerate(rows)
    ]


def medevalkit() -> list[dict]:
    rows = zip(ASKED, SAID, strict=True)
    return [
        {
            "lang": "en",
            "answer_type": kind,
            "answer": answer,
            "question": text,
            "prompt": f"{text}\nPlease answer the question concisely.",
            "response": said,
            "correct": False,
            "metrics": {"em": False, "f1": 0.5},
        }
        for (_, _, text, answer, kind), said in rows
    ]


def llava_med() -> list[dict]:
    rows = zip(ASKED, SAID, strict=True)
    return [
        {
            "question_id": qid,
            "prompt": f"{text}",
            "text": said,
            "answer_id": "3jAp",
            "model_id": "llava-med",
            "metadata": {},
        }
        for (qid, _, text, _, _), said in rows
    ]


def as_lines(rows: list[dict]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def as_tsv(rows: list[dict]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_columns(rows: list[dict]) -> str:
    return json.dumps({key: {str(n): r[key] for n, r in enumerate(rows)} for key in rows[0]})


FILES = {
    "VLMEvalKit, table": (as_tsv(vlmevalkit()), "VLMEvalKit", "row number, from 0"),
    "VLMEvalKit, list": (json.dumps(vlmevalkit()), "VLMEvalKit", "row number, from 0"),
    "VLMEvalKit, columns": (as_columns(vlmevalkit()), "VLMEvalKit", "row number, from 0"),
    "lmms-eval": (as_lines(lmms_eval()), "lmms-eval", "published id"),
    "lmms-eval with doc": (as_lines(lmms_eval_earlier()), "lmms-eval", "published id"),
    "lmms-eval, first versions": (
        json.dumps({"args": {}, "model_configs": {}, "logs": lmms_eval_earlier()}, indent=4),
        "lmms-eval",
        "published id",
    ),
    "MedEvalKit": (
        json.dumps(medevalkit(), indent=4),
        "MedEvalKit",
        "question text and reference answer; 2 that are alike by their order in the file",
    ),
    "LLaVA-Med": (as_lines(llava_med()), "", "published id"),
}


def joined(path: Path, asked: list[Question] | None = None) -> Pairing:
    return pair(read_predictions(path).predictions, asked or questions())


@pytest.mark.parametrize("name", FILES)
def test_each_tool_is_known_by_what_its_file_holds(tmp_path: Path, name: str) -> None:
    content, tool, joined_by = FILES[name]
    path = tmp_path / "answers.dat"
    path.write_text(content, encoding="utf-8")
    assert read_predictions(path).tool == tool
    found = joined(path)
    assert list(found.answers) == SAID
    assert found.joined_by == joined_by
    assert not any(found.counts[each] for each in ("missing", "extra", "contradictory"))


def test_an_excel_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    rows = vlmevalkit()
    rows[1]["prediction"] = None
    rows[2]["prediction"] = "Failed to obtain answer via API."
    book.active.append(list(rows[0]))
    for row in rows:
        book.active.append(list(row.values()))
    path = tmp_path / "answers.bin"
    book.save(path)
    stored = read_predictions(path)
    assert stored.tool == "VLMEvalKit"
    assert stored.oddities["tool_got_no_answer"] == stored.oddities["answer_is_null"] == 1
    assert list(joined(path).answers) == ["MRI", "", None, *SAID[3:]]


NOT_ANSWERS = {
    "lmms-eval's scores": (
        json.dumps({"results": {"slake_en": {"slake_accuracy,none": 0.4}}, "configs": {}}),
        "lmms-eval's scores.*samples",
    ),
    "MedEvalKit's scores": (
        json.dumps({"total metrics": {"total": 7, "right": 3}}, indent=4),
        "MedEvalKit's scores.*results.json",
    ),
    "a reference": (
        json.dumps([{"qid": 1, "question": "Is it?", "answer": "yes"}]),
        "nothing that a model said",
    ),
    "likelihoods": (
        as_lines([{"doc_id": 0, "filtered_resps": [[-1.5, False], [-0.2, True]]}]),
        "likelihoods of options",
    ),
    "several replies": (
        as_lines([{"doc_id": 0, "filtered_resps": ["yes", "no"]}]),
        "2 different replies",
    ),
    "several tasks": (
        json.dumps({"samples": {"slake_en": [{}], "slake_zh": [{}]}}),
        "several tasks: slake_en, slake_zh",
    ),
    "two answers a row": (
        json.dumps([{"question": "Is it?", "prediction": "yes", "response": "no"}]),
        "both 'prediction' and 'response'",
    ),
    "an empty table": ("index\tprediction\n", "without rows"),
    "an object": (json.dumps({"a": {"b": 1}, "c": 2}, indent=1), "one object with 'a', 'c'"),
}


@pytest.mark.parametrize("name", NOT_ANSWERS)
def test_what_holds_no_answers_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    content, message = NOT_ANSWERS[name]
    path = tmp_path / "answers.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_predictions(path)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_row_holds_is_read_or_refused_in_a_sentence(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    odd = [None, True, -3.5, "", [], [None], ["a", "b"], [[1, 2]], {}, {"a": 1}, "[1, 2]", "\0"]
    rows = draw.choice([vlmevalkit, lmms_eval, lmms_eval_earlier, medevalkit, llava_med])()
    for _ in range(3):
        row = draw.choice(rows)
        row[draw.choice([*row, "image", "doc", "samples", "text", "id"])] = draw.choice(odd)
    for content in (json.dumps(rows), as_lines(rows), json.dumps({"logs": rows}, indent=1)):
        (tmp_path / "a.json").write_text(content, encoding="utf-8")
        with suppress(ExgraMedError):
            joined(tmp_path / "a.json")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "answers.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05hello\x94.")
    with pytest.raises(DataError, match=r"can run any program.*PRED_FORMAT=tsv"):
        read_predictions(path)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_pictures_tell_alike_questions_apart_without_any_id(tmp_path: Path) -> None:
    rows = [
        {"question": text.upper(), "image": f"/data/imgs/{image}", "prediction": said}
        for (_, image, text, _, _), said in zip(ASKED, SAID, strict=True)
    ]
    random.Random(3).shuffle(rows)
    found = joined(write(tmp_path / "a.json", rows))
    assert list(found.answers) == SAID
    assert found.joined_by == "question text and picture"
    half = [each for each in questions() if "103" not in each.images[0]]
    fewer = joined(tmp_path / "a.json", half)
    assert list(fewer.answers) == [*SAID[:2], *SAID[4:]]
    assert fewer.counts["extra"] == 2
    assert "xmlab103" in fewer.examples["extra"][0]


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_guessed_where_nothing_tells_questions_apart(tmp_path: Path, seed: int) -> None:
    rows = medevalkit()
    random.Random(seed).shuffle(rows)
    found = joined(write(tmp_path / "a.json", rows))
    # CT was asked for on two pictures, and the answers differ.
    assert list(found.answers) == [SAID[0], SAID[1], None, SAID[3], None, *SAID[5:]]
    assert found.counts["ambiguous"] == 2
    assert found.counts["missing"] == 2
    assert "What modality is used?" in found.examples["ambiguous"][0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_chunks_of_several_processes_are_put_together(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    rows = [row for first in order for row in medevalkit()[first::3]]
    found = joined(write(tmp_path / "a.json", rows))
    assert list(found.answers) == SAID
    assert "2 that are alike by their order in the file" in found.joined_by


def test_equal_answers_to_alike_questions_need_not_be_told_apart(tmp_path: Path) -> None:
    rows = medevalkit()
    rows[2]["response"] = rows[4]["response"] = "CT"
    found = joined(write(tmp_path / "a.json", rows[::-1]))
    assert list(found.answers) == ["MRI", "no", "CT", "No", "CT", *SAID[5:]]


def test_a_known_question_with_an_unknown_reference_is_another_one(tmp_path: Path) -> None:
    rows = [*medevalkit(), medevalkit()[5] | {"answer": "right", "response": "right"}]
    found = joined(write(tmp_path / "a.json", rows))
    assert found.counts["other_answer"] == 1
    assert found.answers[5] == SAID[5]


def test_an_id_is_not_believed_against_the_text(tmp_path: Path) -> None:
    rows = [dict(row, id=qid) for row, (qid, *_) in zip(medevalkit(), ASKED, strict=True)]
    rows[0]["question"] = "Is this another question?"
    found = joined(write(tmp_path / "a.json", rows))
    assert list(found.answers) == [None, *SAID[1:]]
    assert found.counts["other_text"] == 1
    shifted = [dict(row, index=n + 1) for n, row in enumerate(vlmevalkit()[1:])]
    # Row 1 of that file is question 2 of the reference: numbered from 1, it fits nothing.
    renumbered = [dict(row, index=n) for n, row in enumerate(shifted)]
    found = joined(write(tmp_path / "b.json", renumbered))
    assert found.joined_by.startswith("question text")
    assert found.answers[1:2] + found.answers[5:] == SAID[1:2] + SAID[5:]


def test_row_numbers_say_nothing_where_all_questions_are_alike(tmp_path: Path) -> None:
    alike = [Question(f"d/{n}", "What is it?", "a", "OPEN", (f"{n}.png",)) for n in range(5)]
    rows = [{"index": n + 1, "question": "What is it?", "prediction": str(n)} for n in range(4)]
    with pytest.raises(ScoreError, match="No answer belongs to a question"):
        joined(write(tmp_path / "a.json", rows), alike)


def test_bare_row_numbers_are_not_taken_for_published_ids(tmp_path: Path) -> None:
    published = [Question(f"d/{n}", "q", "a", "OPEN", meta={"published_id": n + 1}) for n in (0, 1)]
    rows = [{"index": n, "prediction": "yes"} for n in range(2)]
    with pytest.raises(ScoreError, match="No answer belongs to a question"):
        joined(write(tmp_path / "a.json", rows), published)


def test_an_answer_given_twice_is_counted(tmp_path: Path) -> None:
    rows = [*vlmevalkit(), vlmevalkit()[0], vlmevalkit()[1] | {"prediction": "yes"}]
    found = joined(write(tmp_path / "a.json", rows))
    assert (found.counts["duplicate"], found.counts["contradictory"]) == (2, 1)
    assert found.answers[:2] == ["MRI", None]


def reference(folder: Path) -> Path:
    path = folder / "test.jsonl"
    lines = [
        {
            "id": each.id,
            "image": each.images[0],
            "turns": [
                {"role": "user", "text": each.text},
                {"role": "assistant", "text": each.answer},
            ],
            "answer_type": each.answer_type,
            "meta": each.meta,
        }
        for each in questions()
    ]
    path.write_text(as_lines(lines), encoding="utf-8")
    return path


def test_score_and_compare_take_them_and_tell_how(tmp_path: Path) -> None:
    asked = reference(tmp_path)
    (tmp_path / "a.tsv").write_text(as_tsv(vlmevalkit()), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(medevalkit()[::-1]), encoding="utf-8")
    one = score_files(tmp_path / "a.tsv", asked, num_bootstrap_samples=0)
    assert one["scores"]["closed_accuracy"]["value"] == pytest.approx(100 / 3)
    shown = CliRunner().invoke(app, ["evaluate", "score", f"{tmp_path}/b.json", str(asked)])
    said = " ".join(shown.output.split())
    assert "Read as a file of MedEvalKit; answers and questions were joined by question" in said
    assert "Answers that may belong to several questions (left out; give the file in" in said
    assert "names of pictures): 2, as row 3: “What modality is used?”" in said
    both = compare_stored(tmp_path / "a.tsv", tmp_path / "b.json", asked)
    assert any("Read as a file of VLMEvalKit" in each for each in both["notes"])
    assert any("may belong to several" in each for each in both["notes"])
