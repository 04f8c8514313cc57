"""Judgements are a growing file: what was stored is not lost, and counts and kappa are right."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from exgra_med.captions.difference import differences
from exgra_med.captions.judgements import JudgementFile, judgements_path, read_judgements
from exgra_med.cli.main import app
from exgra_med.errors import DamagedFileError, DataError
from exgra_med.evaluation.agreement import agreement


def texts(number: int) -> list[str]:
    return [f"Yes, a mass of the lung, case {n}." for n in range(number)]


def captions(tmp_path: Path, number: int) -> Path:
    path = tmp_path / "long.jsonl"
    talk = [{"role": "user", "text": "Is a mass seen?"}, {"role": "assistant", "text": "Yes"}]
    rows = [
        {"id": f"r/{n}", "image": f"{n // 2}.png", "turns": talk, "extended": [text]}
        for n, text in enumerate(texts(number))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judge(path: Path, rater: str, verdicts: str, note: str = "") -> None:
    words = {"a": "accept", "r": "reject", "u": "unsure", "-": ""}
    with JudgementFile(str(path), rater) as file:
        for number, letter in enumerate(verdicts):
            text = f"Yes, a mass of the lung, case {number}."
            file.add((f"r/{number}", 0), text, words[letter], note)


def told(*given: object) -> str:
    shown = CliRunner().invoke(app, ["captions", *map(str, given)], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_the_last_judgement_counts_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = captions(tmp_path, 3)
    judge(path, "ana", "arr")
    judge(path, "ana", "u")
    stored = judgements_path(str(path), "ana")
    whole = stored.read_bytes()
    stored.write_bytes(whole + b'{"id": "r/1", "turn": 0, "te')
    found = read_judgements(str(path))["ana"]
    assert [each.verdict for each in found.values()] == ["unsure", "reject", "reject"]
    judge(path, "ana", "a")
    assert stored.read_bytes().startswith(whole)
    assert len(stored.read_bytes().splitlines()) == 5


def test_a_changed_line_is_found(tmp_path: Path) -> None:
    path = captions(tmp_path, 2)
    judge(path, "ana", "ar")
    stored = judgements_path(str(path), "ana")
    stored.write_bytes(stored.read_bytes().replace(b"reject", b"accept"))
    with pytest.raises(DamagedFileError, match="holds a line 2 that is not"):
        read_judgements(str(path))
    stored.write_text("[1]\n")
    with pytest.raises(DataError, match=r"ana\.jsonl:1: not a judgement"):
        JudgementFile(str(path), "ana").__enter__()


def test_what_cannot_be_stored_does_not_count(tmp_path: Path, monkeypatch) -> None:
    path = captions(tmp_path, 2)
    with JudgementFile(str(path), "ana") as file:
        file.add(("r/0", 0), "text", "accept", "")
        with pytest.raises(DataError, match="'maybe' is no verdict"):
            file.add(("r/1", 0), "text", "maybe", "")
        with pytest.raises(DataError, match="may have 2000 characters"):
            file.add(("r/1", 0), "text", "accept", "x" * 2001)
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr("exgra_med.captions.judgements.append", full)
            with pytest.raises(OSError, match="No space"):
                file.add(("r/1", 0), "text", "accept", "")
        assert ("r/1", 0) not in file.latest
        file.add(("r/1", 0), "text", "reject", "")
    assert [each.verdict for each in read_judgements(str(path))["ana"].values()] == [
        "accept",
        "reject",
    ]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a.b", "x" * 41, "a/b"])
def test_a_rater_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be part of a file's name"):
        judgements_path(str(tmp_path / "long.jsonl"), name)


def test_judgements_of_a_folder_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert judgements_path(str(tmp_path / "data"), "ana") == tmp_path / "data.judgements.ana.jsonl"


def test_two_raters_are_compared(tmp_path: Path) -> None:
    path = captions(tmp_path, 12)
    judge(path, "ana", "aaaaarrrruu-")
    judge(path, "bo", "aaaarrrrruua")
    output = told("judgements", path)
    assert "ana: 5 accept, 4 reject, 2 unsure." in output
    assert "ana and bo: agree on 10 of 11, Cohen's kappa 0.86 (" in output
    assert "    accept by ana, reject by bo: 1\n" in output
    found = json.loads(told("judgements", path, "--json"))["agreement"][0]
    assert found["table"]["accept"] == {"accept": 4, "reject": 1, "unsure": 0}
    low, high = found["kappa"]["interval"]
    assert low < found["kappa"]["value"] < high <= 1


def test_judgements_of_changed_texts_do_not_count(tmp_path: Path) -> None:
    path = captions(tmp_path, 3)
    judge(path, "ana", "aar")
    path.write_text(path.read_text().replace("case 2", "case two"))
    output = told("judgements", path)
    assert "ana: 2 accept, 0 reject, 0 unsure." in output
    assert "1 judgements are of texts that have changed; not counted." in output


def test_a_file_that_was_renamed_is_of_the_rater_in_its_name(tmp_path: Path) -> None:
    path = captions(tmp_path, 2)
    judge(path, "ana", "ar")
    judgements_path(str(path), "ana").rename(judgements_path(str(path), "bo"))
    assert told("judgements", path).startswith("bo: 1 accept, 1 reject, 0 unsure.")


def test_nobody_has_judged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nobody has judged these captions"):
        told("judgements", captions(tmp_path, 1))


def test_the_export_is_read_by_spreadsheets_and_scripts(tmp_path: Path) -> None:
    path = captions(tmp_path, 2)
    judge(path, "ana", "ar", '=HYPERLINK("http://x.example")')
    told("judgements", path, "--out", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows: list[dict[str, Any]] = list(csv.DictReader(stream))
    assert [row["verdict"] for row in rows] == ["accept", "reject"]
    assert rows[0]["extended"] == texts(1)[0] and rows[0]["question"] == "Is a mass seen?"
    assert rows[0]["note"].startswith("'=")
    told("judgements", path, "--out", tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["r/0", "r/1"]
    assert lines[0]["note"].startswith("=")
    with pytest.raises(DataError, match=r"ends in \.csv or \.jsonl"):
        told("judgements", path, "--out", tmp_path / "out.xlsx")


def test_kappa_is_that_of_the_textbook() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o 0.7, p_e 0.5, kappa 0.4.
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement(first, second, [str(n) for n in range(50)])
    assert found["agreed"] == 35 and found["kappa"]["value"] == pytest.approx(0.4)
    low, high = found["kappa"]["interval"]
    # The large-sample standard error is 0.13.
    assert low == pytest.approx(0.4 - 1.96 * 0.13, abs=0.05)
    assert high == pytest.approx(0.4 + 1.96 * 0.13, abs=0.05)
    one_image = agreement(first, second, ["a"] * 50)
    assert one_image["kappa"]["interval"] is None
    alike = agreement(["yes"] * 9, ["yes"] * 9, list("abcdefghi"))
    assert alike["agreed"] == 9 and alike["kappa"]["value"] is None


@pytest.mark.parametrize(
    ("answer", "extended", "gone", "added"),
    [
        ("Left lung", "It lies in the left lung.", [], ["It lies in the "]),
        ("A mass of 3.5 cm", "A mass of 3 cm", ["3.5 "], ["3 "]),
        ("No", "No, none.", [], ["none."]),
        ("Yes", "It does.", ["Yes"], ["It does."]),
        ("", "Word", [], ["Word"]),
    ],
)
def test_differences_are_words(answer: str, extended: str, gone: list, added: list) -> None:
    old, new = differences(answer, extended)
    assert "".join(piece.text for piece in old) == answer
    assert "".join(piece.text for piece in new) == extended
    assert [piece.text for piece in old if piece.differs] == gone
    assert [piece.text for piece in new if piece.differs] == added
