"""GGUF export against a converter of ours that writes down what it was given."""

import json
import sys
from pathlib import Path

import pytest

from exgra_med.errors import CheckpointError
from exgra_med.model.bundle import save_bundle
from exgra_med.model.convert.checkpoint import export_checkpoint
from exgra_med.model.convert.gguf import CONVERTERS
from exgra_med.model.convert.tokenizer import read_sentencepiece, sentencepiece_model
from exgra_med.model.processor import train_tokenizer

CONVERTER = f"""#!{sys.executable}
import json, pathlib, sys
folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
files = sorted(file.name for file in folder.iterdir())
pieces = (folder / "tokenizer.model").stat().st_size
said = json.dumps(dict(name=folder.name, arguments=sys.argv[4:], files=files, pieces=pieces))
LINE
out.write_text("GGUF" + said)
"""
UNKNOWN_TOWER = 'if "--mmproj" in sys.argv: raise ValueError(f"unknown tower in {folder}")'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the export reads of a model: its weights are for the converter alone."""
    model = tmp_path / "model"
    train_tokenizer(["The left lobe of the liver."] * 4, 400).save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "gemma3", "dtype": "bfloat16"}')
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "README.md").write_text("Terms")
    return model


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str = "", name: int = 0) -> Path:
    """Put the converter into a folder that alone is searched for programs."""
    folder.mkdir()
    program = folder / CONVERTERS[name]
    program.write_text(CONVERTER.replace("LINE", line))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def nothing_left(out: Path) -> bool:
    return not [path for path in out.parent.iterdir() if "out" in path.name]


@pytest.mark.parametrize("name", [0, 1])
def test_both_parts_are_converted(
    folder: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: int
) -> None:
    install(tmp_path / "bin", monkeypatch, name=name)
    for _ in range(2):  # an earlier export is replaced
        export_checkpoint(str(folder), out, "gguf")
    files = {file.name: file.read_text() for file in out.iterdir()}
    assert sorted(files) == ["README.md", "export.json", "mmproj.gguf", "model.gguf"]
    text, vision = (
        json.loads(files[n].removeprefix("GGUF")) for n in ("model.gguf", "mmproj.gguf")
    )
    assert text["name"] == vision["name"] == "model"
    assert text["arguments"] == ["--outtype", "bf16"]
    assert vision["arguments"] == ["--outtype", "bf16", "--mmproj"]
    given = {file.name for file in folder.iterdir()} | {"tokenizer.model"}
    assert set(text["files"]) == given and text["pieces"] > 1000
    assert not (folder / "tokenizer.model").exists()


def test_a_tokenizer_model_that_is_there_is_taken(
    folder: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokenizer.model").write_bytes(b"own")
    install(tmp_path / "bin", monkeypatch)
    export_checkpoint(str(folder), out, "gguf")
    assert json.loads((out / "model.gguf").read_text().removeprefix("GGUF"))["pieces"] == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (UNKNOWN_TOWER, "vision part of {folder}: ValueError: unknown tower in {folder}"),
        ("sys.exit(0)", "language model of {folder}: exit code 0, no message"),
        (
            "out = folder.parent / 'elsewhere'",
            "language model of {folder}: exit code 0, no message",
        ),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_nothing(
    folder: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    install(tmp_path / "bin", monkeypatch, line)
    with pytest.raises(CheckpointError) as caught:
        export_checkpoint(str(folder), out, "gguf")
    assert caught.value.message.endswith(said.format(folder=folder))
    assert nothing_left(out)


def test_without_a_converter_the_commands_are_told(
    folder: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"convert_hf_to_gguf\.py, is not on the PATH"
    ) as caught:
        export_checkpoint(str(folder), out, "gguf")
    command = f"python convert_hf_to_gguf.py {folder} --outfile"
    assert f"`{command} model.gguf --outtype bf16`" in caught.value.hint
    assert f"`{command} mmproj.gguf --outtype bf16 --mmproj`" in caught.value.hint
    assert nothing_left(out)


def test_a_checkout_is_named(
    folder: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = install(tmp_path / "llama.cpp", monkeypatch)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CheckpointError, match=r"has no convert_hf_to_gguf\.py"):
        export_checkpoint(str(folder), out, "gguf", llama_cpp=tmp_path)
    export_checkpoint(str(folder), out, "gguf", llama_cpp=checkout)
    assert (out / "mmproj.gguf").is_file()


def test_a_program_that_cannot_be_run(
    folder: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = install(tmp_path / "bin", monkeypatch) / CONVERTERS[0]
    program.write_text("#!/no/such/interpreter\n")
    with pytest.raises(CheckpointError, match=r"cannot be run \(No such file or directory\)"):
        export_checkpoint(str(folder), out, "gguf")
    assert nothing_left(out)


def test_other_files_are_not_overwritten(folder: Path, out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is no earlier export"):
        export_checkpoint(str(folder), out, "gguf")
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_clip_tower_is_refused(make_bundle, tmp_path: Path, out: Path) -> None:  # type: ignore
    save_bundle(make_bundle("none"), tmp_path / "native")
    with pytest.raises(CheckpointError, match="issue 25814"):
        export_checkpoint(str(tmp_path / "native"), out, "gguf")
    assert nothing_left(out)


def test_pieces_and_merges_come_back(folder: Path, tmp_path: Path) -> None:
    written = tmp_path / "tokenizer.model"
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    written.write_bytes(sentencepiece_model(folder / "tokenizer.json") or b"")
    vocabulary, merges = read_sentencepiece(written)
    model = tokenizer["model"]
    assert list(vocabulary)[: len(model["vocab"])] == sorted(model["vocab"], key=model["vocab"].get)
    assert list(vocabulary)[-4:] == ["[PAD]", "<im_patch>", "<im_start>", "<im_end>"]
    # Reading finds every way to cut a piece in two; the ones of the training come in their order.
    known = [tuple(merge) for merge in model["merges"]]
    made: dict[str, int] = {}
    for left, right in merges:
        made.setdefault(left + right, len(made))
    assert list(made) == list(dict.fromkeys(left + right for left, right in known))
