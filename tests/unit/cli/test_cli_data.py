import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exgra_med.cli import main
from exgra_med.cli.main import app


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["data", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_names_sources_and_samples() -> None:
    names = [row["name"] for row in json.loads(invoke("list", "--json"))]
    assert "vqa-rad" in names and "bundled:vqa-rad-sample" in names
    assert "image-disjoint" in invoke("list")


def test_show_by_row_and_by_id_is_the_same() -> None:
    row = json.loads(invoke("show", "bundled:vqa-rad-sample", "0", "--json"))
    assert row["id"] == "vqa-rad-sample/train/62"
    assert row["question"] == "is the small bowel appropriately identified with GI contrast?"
    assert row["extended"].startswith("Yes, the small bowel")
    assert "pixels" in row["images"][0]
    assert json.loads(invoke("show", "bundled:vqa-rad-sample", row["id"], "--json")) == row
    assert "GI contrast" in invoke("show", "bundled:vqa-rad-sample", "0")


def test_check_counts_and_exits_2_on_a_fault(tmp_path: Path) -> None:
    out = tmp_path / "ten"
    invoke("subset", "bundled:vqa-rad-sample", "--fraction", "0.1", "--out", str(out))
    report = json.loads(invoke("check", str(out), "--json"))
    assert report["ok"] and report["counts"]["train"] == 20
    assert report["facts"]["test_images_in_train"] == 0
    next((out / "images").iterdir()).write_bytes(b"broken")
    result = CliRunner().invoke(app, ["data", "check", str(out)])
    assert result.exit_code == 2 and "cannot be decoded" in result.stdout


def test_subsets_made_by_the_verb_are_nested(tmp_path: Path) -> None:
    ids = []
    for fraction in ("0.1", "0.4"):
        out = tmp_path / fraction
        invoke("subset", "bundled:vqa-rad-sample", "--fraction", fraction, "--out", str(out))
        lines = (out / "train.jsonl").read_text(encoding="utf-8").splitlines()
        ids.append({json.loads(line)["id"] for line in lines})
    assert ids[0] < ids[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "bundled:vqa-rad-sample", "99999"],
        ["show", "bundled:vqa-rad-sample", "no/such/id"],
        ["show", "nowhere", "0"],
        ["prepare", "vqa-radd", "--source", ".", "--out", "x"],
        ["prepare", "vqa-rad", "--source", "nowhere", "--out", "x"],
        ["prepare", "vqa-rad", "--source", ".", "--out", "x", "--split-variant", "mine"],
        ["subset", "bundled:vqa-rad-sample", "--fraction", "2", "--out", "x"],
    ],
)
def test_a_mistake_is_one_sentence_with_a_way_out(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["exgra-med", "data", *arguments])
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("Error: ") and len(lines) <= 2
    assert not list(tmp_path.iterdir())


def test_help_has_examples_and_imports_nothing_heavy() -> None:
    for verb in ("list", "prepare", "check", "show", "subset"):
        assert "exgra-med data" in invoke(verb, "--help")
    code = (
        "import sys; from exgra_med.cli.main import app; "
        "assert not {'torch', 'PIL', 'numpy', 'rich.progress'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prepare_says_what_it_made(rad_folder: Path, tmp_path: Path) -> None:
    text = invoke("prepare", "vqa-rad", "--source", str(rad_folder), "--out", str(tmp_path / "o"))
    assert "test: 1 records (CLOSED 1)" in text
    again = invoke(
        "prepare", "vqa-rad", "--source", str(rad_folder), "--out", str(tmp_path / "o"), "--json"
    )
    assert json.loads(again)["counts"]["test"] == 1


@pytest.fixture
def rad_folder(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "rad"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "images/a.jpg")
    row = {
        "image_name": "a.jpg",
        "image_organ": "HEAD",
        "question": "Is it?",
        "answer": "yes",
        "answer_type": "CLOSED",
        "question_type": "PRES",
    }
    rows = [row | {"qid": 1, "phrase_type": "para"}, row | {"qid": 2, "phrase_type": "test_para"}]
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps(rows))
    return folder


def test_own_data_is_shown_before_it_is_made_and_asked_about_in_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    # What looks like markup or steers a terminal is data.
    head = "image,question,answer,[/red],\x1b[31mevil\n"
    (tmp_path / "cases.csv").write_text(head + "a.png,Lung?,yes,[bold],x\n")
    words = ["data", "prepare", "custom", str(tmp_path / "cases.csv"), "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "-> question" in result.stdout and "[/red]" in result.stdout
    assert "\x1b" not in result.stdout and "licence: not stated" in result.stdout
    assert "Next: exgra-med data split" in result.stdout

    asked: list[str] = []
    monkeypatch.setattr("exgra_med.cli.data._asks", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda text, **_: asked.append(text) or "CC0")
    monkeypatch.setattr("typer.confirm", lambda text, **_: False)
    words[-1] = str(tmp_path / "p")
    refused = CliRunner().invoke(app, words)
    assert "Nothing was made." in str(refused.exception) and not (tmp_path / "p").exists()
    assert [text.partition(":")[0] for text in asked] == ["Licence", "Origin"]
    monkeypatch.setattr("typer.confirm", lambda text, **_: True)
    said = json.loads(
        (CliRunner().invoke(app, words) and tmp_path / "p" / "manifest.json").read_text()
    )
    assert said["licence"] == said["origin"] == "CC0"
    done = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "q"), "--yes"])
    assert done.exit_code == 0 and len(asked) == 4


def test_in_a_notebook_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from exgra_med.cli import data

    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}", type("Terminal", (), {"isatty": lambda _: True})())
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert data._asks()
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not data._asks()
