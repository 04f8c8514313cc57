"""Every kind of file that is read, damaged in many ways: one sentence, or a result.

Never another exception, never a hang, and nothing outside the file's own folder. The number of
tries of each kind is set for a long run, which prints what it tried:

    EXGRA_MED_MUTATIONS=500 python -m pytest -m slow -s tests/faults/test_mutated_files.py
"""

import copy
import json
import os
import random
import re
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from valid_files import CHECKPOINT, KINDS, NEEDS, Kind, folder_of, has, write_all

from exgra_med.errors import ExgraMedError
from exgra_med.files import LOCK

COUNT = int(os.environ.get("EXGRA_MED_MUTATIONS", "30"))
FEW = 4
"""Tries of each kind in the default tests."""
SECONDS = 20
"""After which a reader counts as hanging; it takes a hundredth on an idle machine."""

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 10**6, 10**9, 10**18, -(10**18), 10**400, 0.5, -0.0, 1e308,
    "", "x", "0", "é", "a\0b", "a\nb", "\ud800", "../../x", "/tmp/x", "C:\\x", "evil/kernel",
    "x" * 5000, "auto", "sdpa", [], [[]], [1], ["x"], [None], {}, {"": 1}, {"x": {}}, {"a": [1]},
]  # fmt: skip
PIECES = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\xc3", b'"', b"'", b"\n", b"\r", b"\t", b"{",
    b"[", b"}", b"]", b",", b":", b"-", b"*a", b"&a ", b"!!python/object:os.system ", b"NaN",
    b"1e999", b"-Infinity", b"\\ud83d", b"[" * 300, b'{"a":' * 300, b"9" * 5000, b"../", b"/",
    b"\xff" * 8, b"\x7f\xff\xff\xff", b"\0" * 64, b"<image>",
]  # fmt: skip


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, inserted, or in another encoding."""
    way = chance.randrange(8)
    begin, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    if way == 0:
        return content[:begin]
    if way == 1:
        return content[:begin] + content[end:]
    if way == 2:
        return content[:end] + content[begin:]
    if way == 3:
        return content[:begin] + chance.choice(PIECES) + content[begin:]
    if way == 4:
        encoding = chance.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
        return content.decode("latin-1").encode(encoding)
    changed = bytearray(content)
    # Headers stand in front, and decide most.
    limit = len(content) if way < 7 else min(len(content), 64)
    for _ in range(chance.choice([1, 1, 2, 8, 40])):
        if changed:
            changed[chance.randrange(max(limit, 1))] = chance.choice([0, 1, 127, 128, 255, 65])
    return bytes(changed)


def replaced(value: Any, chance: random.Random) -> Any:
    """One value of a document by another one, a key dropped, renamed or added."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return chance.choice(VALUES)
    holder, key = chance.choice(places)
    way = chance.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[chance.choice(["x", "", "../x", "a\nb", "extends", "\ud800"])] = holder.pop(key)
    elif way == 2 and isinstance(holder, dict):
        holder[chance.choice(NAMES)] = copy.deepcopy(chance.choice(VALUES))
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))
    return value


NAMES = ["_attn_implementation", "quantization_config", "auto_map", "transformers_weights", "x"]
NAMES += ["num_labels", "layer_types", "rope_scaling", "dtype", "extends", "tokenizer_class"]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    # No more than some of the pieces of a vocabulary.
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))[:60]
    for key, inner in pairs:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def mutated(content: bytes, form: str, chance: random.Random) -> bytes:
    """A damaged file, half of the time one whose form still is what it should be."""
    if not form or chance.random() < 0.4:
        return damaged(content, chance)
    if form == "yaml":
        return yaml.safe_dump(replaced(yaml.safe_load(content), chance)).encode("utf-8", "replace")
    if form == "lines":
        lines = content.splitlines()
        place = chance.randrange(len(lines))
        lines[place] = json.dumps(replaced(json.loads(lines[place]), chance)).encode()
        return b"\n".join(lines) + b"\n"
    if form == "safetensors":
        size = int.from_bytes(content[:8], "little")
        header = replaced(json.loads(content[8 : 8 + size]), chance)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + size :]
    return json.dumps(replaced(json.loads(content), chance)).encode()


def stop(_: int, __: FrameType | None) -> None:
    raise TimeoutError(f"it took more than {SECONDS} seconds")


def verdict(read: Callable[[Path], Any], folder: Path) -> str:
    """`read`, `refused`, or what went wrong."""
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(folder)
        return "read"
    except ExgraMedError as error:
        said = error.message
        if not said or "Traceback" in said or len(said) > 20_000:
            return f"no sentence: {said[:200]}"
        return "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        trace, where = error.__traceback__, ""
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if "exgra_med" in name:
                where = f"{Path(name).name}:{trace.tb_lineno}"
            trace = trace.tb_next
        return f"{type(error).__name__} at {where}: {str(error)[:200]}"
    finally:
        signal.alarm(0)


def attack(
    name: str, kind: Kind, folder: Path, count: int, first: int = 0
) -> tuple[Counter[str], list[str]]:
    """Damage one file `count` times; returns how often what happened, and what was wrong."""
    path = folder / kind.file
    content = path.read_bytes()
    found: Counter[str] = Counter()
    wrong = []
    around = {each.name for each in folder.parent.iterdir()}
    inside = {each.name for each in folder.iterdir()}
    for seed in range(first, first + count):
        path.write_bytes(mutated(content, kind.form, random.Random(f"{name} {seed}")))
        (folder / "out").mkdir(exist_ok=True)
        said = verdict(kind.read, folder)
        found[re.sub(r" at .*| [^ ]*:.*", "", said)] += 1
        if said not in ("read", "refused"):
            wrong.append(f"{name}, seed {seed}: {said}")
        new = {each.name for each in folder.parent.iterdir()} - around
        new |= {each.name for each in folder.iterdir()} - inside - {"out"}
        # SQLite keeps two files beside an open one, and a writer its lock.
        if new - {"a.sqlite-shm", "a.sqlite-wal", LOCK}:
            wrong.append(f"{name}, seed {seed}: wrote {sorted(new)}")
        shutil.rmtree(folder / "out")
    path.write_bytes(content)
    return found, wrong


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("valid")
    write_all(folder)
    return folder


def _kinds(kinds: dict[str, Kind]) -> list[Any]:
    absent = {name: pytest.mark.skip(reason=f"needs {NEEDS[name]}") for name in NEEDS
              if not has(NEEDS[name])}  # fmt: skip
    return [pytest.param(n, marks=[absent[n]] if n in absent else []) for n in kinds]


@pytest.mark.parametrize("name", _kinds(KINDS))
def test_the_example_itself_is_read(valid: Path, name: str) -> None:
    (valid / name / "out").mkdir(exist_ok=True)
    try:
        assert verdict(KINDS[name].read, valid / name) == "read"
    finally:
        shutil.rmtree(valid / name / "out")


@pytest.mark.parametrize("name", _kinds(KINDS))
def test_a_damaged_file_is_read_or_refused_in_a_sentence(valid: Path, name: str) -> None:
    _, wrong = attack(name, KINDS[name], valid / name, FEW)
    assert not wrong


@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_damaged_checkpoint_is_read_or_refused_in_a_sentence(valid: Path, name: str) -> None:
    folder = valid / folder_of(name)
    assert verdict(CHECKPOINT[name].read, folder) == "read"
    # A model is loaded for each try.
    _, wrong = attack(name, CHECKPOINT[name], folder, FEW // 4)
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", _kinds(KINDS | CHECKPOINT))
def test_many_damaged_files(valid: Path, name: str) -> None:
    kind = (KINDS | CHECKPOINT)[name]
    folder = valid / folder_of(name)
    found, wrong = attack(name, kind, folder, COUNT, FEW)
    print(f"\n{name}: tried {COUNT}, right {COUNT - len(wrong)} ({dict(found)})")
    assert not wrong, "\n".join(wrong[:20])
