"""Forty and more broken inputs: a clear error with exit code 2, or a listed drop; nothing is lost.

After an error there is no output folder and no leftover beside it, and the source is unchanged.
Long because each row of its two tables is a fault of its own, and they share their builders.
"""

import hashlib
import json
import os
import pickle
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.cli import main

RAD = "VQA_RAD Dataset Public.json"


class Payload:
    """A pickle that makes a file when it is loaded by a reader that runs things."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("payload-was-run",)


def rad(folder: Path) -> None:
    for n in range(3):
        picture(folder / f"images/synpic{n}.jpg", n)
    save(folder / RAD, [rad_row(n) for n in range(6)])


def rad_row(n: int) -> dict[str, Any]:
    return {
        "qid": n,
        "phrase_type": "freeform" if n < 4 else "test_freeform",
        "image_name": f"synpic{n % 3}.jpg",
        "image_organ": "HEAD",
        "question": f"Is it {n}?",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
    }


def slake(folder: Path) -> None:
    picture(folder / "imgs/xmlab1/source.jpg")
    row = {"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "Is it?", "answer": "Yes"}
    row |= {"q_lang": "en", "location": "Lung", "modality": "CT", "answer_type": "OPEN"}
    row |= {"base_type": "vqa", "content_type": "Organ", "triple": []}
    for n, name in enumerate(("train", "validate", "test")):
        save(folder / f"{name}.json", [row | {"qid": n}])


def omni(folder: Path) -> None:
    picture(folder / "Images/a.png")
    row = {"dataset": "A", "question_id": "A_0", "question_type": "x", "question": "How?"}
    row |= {"gt_answer": "CT", "image_path": "Images/a.png", "option_A": "CT", "option_B": "MR"}
    save(folder / "QA_information/Open-access/A.json", [row | {"modality_type": "X-Ray"}])


def pathvqa(folder: Path) -> None:
    for split in ("train", "val", "test"):
        picture(folder / f"images/{split}/{split}_1.jpg")
        row = {"img_id": f"{split}_1", "sent": "Is it?", "label": {"yes": 1}}
        row |= {"answer_type": "yes/no", "question_type": "is", "question_id": 1}
        save(folder / f"qas/{split}_vqa.pkl", [row])


def llava(folder: Path) -> None:
    for n in range(4):
        picture(folder / f"images/{n}.jpg", n)
    save(folder / "talk.json", [llava_item(n) for n in range(4)])


def llava_item(n: int) -> dict[str, Any]:
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    return {"id": str(n), "image": f"{n}.jpg", "conversations": talk}


def custom(folder: Path) -> None:
    picture(folder / "images/a.png")
    (folder / "train.csv").write_text("image,question,answer\na.png,Is it?,yes\n")


BUILDERS = {
    "vqa-rad": rad,
    "slake": slake,
    "omnimedvqa": omni,
    "pathvqa": pathvqa,
    "llava-med": llava,
    "custom": custom,
}


def picture(path: Path, colour: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (colour * 60, 60, 30)).save(path)


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(value))
    else:
        path.write_text(json.dumps(value), encoding="utf-8")


def field(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change fields of the second row of a JSON file; None removes one."""

    def change(folder: Path) -> None:
        rows = json.loads((folder / name).read_text())
        row = rows[min(1, len(rows) - 1)] | changes
        rows[min(1, len(rows) - 1)] = {k: v for k, v in row.items() if v != "REMOVE"}
        save(folder / name, rows)

    return change


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def bomb() -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", 32000, 32000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 2**20) + b"IDAT" + b"x" * 50


def link_out(folder: Path) -> None:
    (folder / "images/synpic1.jpg").unlink()
    (folder.parent / "secret.jpg").write_bytes((folder / "images/synpic0.jpg").read_bytes())
    (folder / "images/synpic1.jpg").symlink_to(folder.parent / "secret.jpg")


def link_circle(folder: Path) -> None:
    (folder / "images/synpic1.jpg").unlink()
    (folder / "images/synpic1.jpg").symlink_to("synpic1.jpg")


def cut(name: str, share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return change


def pickled(value: Any) -> Callable[[Path], None]:
    return lambda folder: save(folder / "qas/train_vqa.pkl", value)


TALK = {"from": "human", "value": "Q"}
OMNI = "QA_information/Open-access/A.json"
ONE = "images/synpic1.jpg"

REFUSED = {
    # name: (dataset, what is broken, words of the error)
    "json-cut-short": ("vqa-rad", cut(RAD, 0.7), "not valid JSON"),
    "json-empty-file": ("vqa-rad", replace(RAD, b""), "not valid JSON"),
    "json-not-utf8": ("vqa-rad", replace(RAD, b'["\xff\xfe"]'), "not UTF-8"),
    "json-an-object": ("vqa-rad", replace(RAD, b"{}"), "expected a JSON list"),
    "json-list-of-numbers": ("vqa-rad", replace(RAD, b"[1]"), "row 0 is a int"),
    "json-nan": ("vqa-rad", field(RAD, answer=float("nan")), "NaN is not a JSON value"),
    "json-key-twice": ("vqa-rad", replace(RAD, b'[{"qid": 1, "qid": 2}]'), "given twice"),
    "json-too-deep": ("vqa-rad", replace(RAD, b"[" * 100000), "JSON"),
    "json-huge-number": ("vqa-rad", replace(RAD, b"[" + b"9" * 5000 + b"]"), "5000 digits"),
    "json-no-rows": ("vqa-rad", replace(RAD, b"[]"), "No record is left"),
    "file-missing": ("vqa-rad", lambda f: (f / RAD).unlink(), "is missing"),
    "images-missing": ("slake", lambda f: (f / "imgs").rename(f / "pics"), "'imgs' is missing"),
    "unknown-answer-type": ("vqa-rad", field(RAD, answer_type="MAYBE"), "qid 1: unknown answer_ty"),
    "answer-type-missing": ("vqa-rad", field(RAD, answer_type="REMOVE"), "'answer_type' is miss"),
    "answer-a-list": ("vqa-rad", field(RAD, answer=["Yes", "No"]), "is a list of 2 different"),
    "answer-an-object": ("vqa-rad", field(RAD, answer={"a": 1}), "neither text nor"),
    "organ-null": ("vqa-rad", field(RAD, image_organ=None), "neither text nor"),
    "organ-true": ("vqa-rad", field(RAD, image_organ=True), "neither text nor"),
    "question-missing": ("vqa-rad", field(RAD, question="REMOVE"), "'question' is missing"),
    "lone-surrogate": ("vqa-rad", field(RAD, question="\ud800?"), "row 1: half of"),
    "id-twice": ("vqa-rad", field(RAD, qid=0), "the qid comes twice"),
    "unknown-phrase-type": ("vqa-rad", field(RAD, phrase_type="x"), "phrase_type 'x'"),
    "image-missing": ("vqa-rad", lambda f: (f / ONE).unlink(), "is missing"),
    "image-truncated": ("vqa-rad", cut(ONE, 0.6), "cannot be decoded"),
    "image-empty": ("vqa-rad", replace(ONE, b""), "cannot be decoded"),
    "image-a-bomb": ("vqa-rad", replace(ONE, bomb()), "pixels"),
    "image-a-script": ("vqa-rad", replace(ONE, b"#!/bin/sh\ntouch x"), "cannot be decoded"),
    "image-svg": ("vqa-rad", replace(ONE, b"<svg xmlns='x'/>"), "cannot be decoded"),
    "image-name-up": ("vqa-rad", field(RAD, image_name="../secret.jpg"), "leaves the image folder"),
    "image-name-absolute": ("vqa-rad", field(RAD, image_name="/etc/hosts"), "leaves the image"),
    "image-name-url": ("vqa-rad", field(RAD, image_name="http://169.254.169.254/"), "is a URL"),
    "image-name-empty": ("vqa-rad", field(RAD, image_name=""), "is empty"),
    "image-link-out": ("vqa-rad", link_out, "link that leaves"),
    "image-link-circle": ("vqa-rad", link_circle, "cannot be opened"),
    "image-name-long": ("vqa-rad", field(RAD, image_name="n" * 300 + ".jpg"), "is too long"),
    "slake-language": ("slake", field("train.json", q_lang="fr"), "unknown q_lang 'fr'"),
    "slake-split-missing": (
        "slake",
        lambda f: (f / "test.json").unlink(),
        "'test.json' is missing",
    ),
    "omni-no-modality": ("omnimedvqa", field(OMNI, modality_type="REMOVE"), "'modality' is miss"),
    "omni-other-json": ("omnimedvqa", lambda f: (f / "QA_information").rename(f / "x"), "neither"),
    "pickle-payload": ("pathvqa", pickled([Payload()]), "refused, not a pickle of plain"),
    "pickle-cut": ("pathvqa", cut("qas/train_vqa.pkl", 0.5), "refused, not a pickle"),
    "pickle-of-a-dict": ("pathvqa", pickled({"a": 1}), "expected a list of dicts"),
    "pickle-type": ("pathvqa", pickled([{"img_id": "a", "label": {}, "answer_type": "x"}]), "type"),
    "pickle-no-label": ("pathvqa", pickled([{"img_id": "train_1"}]), "label is not a dict"),
    "pickle-split-gone": ("pathvqa", lambda f: (f / "qas/val_vqa.pkl").unlink(), "missing, while"),
    "talk-missing": ("llava-med", field("talk.json", conversations="REMOVE"), "neither"),
    "talk-both-keys": ("llava-med", field("talk.json", conversatons=[TALK]), "both"),
    "talk-no-turns": ("llava-med", field("talk.json", conversations=[]), "has no turns"),
    "talk-no-answer": (
        "llava-med",
        field("talk.json", conversations=[TALK]),
        "at least a question",
    ),
    "talk-two-questions": ("llava-med", field("talk.json", conversations=[TALK, TALK]), "turn 1"),
    "talk-unknown-role": (
        "llava-med",
        field("talk.json", conversations=[{"from": "narrator", "value": "x"}]),
        "unknown role",
    ),
    "talk-not-text": (
        "llava-med",
        field("talk.json", conversations=[{"from": "human", "value": {}}]),
        "is not text",
    ),
    "talk-long-differs": (
        "llava-med",
        field("talk.json", conversations_long=[TALK]),
        "long: a conversation has at least a question",
    ),
    "csv-cells": (
        "custom",
        replace("train.csv", b"question,answer\na,b,c\n"),
        "3 cells, and the header has 2",
    ),
    "csv-quote": ("custom", replace("train.csv", b'question,answer\n"a"b,c\n'), "not valid CSV"),
    "csv-no-column": (
        "custom",
        replace("train.csv", b"image,asked,answer\na.png,a,b\n"),
        "no column 'question'",
    ),
    "csv-and-jsonl": ("custom", lambda f: (f / "train.jsonl").write_text(""), "both"),
    "csv-no-image-column": (
        "custom",
        replace("train.csv", b"imgae,question,answer\nx,a,b\n"),
        "no column 'image'",
    ),
    "csv-no-image": (
        "custom",
        replace("train.csv", b"image,question,answer\n,a,b\n"),
        "no row names an image",
    ),
    "csv-other-split": ("custom", lambda f: (f / "val.csv").write_text(""), "val.csv would not be"),
    "csv-split-column": (
        "custom",
        replace("train.csv", b"image,question,answer,split\nx.png,a,b,test\n"),
        "column 'split' says 'test'",
    ),
    "csv-semicolons": (
        "custom",
        replace("train.csv", b"image;question;answer\nnone.png;a, b;c\n"),
        "'none.png' is missing",
    ),
    "csv-nothing": ("custom", lambda f: (f / "train.csv").unlink(), "no table is there"),
}

DROPPED = {
    "null-answer": ("vqa-rad", field(RAD, answer=None), [], "empty answer"),
    "empty-answer": ("vqa-rad", field(RAD, answer=" "), [], "empty answer"),
    "empty-question": ("vqa-rad", field(RAD, question=""), [], "empty question"),
    "broken-image": ("vqa-rad", cut(ONE, 0.6), ["--drop-broken-images"], "cannot be decoded"),
    "absent-image": (
        "vqa-rad",
        lambda f: (f / ONE).unlink(),
        ["--drop-broken-images"],
        "is missing",
    ),
    "one-option": (
        "omnimedvqa",
        lambda f: save(
            f / OMNI,
            [
                row := json.loads((f / OMNI).read_text())[0],
                {k: v for k, v in row.items() if k != "option_B"} | {"question_id": "A_1"},
            ],
        ),
        [],
        "1 options",
    ),
    "empty-label": (
        "pathvqa",
        pickled(
            [
                {"img_id": "train_1", "sent": "Q?", "label": {}, "answer_type": "other"},
                {"img_id": "train_1", "sent": "Q?", "label": {"a": 1}, "answer_type": "other"},
            ]
        ),
        [],
        "empty answer",
    ),
    "empty-message": (
        "llava-med",
        field("talk.json", conversations=[TALK, {"from": "gpt", "value": " "}]),
        [],
        "an empty message",
    ),
}


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["exgra-med", "data", *arguments])
    with pytest.raises(SystemExit) as caught:
        main.run()
    return int(caught.value.code or 0)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_a_clear_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, damage, words = REFUSED[name]
    source = tmp_path / "source"
    BUILDERS[dataset](source)
    damage(source)
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    code = run(monkeypatch, "prepare", dataset, "--source", "source", "--out", "out")
    error = capsys.readouterr().err
    assert code == 2
    assert words in error and error.startswith("Error: ")
    assert "Traceback" not in error
    assert snapshot(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if "out" in path.name or "run" in path.name]


@pytest.mark.parametrize("name", DROPPED)
def test_it_is_dropped_and_listed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, damage, flags, reason = DROPPED[name]
    source = tmp_path / "source"
    BUILDERS[dataset](source)
    damage(source)
    out = tmp_path / "out"
    arguments = ["prepare", dataset, "--source", str(source), "--out", str(out), "--json", *flags]
    assert run(monkeypatch, *arguments) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["dropped"] and all(reason in item["reason"] for item in manifest["dropped"])
    assert sum(manifest["counts"].values()) > 0


@pytest.mark.parametrize("dataset", BUILDERS)
def test_the_undamaged_source_is_prepared(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BUILDERS[dataset](tmp_path / "source")
    arguments = ("--source", str(tmp_path / "source"), "--out", str(tmp_path / "out"))
    assert run(monkeypatch, "prepare", dataset, *arguments) == 0
    assert run(monkeypatch, "check", str(tmp_path / "out")) == 0


def test_there_are_at_least_forty() -> None:
    assert len(REFUSED) + len(DROPPED) >= 40
