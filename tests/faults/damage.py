"""Every file of a run folder, and of what lies beside runs, damaged in every way, before every
command that reads it.

What is right: the command ends in one sentence that names the file or its folder, or says so beside
its result, or its result is that of the whole run folder.
"""

import json
import os
import random
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "evaluation"))
from chat_server import ChatServer, graded

from exgra_med.cli import main
from exgra_med.evaluation.answers import Prediction, PredictionWriter
from exgra_med.lab.studies.folder import start_study
from exgra_med.lab.studies.schema import load_study

STAGE = "vqa"
TRACEBACK = -1


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    code: int
    said: str


def command(*words: str) -> Outcome:
    """The command line in this process; an error that is no sentence has the code `TRACEBACK`."""
    said, code = StringIO(), 0
    with redirect_stdout(said), redirect_stderr(said), patch.object(sys, "argv", ["", *words]):
        try:
            main.run()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            code = TRACEBACK
            said.write(traceback.format_exc())
    return Outcome(code, said.getvalue())


def make_run(run: Path, *settings: str) -> None:
    """A finished and evaluated run of one stage, or of more, by `--set`."""
    words = [word for each in settings for word in ("--set", each)]
    trained = command("train", "debug/tiny", "--out", str(run), *words)
    assert trained.code == 0, trained.said
    # A model of a few steps may answer nothing that can be used; the scores are kept all the same.
    asked = command("evaluate", "vqa", str(run))
    assert (run / "results.json").is_file(), asked.said


SMALL = (
    "stages.connector=null",
    "stages.aligned=null",
    "stages.vqa.max_steps=4",
    "evaluation.num_bootstrap_samples=20",
    "evaluation.max_new_tokens=2",
)
WHOLE = (
    "stages.aligned.load_best_model_at_end=true",
    "stages.vqa.max_steps=40",
    "stages.vqa.learning_rate=0.01",
)


# What lies beside runs ----------------------------------------------------------------------------

_STUDY = """
name: try
description: Two runs.
recipe: debug/tiny
methods: {one: {title: One}, other: {title: Other}}
fractions: [1.0]
seeds: [0]
baseline: one
evaluation: {num_bootstrap_samples: 20}
"""


def make_beside(run: Path, place: Path) -> None:
    """Prepared data, extended captions, an export, judged answers and a study, as commands and
    their functions leave them; `run` is one of `make_run`."""

    def done(*words: str) -> None:
        found = command(*words)
        assert found.code == 0, found.said

    place.mkdir()
    sample, data, long = "bundled:vqa-rad-sample", str(place / "data"), str(place / "long.jsonl")
    done("data", "subset", sample, "--fraction", "0.2", "--out", data)
    done("captions", "compose", data, "--out", long)
    done("checkpoint", "export", str(run), "--out", str(place / "export"))
    rows, answers = [], place / "judged/predictions/chat/questions/test.jsonl"
    for number in range(3):
        name = str(number)
        about = {"question_id": name, "pair_id": name, "image": name, "domain": {"mri": True}}
        asked = {"text": f"What is {number}?", "gpt4_answer": "A lung.", "fig_caption": "A chest."}
        rows.append(about | asked | {"type": "conversation", "in_text_mention": []})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "questions.jsonl").write_text(lines, "utf-8")
    with PredictionWriter(answers) as writer:
        for number in range(3):
            writer.append([Prediction(str(number), f"A lung, {number}.")])
    with ChatServer(lambda body: graded(8, 4)) as server:
        (place / "address").write_text(server.url)
        done(*judge_again(place))
    (place / "try.yaml").write_text(_STUDY, "utf-8")
    for node in start_study(place / "study", load_study(str(place / "try.yaml"))):
        if node.cell is not None:
            left_out = shutil.ignore_patterns("checkpoints", "*.html", ".writer")
            shutil.copytree(run, place / "study" / node.id, ignore=left_out)
    done(*report_study(place))


def judge_again(place: Path) -> list[str]:
    """A judge that has replied before, and is not asked again."""
    asked = ["--data", str(place / "questions.jsonl"), "--judge", "local"]
    paid = ["--base-url", (place / "address").read_text(), "--cache", str(place / "paid.sqlite")]
    return ["evaluate", "judge", str(place / "judged"), *asked, *paid]


def report_study(place: Path) -> list[str]:
    """The numbers of a study."""
    return ["study", "report", str(place / "study"), "--format", "csv"]


def unfinished(run: Path) -> None:
    """As a kill leaves a run that was about to write its last weights."""
    shutil.rmtree(run / "checkpoints" / STAGE / "final")


# What is done to a file ---------------------------------------------------------------------------


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path, share: float) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[min(int(len(content) * share), len(content) - 1)] ^= 0x01
    path.write_bytes(content)


def _digit(path: Path) -> None:
    content = path.read_bytes()
    places = [found.start() for found in re.finditer(rb"[1-8]", content)]
    if places:
        place = places[len(places) // 2]
        content = content[:place] + bytes([content[place] + 1]) + content[place + 1 :]
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _other_type(path: Path) -> None:
    path.write_text("- 1\n" if path.suffix == ".yaml" else "[1]\n", encoding="utf-8")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": _cut,
    "empty": lambda path: os.truncate(path, 0),
    "gone": Path.unlink,
    "flipped early": lambda path: _flip(path, 0.2),
    "flipped late": lambda path: _flip(path, 0.97),
    "digit": _digit,
    "folder": _folder,
    "unreadable": lambda path: path.chmod(0),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()[2:]),
    "other type": _other_type,
}
if not hasattr(os, "geteuid") or os.geteuid() == 0:
    # The administrator may read everything.
    del DAMAGES["unreadable"]


# Commands, and what they are for ------------------------------------------------------------------


def _files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _log_of(run: Path) -> list[dict[str, Any]]:
    passing = ("tokens_per_second", "sha256")
    events = map(json.loads, (run / "log.jsonl").read_text("utf-8").splitlines())
    return [{name: each[name] for name in each if name not in passing} for each in events]


def _scores_of(run: Path) -> Any:
    results = json.loads((run / "results.json").read_text("utf-8"))
    for entry in results["results"]:
        entry.pop("answers_sha256", None)
    return results["results"]


@dataclass(frozen=True)
class Act:
    """A command, how the run folder stands before it, and what it is for."""

    name: str
    words: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    reads: Callable[[str], bool]
    """Whether the command may read a file of the run folder."""
    before: Callable[[Path], None] = lambda run: None


def acts(settings: tuple[str, ...]) -> list[Act]:
    """What is done with a run folder that was made with `settings`."""
    again = [word for each in settings for word in ("--set", each)]

    def resume(run: Path) -> list[str]:
        return ["train", "debug/tiny", "--out", str(run), "--resume", *again]

    def weights(run: Path) -> Any:
        return _files_of(run / "checkpoints" / STAGE / "final")

    def is_trained(name: str) -> bool:
        return not name.startswith("predictions") and name != "results.json"

    def is_answered(name: str) -> bool:
        return not name.startswith("checkpoints") or name.startswith(f"checkpoints/{STAGE}/final")

    goes_on_from = (f"checkpoints/{STAGE}/step", "checkpoints/aligned/final")

    def exported(run: Path) -> list[str]:
        return ["checkpoint", "export", str(run), "--out", str(run.parent / "exported")]

    return [
        Act("resume a finished run", resume, weights, is_trained),
        Act(
            "resume an unfinished run",
            resume,
            lambda run: [weights(run), _log_of(run)],
            # The stages before it are finished, and treated as in the act before.
            lambda name: name.startswith(goes_on_from) or ("/" not in name and is_trained(name)),
            unfinished,
        ),
        Act(
            "evaluate",
            lambda run: ["evaluate", "vqa", str(run)],
            _scores_of,
            is_answered,
        ),
        Act(
            "report",
            lambda run: ["evaluate", "report", str(run)],
            lambda run: (run / "report.html").read_text("utf-8"),
            lambda name: is_answered(name) and not name.startswith("checkpoints"),
        ),
        Act(
            "export",
            exported,
            lambda run: _files_of(run.parent / "exported")["model.safetensors"],
            lambda name: name.startswith(f"checkpoints/{STAGE}/final") or "/" not in name,
        ),
    ]


def acts_beside() -> list[Act]:
    """What is done with what `make_beside` made."""
    again = [word for each in SMALL for word in ("--set", each)]

    def train(place: Path) -> list[str]:
        out = ["--out", str(place.parent / "exported"), *again]
        return ["train", "debug/tiny", *out, "--set", f"data.folder={place / 'data'}"]

    def merge(place: Path) -> list[str]:
        out = str(place.parent / "exported")
        return ["captions", "merge", str(place / "data"), str(place / "long.jsonl"), "--out", out]

    def study_numbers(place: Path) -> Any:
        results = json.loads((place / "study/results.json").read_text("utf-8"))
        return {name: results[name] for name in results if name != "sha256"}

    def is_text(name: str) -> bool:
        return name.startswith("data/") and not name.startswith("data/images")

    cell = "study/cells/one/"
    return [
        Act(
            "train on prepared data",
            train,
            lambda place: _files_of(place.parent / f"exported/checkpoints/{STAGE}/final"),
            is_text,
        ),
        Act(
            "merge captions",
            merge,
            lambda place: _files_of(place.parent / "exported"),
            lambda name: is_text(name) or name == "long.jsonl",
        ),
        Act(
            "verify an export",
            lambda place: ["checkpoint", "verify", str(place / "export")],
            lambda place: None,
            lambda name: name.startswith("export/") and not name.endswith(".md"),
        ),
        Act(
            "judge again",
            judge_again,
            lambda place: _scores_of(place / "judged"),
            # What the judge said is for people.
            lambda name: name.startswith("judged/") and "judged-by" not in name,
        ),
        Act(
            "report of a study",
            report_study,
            study_numbers,
            lambda name: (
                name.startswith(cell) or name in ("study/study.yaml", "study/results.json")
            ),
        ),
    ]


# The property -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A damage to a file, before a command."""

    act: Act
    file: str
    damage: str

    def __str__(self) -> str:
        return f"{self.act.name}, {self.file}, {self.damage}"


@dataclass
class Grid:
    """Damages one run folder after the other; every case begins with a fresh copy of `whole`."""

    whole: Path
    work: Path
    acts: list[Act]

    def __post_init__(self) -> None:
        self.run = self.work / "run"
        self.right: dict[str, tuple[Outcome, Any]] = {}

    def cases(self) -> list[Case]:
        """Every file, damage and command that belong together."""
        files = [
            path.relative_to(self.whole).as_posix()
            for path in sorted(self.whole.rglob("*"))
            if path.is_file() and path.name not in (".writer", "report.html", "scores.csv")
        ]
        return [
            Case(act, file, damage)
            for act in self.acts
            for file in files
            if act.reads(file)
            for damage in DAMAGES
        ]

    def problem(self, case: Case) -> str:
        """Why a case is not right; empty where it is."""
        if case.act.name not in self.right:
            self.right[case.act.name] = self._do(case.act, lambda: None)
        wanted, result = self.right[case.act.name]
        path = self.run / case.file
        found, own = self._do(case.act, lambda: DAMAGES[case.damage](path))
        if found.code == TRACEBACK:
            return f"a traceback: {found.said.strip().splitlines()[-1]}"
        # What is said without any damage, such as where the scores are, says nothing of it.
        new = [line for line in found.said.splitlines() if line not in wanted.said.splitlines()]
        said = "".join("".join(new).split())
        # A report names files as they lie in the run, and an error may name the checkpoint.
        named = [path, case.file]
        if found.code != wanted.code and path.parent != self.run:
            named.append(path.parent)
        names = any("".join(str(each).split()) in said for each in named)
        if found.code == wanted.code and (own == result or names):
            return ""
        if found.code != wanted.code and found.code in (1, 2) and "Error:" in found.said and names:
            return ""
        if found.code == wanted.code:
            return "another result, without a word"
        return f"exit code {found.code}, and the file is not named: {found.said.strip()[-200:]}"

    def _do(self, act: Act, damage: Callable[[], None]) -> tuple[Outcome, Any]:
        for path in (self.run, self.work / "exported"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.whole, self.run)
        act.before(self.run)
        damage()
        found = command(*act.words(self.run))
        try:
            return found, act.result(self.run)
        except (OSError, LookupError, TypeError, ValueError):
            return found, None

    def try_all(
        self, count: int | None = None, seed: int = 0, only: str | None = None
    ) -> Iterator[tuple[Case, str]]:
        """Every case, or so many at random, with what is not right about it."""
        cases = [each for each in self.cases() if only in (None, each.act.name)]
        if count is not None:
            cases = random.Random(seed).sample(cases, min(count, len(cases)))
        for case in cases:
            yield case, self.problem(case)


def damage_all(
    place: Path, count: int | None, seed: int, only: str | None
) -> Iterator[tuple[Case, str]]:
    """Every case, or so many at random of a run and of what lies beside it, or of one act."""
    beside = acts_beside()
    if only not in [each.name for each in beside]:
        make_run(place / "whole", *WHOLE)
        yield from Grid(place / "whole", place, acts(WHOLE)).try_all(count, seed, only)
    if only is None or only in [each.name for each in beside]:
        make_run(place / "small", *SMALL)
        make_beside(place / "small", place / "beside")
        yield from Grid(place / "beside", place, beside).try_all(count, seed, only)
