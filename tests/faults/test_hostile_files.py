"""Files that somebody made to do harm: each is refused in one sentence, fast, and writes nothing.

What a mutation would hardly find stands here: archives that become terabytes, YAML that becomes
billions of values, configurations that name code or sizes, names that leave their folder.
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
import shlex
import struct
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from valid_files import RECORD, checkpoint, write_checkpoint

from exgra_med.data.download import archives
from exgra_med.data.download.archives import read_members, unpack
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import iterate_records, open_prepared
from exgra_med.data.sources.parquet import iterate_rows
from exgra_med.data.sources.tables import read_rows
from exgra_med.errors import (
    CheckpointError,
    DataError,
    ExgraMedError,
    RecipeError,
    RunError,
)
from exgra_med.evaluation.answers import Prediction, PredictionWriter, read_predictions
from exgra_med.evaluation.results import Entry
from exgra_med.evaluation.session import answers_file, answers_path
from exgra_med.lab.studies.schema import load_study
from exgra_med.lab.studies.slurm import write_arrays
from exgra_med.model import chat_text
from exgra_med.model.bundle import bounded, check_settings, load_bundle
from exgra_med.model.chat_text import ChatText
from exgra_med.model.convert.weights import read_weights, weight_files
from exgra_med.model.inspection import describe_checkpoint
from exgra_med.reading import inside, parse_yaml, read_json, read_yaml, stray
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.schema import check_recipe
from families import make

BAD_NAMES = [
    "../evil", "/etc/evil", "a/../../evil", "a/..", "..", "..\\evil", "a\\b", "C:\\evil", "C:evil",
    "a\nb", "a\rb", "a\x1b[2Jb", "a\x7f", "a\u2028b", "a" * 300, "a/" * 5000 + "b", "é" * 200,
]  # fmt: skip
"""None of these may be joined to a folder."""


def member(name: str, size: int = 3, kind: bytes = tarfile.REGTYPE) -> bytes:
    """One header of a tar with its content."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, "good"
    content = b"x" * size if kind == tarfile.REGTYPE else b""
    return info.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512)


def header(kind: bytes, size: int, name: str = "h", content: bytes | None = None) -> bytes:
    """A header that describes the next member, and its content."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    content = b"\0" * min(size, 5 * 2**20) if content is None else content
    return info.tobuf(tarfile.USTAR_FORMAT) + content + b"\0" * (-len(content) % 512)


def pax(**words: str) -> bytes:
    """The extended header that says these words."""
    lines = b""
    for key, value in words.items():
        body = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        lines += f"{length}".encode() + body
    return header(tarfile.XHDTYPE, len(lines), content=lines)


def negative() -> bytes:
    raw = bytearray(member("a", 0))
    raw[124:136] = b"\xff" * 11 + b"\x00"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


def old_sparse() -> bytes:
    raw = bytearray(member("huge", 0))
    raw[156:157] = tarfile.GNUTYPE_SPARSE
    raw[386:410] = b"00000000000\0" * 2
    raw[483:495] = b"\x80" + (10**6).to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


END = b"\0" * 1024
ZEROS = b"\0" * (6 * 2**20)
TARS: dict[str, tuple[bytes, str]] = {
    **{f"name {name[:20]!r} of {len(name)}": (member("good") + pax(path=name) + member("x"),
       "leaves the folder|not a name|too long") for name in BAD_NAMES},
    "symlink": (member("a", 0, tarfile.SYMTYPE), "link or a device"),
    "hard link": (member("good") + member("a", 0, tarfile.LNKTYPE), "link or a device"),
    "character device": (member("a", 0, tarfile.CHRTYPE), "link or a device"),
    "block device": (member("a", 0, tarfile.BLKTYPE), "link or a device"),
    "pipe": (member("a", 0, tarfile.FIFOTYPE), "link or a device"),
    "old sparse": (old_sparse(), "is sparse"),
    "new sparse": (pax(GNU_sparse_map="0,1", GNU_sparse_size="1000000") + member("a"), "is sparse"),
    "sparse terabyte": (pax(GNU_sparse_map="0,1", GNU_sparse_size=str(2**40)) + member("a"),
                        "more than the allowed bytes"),
    "same name twice": (member("a") + member("a"), "would replace"),
    "file as a folder": (member("a") + member("a/b"), "would replace"),
    "folder as a file": (member("a/b") + member("a"), "would replace"),
    "too large": (header(tarfile.REGTYPE, 2**33 - 1), "more than the allowed bytes"),
    "size of a word": (pax(size=str(2**70)) + member("a"), "more than the allowed bytes"),
    "size below zero": (negative(), "broken archive"),
    "size that is no number": (pax(size="x") + member("a"), "broken archive"),
    "extended header of 6 MB": (header(tarfile.XHDTYPE, 6 * 2**20), "header of more than"),
    "extended header of 8 GB": (header(tarfile.XHDTYPE, 2**33 - 1), "header of more than"),
    "global header of 6 MB": (header(tarfile.XGLTYPE, 6 * 2**20), "header of more than"),
    "long name of 6 MB": (header(tarfile.GNUTYPE_LONGNAME, 6 * 2**20), "header of more than"),
    "long link of 6 MB": (header(tarfile.GNUTYPE_LONGLINK, 6 * 2**20), "header of more than"),
    "3000 headers": (pax(comment="x") * 3000 + member("a"), "header of more|broken archive"),
    "header of nothing": (pax(path=""), "broken archive"),
    "half a header": (member("a") + b"x" * 300, "broken archive"),
    "a damaged header": (member("a") + b"x" * 512 + member("b"), "broken archive"),
    "cut content": (member("a", 2000)[:900], "broken archive"),
    "text": (b"no archive at all" * 99, "broken archive"),
}  # fmt: skip


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    content, message = TARS[name]
    (tmp_path / "a.tar").write_bytes(content + END)
    with pytest.raises(DataError, match=message):
        unpack(tmp_path / "a.tar", tmp_path / "out", max_bytes=2**33 - 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


PACKED = {
    "gzip": gzip.compress(member("a", 6 * 2**20) + END),
    "bzip2": bz2.compress(member("a", 6 * 2**20) + END),
    "xz": lzma.compress(member("a", 6 * 2**20) + END),
    "skipped in a gzip": gzip.compress(member("d", 6 * 2**20) + member("a") + END),
}


@pytest.mark.parametrize("name", PACKED)
def test_what_comes_out_is_bounded_by_what_goes_in(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 2**20)
    with pytest.raises(DataError, match="250 bytes come out of each"):
        if name.startswith("skipped"):
            read_members(io.BytesIO(PACKED[name]), {"a"}, 100)
        (tmp_path / "a.tar").write_bytes(PACKED[name])
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_header_in_six_kilobytes_of_gzip_takes_no_gigabyte(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header(tarfile.XHDTYPE, 2**33 - 1)))
    begin = time.process_time()
    with pytest.raises(DataError, match="header of more than"):
        unpack(tmp_path / "a.tgz", tmp_path / "out")
    assert time.process_time() - begin < 5


def zipped(*members: tuple[Any, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members:
            bundle.writestr(name, content)
    return stream.getvalue()


def with_mode(mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a")
    info.external_attr = mode << 16
    return info


def patched(content: bytes, signature: bytes, offset: int, new: bytes) -> bytes:
    place = content.index(signature) + offset
    return content[:place] + new + content[place + len(new) :]


def overlapping() -> bytes:
    """Two hundred entries that are all the same bytes."""
    one = zipped(("a", b"\0" * 10**6))
    start, end = one.index(b"PK\1\2"), one.index(b"PK\5\6")
    entry = one[start:end]
    table = b"".join(entry[:-1] + bytes([33 + n]) for n in range(90))
    tail = one[end:]
    tail = tail[:8] + struct.pack("<HHLL", 90, 90, len(table), start) + tail[20:]
    return one[:start] + table + tail


SMALL = zipped(("a", b"x" * 1000))
ZIPS: dict[str, tuple[bytes, str]] = {
    **{f"name {name[:20]!r} of {len(name)}": (zipped((name, b"x")),
       "leaves the folder|not a name|too long") for name in BAD_NAMES},
    "symlink": (zipped((with_mode(0o120777), b"/etc/passwd")), "link or a device"),
    "device": (zipped((with_mode(0o020666), b"")), "link or a device"),
    "pipe": (zipped((with_mode(0o010666), b"")), "link or a device"),
    "bomb": (zipped(("a", b"\0" * 6 * 2**20)), "bytes come out of each"),
    "many bombs": (zipped(*((f"a{n}", b"\0" * 2**20) for n in range(6))), "bytes come out of each"),
    "overlapping": (overlapping(), "bytes come out of each|broken archive"),
    "same name as a folder": (zipped(("a", b"x"), ("a/b", b"x")), "would replace"),
    "less than comes out": (patched(patched(SMALL, b"PK\1\2", 24, b"\x0a\0\0\0"), b"PK\3\4", 22,
                                    b"\x0a\0\0\0"), "broken archive"),
    "more than comes out": (patched(SMALL, b"PK\1\2", 24, b"\xff\xff\0\0"), "broken archive"),
    "unknown method": (patched(SMALL, b"PK\1\2", 10, b"\x63\0"), "broken archive"),
    "encrypted": (patched(SMALL, b"PK\1\2", 8, b"\1\0"), "is encrypted"),
    "in front of the beginning": (patched(SMALL, b"PK\1\2", 42, b"\xff\xff\xff\x7f"),
                                  "broken archive"),
    "a table of 4 GB": (patched(SMALL, b"PK\5\6", 12, b"\xfe\xff\xff\xff"), "broken archive"),
    "no table": (SMALL[:60], "broken archive"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_refused_and_leaves_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 2**20)
    content, message = ZIPS[name]
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=message):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_archives_within_archives_stay_packed(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("b.zip", zipped(("c", b"x")))))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.zip"]


def bomb(depth: int = 12) -> str:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    for n in range(1, depth):
        lines.append(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]")
    return "\n".join(lines)


YAMLS = {
    "alias bomb": (bomb(), "more than 50000 values"),
    "merge bomb": ("a: &a {b: 1}\n" + "\n".join(
        f"k{n}: &k{n} {{<<: [{', '.join(['*a' if not n else f'*k{n - 1}'] * 9)}]}}"
        for n in range(12)), "more than 50000 values"),
    "a value in itself": ("a: &a [*a]", "holds itself"),
    "a mapping in itself": ("&a {b: *a}", "holds itself"),
    "an alias of nothing": ("a: *b", "undefined alias"),
    "deep lists": ("a: " + "[" * 500 + "]" * 500, "nested too deeply"),
    "deep mappings": ("{a: " * 150 + "1" + "}" * 150, "nested too deeply"),
    "a megabyte": ("a: " + "x" * 2**20, "is larger than"),
    "tag of Python": ("!!python/object/apply:os.system [echo]", "could not determine"),
    "tag of a name": ("a: !!python/name:os.system x", "could not determine"),
    "tag of nobody": ("a: !evil x", "could not determine"),
    "set": ("a: !!set {x}", "could not determine"),
    "bytes": ("a: !!binary aGk=", "could not determine"),
    "pairs": ("a: !!omap [x: 1]", "could not determine"),
    "list as a key": ("? [a]\n: b", "a key is no text"),
    "number as a key": ("1: b", "a key is no text"),
    "truth as a key": ("on: b", "a key is no text"),
    "nothing as a key": ("~: b", "a key is no text"),
    "key twice": ("a: 1\na: 2", "stands twice"),
    "many digits": ("a: " + "9" * 5000, "a number of 5000 digits"),
    "hexadecimal": ("a: 0x" + "f" * 5000, "a number of 5002 digits"),
    "sexagesimal": ("a: 1" + ":59" * 5000, "a number of"),
    "infinite": ("a: .inf", "no finite number"),
    "beyond every float": ("a: 1e999", "no finite number"),
    "not a number": ("a: .nan", "no finite number"),
    "NUL": ('a: "\\0"', "the character NUL"),
    "half of a character": ('a: "\\ud800"', "half of a character"),
    "two documents": ("a: 1\n--- \nb: 1", "single document"),
    "odd truth": ("a: !!bool x", "not valid YAML"),
    "odd number": ("a: !!int ''", "not valid YAML"),
    "odd mapping": ("a: !!map [1]", "not valid YAML"),
    "of another version": ("%YAML 9.9\n---\na", "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", YAMLS)
def test_hostile_yaml_is_refused_at_once(name: str) -> None:
    text, message = YAMLS[name]
    begin = time.process_time()
    with pytest.raises(RecipeError, match=message):
        parse_yaml(text, "a.yaml")
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("read", [load_recipe, load_study, read_yaml])
def test_every_reader_of_yaml_is_the_bounded_one(tmp_path: Path, read: Any) -> None:
    (tmp_path / "a.yaml").write_text(bomb())
    with pytest.raises(RecipeError, match="50000 values"):
        read(tmp_path / "a.yaml" if read is read_yaml else str(tmp_path / "a.yaml"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-32", "cp1252"])
@pytest.mark.parametrize("read", [load_recipe, load_study, read_yaml])
def test_yaml_of_another_encoding_is_refused(tmp_path: Path, read: Any, encoding: str) -> None:
    text = "name: a\ndescription: d\u00e9j\u00e0 vu\n"
    (tmp_path / "a.yaml").write_bytes(text.encode(encoding))
    with pytest.raises(RecipeError, match=r"a\.yaml: not UTF-8|a\.yaml is not valid YAML"):
        read(tmp_path / "a.yaml" if read is read_yaml else str(tmp_path / "a.yaml"))


JSONS: dict[str, tuple[bytes, str]] = {
    "deep": (b"[" * 200 + b"]" * 200, "nested too deeply"),
    "deeper": (b"[" * 100_000, "nested too deeply|not valid JSON"),
    "deep objects": (b'{"a":' * 150 + b"1" + b"}" * 150, "nested too deeply"),
    "not a number": (b"[NaN]", "NaN is not"),
    "infinite": (b"[-Infinity]", "-Infinity is not"),
    "beyond every float": (b"[1e999]", "beyond every float"),
    "many digits": (b"9" * 5000, "5000 digits"),
    "key twice": (b'{"a": 1, "a": 2}', "given twice"),
    "half of a character": (b'{"a": "\\ud800"}', "half of a character"),
    "other half": (b'["\\uDC00"]', "row 0: half of a character"),
    "half in a key": (b'{"\\ud83d": 1}', "half of a character"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 text but UTF-16"),
    "latin-1": ('{"é": 1}'.encode("latin-1"), "not UTF-8"),
    "nothing": (b"", "not valid JSON"),
    "NUL": (b"\0", "not valid JSON"),
    "cut": (b'{"a": [1, 2', "not valid JSON"),
}


@pytest.mark.parametrize("name", JSONS)
def test_hostile_json_is_refused(tmp_path: Path, name: str) -> None:
    content, message = JSONS[name]
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_json(tmp_path / "a.json", CheckpointError)
    (tmp_path / "a.jsonl").write_bytes(json.dumps(RECORD).encode() + b"\n" + content + b"\n")
    if content:
        with pytest.raises(DataError, match=r"a\.jsonl"):
            list(iterate_records(tmp_path / "a.jsonl"))


def test_half_of_a_character_in_an_answer_can_be_written_and_read(tmp_path: Path) -> None:
    with PredictionWriter(tmp_path / "a.jsonl") as writer:
        writer.append([Prediction("a", "cut \ud83d")])
    assert read_predictions(tmp_path / "a.jsonl").predictions[0].text == "cut ?"


QUOTES = 'image,question,answer\na.png,"What is it,yes\nb.png,Is it",no\nc.png,d,e\n'


def test_a_stray_pair_of_quotes_that_swallows_rows_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(QUOTES)
    with pytest.raises(DataError, match=r"a\.csv:3: .* inside of a cell"):
        list(read_rows(tmp_path / "a.csv"))
    report = 'image,question,answer\na.png,What?,"Findings: a, b, c.\nImpression: d, e."\n'
    (tmp_path / "b.csv").write_text(report)
    assert len(list(read_rows(tmp_path / "b.csv"))) == 1


def test_a_damaged_page_of_parquet_is_told(tmp_path: Path) -> None:
    pyarrow, written = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    path = tmp_path / "a.parquet"
    written.write_table(pyarrow.table({"a": ["text"] * 9}), path)
    content = bytearray(path.read_bytes())
    content[4:30] = b"\xff" * 26
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged behind row 0"):
        list(iterate_rows([path]))


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BAD_NAMES, "", None, 3, ["a"]])
def test_no_name_from_data_leaves_its_folder(tmp_path: Path, name: Any) -> None:
    assert stray(name)
    with pytest.raises(DataError):
        inside(tmp_path, name, "the name")
    if isinstance(name, str):
        with pytest.raises(DataError):
            ImageFolder(tmp_path, 100).open(name)
        with pytest.raises(RunError):
            answers_path(tmp_path, "vqa", name or "..", "../x")


def test_a_link_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    (tmp_path / "in" / "round").symlink_to("round")
    with pytest.raises(DataError, match="a link that leaves"):
        inside(tmp_path / "in", "out/x", "the name")
    with pytest.raises(DataError, match=r"links in a circle|levels of symbolic links"):
        inside(tmp_path / "in", "round", "the name")


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("field", ["dataset", "counts", "files"])
def test_a_manifest_names_nothing_outside(tmp_path: Path, field: str, name: str) -> None:
    manifest: dict[str, Any] = {"format": 1, "dataset": "d", "counts": {}, "files": {}}
    manifest[field] = name if field == "dataset" else {name: 1 if field == "counts" else "x"}
    (tmp_path / "images").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_prepared(tmp_path)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_of_a_recipe_or_stage_leaves_its_folder(name: str) -> None:
    values = load_recipe("debug/tiny").recipe.model_dump(mode="json")
    with pytest.raises(RecipeError, match="name"):
        check_recipe(values | {"name": name}, "a.yaml")
    with pytest.raises(RecipeError, match="name"):
        check_recipe(values | {"name": f"a/{name}"}, "a.yaml")
    stages = {name: next(iter(values["stages"].values()))}
    with pytest.raises(RecipeError, match="stages"):
        check_recipe(values | {"stages": stages}, "a.yaml")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_results_name_no_file_outside_of_the_run(tmp_path: Path, name: str) -> None:
    entry = Entry(
        dataset="d", split="s", task="vqa", engine={}, scores={}, answers={"questions": name}
    )
    with pytest.raises(RunError):
        answers_file(tmp_path, entry)


@pytest.mark.parametrize("folder", ["a\ntouch evil\n", "a\rb", "a\x1b[2J", "a\u2028b"])
def test_no_folder_writes_a_line_of_shell(tmp_path: Path, folder: str) -> None:
    with pytest.raises(RunError, match="script of the shell"):
        write_arrays(tmp_path / folder, "study", [], set(), 1, 1)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_quotes_and_dollars_stays_one_word(tmp_path: Path) -> None:
    folder = tmp_path / "a 'b' $(touch evil) \"c\" %j;d"
    write_arrays(folder, "study", [], set(), 1, 1)
    script = (folder / "slurm" / "array.sh").read_text()
    line = next(line for line in script.splitlines() if line.startswith("exec "))
    assert shlex.split(line)[-2] == str(folder)
    assert "%%j" in script
    done = subprocess.run(["bash", "-n", folder / "slurm" / "array.sh"], capture_output=True)
    assert done.returncode == 0
    assert not (tmp_path / "evil").exists()


# Checkpoints -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "model"
    write_checkpoint(folder)
    return folder


def set_in(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        for key in path[:-1]:
            values = values.setdefault(key, {})
        values[path[-1]] = to

    return change


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "200,000 layers": (set_in("text_config", "num_hidden_layers", to=200_000), "num_hidden_layers"),
    "10^15 layers": (set_in("text_config", "num_hidden_layers", to=10**15), "num_hidden_layers"),
    "layers of the tower": (set_in("vision_config", "num_hidden_layers", to=10**6),
                            "num_hidden_layers"),
    "10^8 image tokens": (set_in("image_seq_length", to=10**8), "image_seq_length"),
    "some more image tokens": (set_in("image_seq_length", to=500), "tower makes 4 tokens"),
    "a vocabulary": (set_in("text_config", "vocab_size", to=10**12), "vocab_size"),
    "a width": (set_in("text_config", "hidden_size", to=10**9), "hidden_size"),
    "an inner width": (set_in("text_config", "intermediate_size", to=10**9), "intermediate_size"),
    "widths within bounds": (lambda values: values["text_config"].update(
        hidden_size=10**5, intermediate_size=10**5), "far larger than its weights"),
    "a picture": (set_in("vision_config", "image_size", to=10**7), "image_size"),
    "labels": (set_in("num_labels", to=10**10), "num_labels"),
    "kernel": (set_in("_attn_implementation", to="evil/kernel"), "not one of eager, sdpa"),
    "kernel, other spelling": (set_in("attn_implementation", to="evil/kernel"), "not one of eager"),
    "kernel with a revision": (set_in("attn_implementation", to="evil/kernel@main:f"),
                               "not one of eager"),
    "kernel of a part": (set_in("text_config", "_attn_implementation", to="e/k"), "not one of eag"),
    "kernels by part": (set_in("attn_implementation", to={"text_config": "e/k"}), "not one of eag"),
    "kernels by part, deeper": (set_in("attn_implementation", to={"a": {"": "e/k"}}), "not one of"),
    "kernel, internal": (set_in("_attn_implementation_internal", to="e/k"), "not one of eager"),
    "kernel, no text": (set_in("attn_implementation", to=3), "not one of eager"),
    "experts": (set_in("text_config", "_experts_implementation", to="e/k"), "not one of eager"),
    "other weights": (set_in("transformers_weights", to="../x.safetensors"), "rs_weights"),
    "type": (set_in("model_type", to=["llava"]), "model"),
    "text for a number": (set_in("text_config", "hidden_size", to="8"), "config.json"),
    "nothing for a part": (set_in("vision_config", to=None), "config.json"),
    "a list for a part": (set_in("text_config", to=[1]), "config.json"),
    "no patch": (set_in("vision_config", "patch_size", to=0), "config.json"),
    "a type of numbers": (set_in("dtype", to="evil"), "config.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_the_weights_bound_the_configuration(model: Path, name: str) -> None:
    change, message = CONFIGS[name]
    path = model / "config.json"
    before = path.read_text()
    values = json.loads(before)
    change(values)
    path.write_text(json.dumps(values))
    begin = time.process_time()
    try:
        with pytest.raises(ExgraMedError, match=message):
            load_bundle(model)
        # What is looked at without loading it is told, or refused too.
        with suppress(ExgraMedError):
            json.dumps(describe_checkpoint(model))
    finally:
        path.write_text(before)
    assert time.process_time() - begin < 20


PROCESSORS: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "a picture of a terabyte": ("processor_config.json",
        set_in("image_processor", "size", to={"shortest_edge": 10**6}), "pictures of 1000000"),
    "a crop": ("processor_config.json",
        set_in("image_processor", "crop_size", to={"height": 10**6, "width": 10**6}), "pixels by"),
    "another picture": ("processor_config.json",
        set_in("image_processor", "crop_size", to={"height": 9, "width": 9}), "tower sees"),
    "type of pictures": ("processor_config.json",
        set_in("image_processor", "image_processor_type", to="os.system"), "processor_config.json"),
    "two colours": ("processor_config.json",
        set_in("image_processor", "image_mean", to=[0.5, 0.5]), "processor_config.json"),
    "no object": ("processor_config.json", set_in("image_processor", to=[1]), "processor"),
    "code": ("tokenizer_config.json",
        set_in("auto_map", to={"AutoTokenizer": ["evil--x.y", None]}), ""),
    "code of a processor": ("processor_config.json",
        set_in("auto_map", to={"AutoProcessor": "evil--x.y"}), ""),
    "class": ("tokenizer_config.json", set_in("tokenizer_class", to="os.system"), ""),
    "no end": ("tokenizer_config.json", set_in("eos_token", to=None), "tokenizer"),
    "a token of lists": ("tokenizer_config.json", set_in("bos_token", to=[["x"]]), "tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_odd_files_of_a_processor_are_refused_by_name_or_run_no_code(
    model: Path, name: str
) -> None:
    file, change, message = PROCESSORS[name]
    before = (model / file).read_text()
    values = json.loads(before)
    change(values)
    (model / file).write_text(json.dumps(values))
    try:
        if message:
            with pytest.raises(ExgraMedError, match=message):
                checkpoint(model)
        else:
            # Code that is named is not run; the class that transformers has may do.
            with suppress(CheckpointError):
                checkpoint(model)
    finally:
        (model / file).write_text(before)


TEMPLATES = {
    "loop": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
             "takes longer than"),
    "loop in a macro": ("{% macro m() %}{% for i in range(9) %}{{ m() }}{% endfor %}{% endmacro %}"
                        "{{ m() }}", "recursion|takes longer"),
    "flood": ("{% for i in range(200) %}{{ 'x' * 100000 }}{% endfor %}", "20000000 characters"),
    "more than there is": ("{{ 'x' * 10**15 }}", "MemoryError"),
    "half": ("{% for", "unexpected 'end of template'"),
    "code": ("{{ messages.__class__.__mro__ }}", "unsafe"),
    "code, other spelling": ("{{ ''['__class__'] }}", "does not write answers"),
    "change": ("{{ messages.append(1) }}", "unsafe|not safely callable"),
    "other template": ("{% include '/etc/passwd' %}", "no loader"),
    "own error": ("{{ raise_exception('one\ntwo') }}", "cannot be used: one. Mend"),
    "no error": ("{{ raise_exception('') }}", "TemplateError"),
    "unknown filter": ("{{ messages | evil }}", "evil"),
    "division": ("{{ 1 // 0 }}", "by zero"),
    "text of another kind": ("{{ messages + 1 }}", "concatenate"),
}  # fmt: skip


@pytest.fixture(scope="module")
def other_processor() -> Any:
    _, processor = make("llava_next")
    return processor


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_hostile_chat_template_is_a_sentence(
    other_processor: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_processor.chat_template, message = TEMPLATES[name]
    monkeypatch.setattr(chat_text, "MOST_SECONDS", 0.3)
    begin = time.process_time()
    with pytest.raises(CheckpointError, match=message) as caught:
        ChatText(other_processor)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    assert time.process_time() - begin < 5


INDICES = {
    "outside": {"weight_map": {"a": "../outside.safetensors"}},
    "absolute": {"weight_map": {"a": "/etc/passwd"}},
    "a number": {"weight_map": {"a": 1}},
    "a list": {"weight_map": ["one.safetensors"]},
    "nothing": {"weight_map": {}},
    "absent": {},
    "not there": {"weight_map": {"a": "other.safetensors"}},
    "folder": {"weight_map": {"a": "."}},
    "line": {"weight_map": {"a": "a\nb"}},
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_names_files_beside_it(model: Path, name: str) -> None:
    path = model / "model.safetensors.index.json"
    before = path.read_text()
    path.write_text(json.dumps(INDICES[name]))
    try:
        for read in (load_bundle, weight_files, describe_checkpoint):
            with pytest.raises(CheckpointError, match=r"index\.json|lacks the weight files"):
                read(model)
    finally:
        path.write_text(before)


def test_an_adapter_beside_the_weights_is_told(model: Path) -> None:
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    try:
        with pytest.raises(CheckpointError, match=r"adapter_config.json.* beside its weights"):
            load_bundle(model)
    finally:
        (model / "adapter_config.json").unlink()


def test_a_model_that_grows_far_beyond_its_weights_is_stopped(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match="far larger than its weights"),
        bounded({"a": ((2, 2), "F32")}, tmp_path),
        torch.device("meta"),
    ):
        [torch.nn.LayerNorm(2) for _ in range(6_000)]
    torch.nn.Linear(2, 2)  # the bound ends with its block
    with (
        pytest.raises(CheckpointError, match="far larger"),
        bounded({"a": ((2, 2), "F32")}, ""),
        torch.device("meta"),
    ):
        torch.nn.Module().weight = torch.nn.Parameter(torch.empty(10**6, 10**6))


def test_a_pickle_is_never_more_than_tensors_of_its_own_size(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "evil").touch, ())

    torch.save({"a": Evil()}, tmp_path / "code.bin")
    (tmp_path / "raw.bin").write_bytes(pickle.dumps(Evil()))
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "huge.bin")
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    torch.save({"a": torch.zeros(3).to_sparse()}, tmp_path / "sparse.bin")
    (tmp_path / "text.pt").write_text("weights")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(CheckpointError, match=path.name):
            read_weights([path])
    assert not (tmp_path / "evil").exists()


def test_settings_of_known_models_pass(tmp_path: Path) -> None:
    """What published configurations hold; a bound that is too tight would refuse them."""
    values = {
        "text_config": {"vocab_size": 262_208, "max_position_embeddings": 10_485_760,
                        "rope_theta": 500_000_000, "sliding_window": 131_072,
                        "num_hidden_layers": 92,
                        "pad_token_id": 151_643, "original_max_position_embeddings": 8192},
        "vision_config": {"image_size": 1540, "num_hidden_layers": 27, "depth": 32},
        "image_seq_length": 2880, "mm_tokens_per_image": 256, "image_token_index": 262_144,
        "_attn_implementation": "flash_attention_2", "dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    sizes = {"shortest_edge": 3136, "longest_edge": 16_777_216}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": sizes}))
    assert check_settings(tmp_path, {})["image_seq_length"] == 2880


def test_a_picture_is_not_what_its_name_says(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="link that leaves"):
        ImageFolder(tmp_path, 100).open("b.png")
