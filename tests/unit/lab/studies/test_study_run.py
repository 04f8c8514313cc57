"""The scheduler, with small programs in place of training."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_study import STUDY, fake_cell, fake_study, write_study
from typer.testing import CliRunner

from exgra_med import files
from exgra_med.cli.main import app
from exgra_med.errors import RunError
from exgra_med.lab.studies.cost import Cost
from exgra_med.lab.studies.folder import (
    Attempt,
    lock_path,
    log_path,
    open_study,
    read_attempt,
    remaining_seconds,
    start_study,
    states,
    write_attempt,
    write_status,
)
from exgra_med.lab.studies.plan import Cell, Node
from exgra_med.lab.studies.run import (
    Resources,
    StudyFailed,
    StudyStopped,
    node_command,
    run_study,
    share_machine,
    visible_gpus,
)
from exgra_med.lab.studies.schema import Study, load_study
from exgra_med.lab.studies.slurm import levels, shell_lines, write_arrays
from exgra_med.terminal import Silent

# Does a node: what a run leaves when it is finished, and what it was told.
WORKER = """
import json, os, signal, sys, time
from pathlib import Path
folder, node, plan = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
with (folder / "told.jsonl").open("a") as stream:
    told = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    stream.write(json.dumps({"node": node, "start": time.time(), **told}) + "\\n")
if node in plan.get("fails", []):
    print("something broke"); sys.exit(3)
if node in plan.get("hangs", []):
    (folder / "hanging").touch()
    signal.signal(signal.SIGTERM, lambda *_: ((folder / "asked").touch(), sys.exit(143)))
    time.sleep(60)
place = folder / node
place.mkdir(parents=True, exist_ok=True)
(place / "recipe.yaml").touch()
if node.startswith("shared"):
    (place / "checkpoints" / "connector" / "final").mkdir(parents=True, exist_ok=True)
else:
    entry = {
        "dataset": "d", "split": "test", "task": "vqa", "engine": {},
        "scores": {"strict": {"average": {"value": 50.0}}},
    }
    results = {"schema_version": 2, "results": [entry]}
    (place / "results.json").write_text(json.dumps(results))
"""
SMALL = STUDY.replace("fractions: [0.1, 0.4, 1.0]", "fractions: [1.0]").replace(
    "seeds: [0, 1, 2]", "seeds: [0, 1]"
)


class Work:
    """A small study and a way to run it."""

    def __init__(self, place: Path, text: str = SMALL) -> None:
        self.study = load_study(str(write_study(place, text)))
        self.folder = place / "study"
        self.nodes = start_study(self.folder, self.study)

    def run(self, jobs: int = 2, gpus: tuple[str, ...] = (), **plan: list[str]) -> None:
        def command(folder: Path, node: str, processes: int) -> list[str]:
            return [sys.executable, "-c", WORKER, str(folder), node, json.dumps(plan)]

        resources = Resources(jobs, 1, 1, gpus)
        run_study(self.folder, self.study, self.nodes, resources, Silent(), command)

    def told(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "told.jsonl").read_text().splitlines()]

    def state(self) -> dict[str, str]:
        found = states(self.folder, self.study, self.nodes)
        return {name: attempt.state for name, attempt in found.items()}


def test_everything_runs_once_and_only_what_is_missing_runs_again(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.run(gpus=("3", "5"))
    names = [each["node"] for each in work.told()]
    assert sorted(names) == sorted(node.id for node in work.nodes)
    assert {each["CUDA_VISIBLE_DEVICES"] for each in work.told()} == {"3", "5"}
    work.run()
    assert len(work.told()) == len(names)
    (work.folder / "cells/exgra-med/1/seed-1/results.json").unlink()
    work.run()
    assert [each["node"] for each in work.told()][len(names) :] == ["cells/exgra-med/1/seed-1"]
    status = json.loads((work.folder / "status.json").read_text())
    assert status["counts"] == {"finished": len(names)}


def test_cells_are_taken_seed_after_seed_and_tables_keep_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    work = Work(tmp_path, SMALL.replace("fractions: [1.0]", "fractions: [0.5, 1.0]"))
    work.run(jobs=1)
    of_a_seed = [
        f"cells/{method}/{fraction}"
        for method in ("instruct", "exgra-med", "equal-tokens")
        for fraction in ("0.5", "1")
    ]
    assert [each["node"] for each in work.told()] == [
        f"{place}/seed-{seed}" for seed in (0, 1) for place in ("shared", *of_a_seed)
    ]
    assert list(work.state())[2:] == [
        f"{each}/seed-{seed}" for each in of_a_seed for seed in (0, 1)
    ]


class Told(Silent):
    """Keeps what a person would see."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.notes: list[str] = []
        self.left: list[float | None] = []
        self.is_finished = False

    def start(
        self, title: str, total: int | None, done: int, unit: str, patient: bool = False
    ) -> None:
        self.started.append((title, total, done, unit))

    def advance(self, done: int, note: str, left: float | None = None) -> None:
        self.notes.append(note)
        self.left.append(left)

    def finish(self) -> None:
        self.is_finished = True


def test_the_progress_of_the_node_that_runs_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, told = Work(tmp_path), Told()
    monkeypatch.setattr("exgra_med.lab.studies.run._TELL_SECONDS", 0.05)
    log = log_path(work.folder, "shared/seed-0")
    log.parent.mkdir(parents=True)
    log.write_text("of an earlier attempt\n")
    says = "import time; print('aligned: 15/50 steps  3.1/s', flush=True); time.sleep(1)"

    def command(folder: Path, node: str, processes: int) -> list[str]:
        return [sys.executable, "-c", says if node == "shared/seed-0" else "exit(3)"]

    with pytest.raises(StudyFailed):
        run_study(work.folder, work.study, work.nodes, Resources(1, 1, 1), told, command)
    assert told.started == [(work.study.name, len(work.nodes), 0, "nodes")]
    assert any("shared/seed-0: aligned: 15/50 steps  3.1/s" in each for each in told.notes)
    assert "shared/seed-0: starting" in "\n".join(told.notes)
    assert not any("earlier attempt" in each for each in told.notes) and told.is_finished
    # Nothing is finished that a time could be learnt from, and a rate of nodes is none.
    assert set(told.left) == {float("inf")}


def test_the_plan_counts_cells_and_says_how_long_they_take_here_if_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path)
    monkeypatch.setattr("exgra_med.lab.studies.cost.study_cost", lambda *_: [
        Cost("cells/exgra-med/1", 2, 10, 1e6, 0.5)
    ])  # fmt: skip
    words = ["study", "run", str(tmp_path / "try.yaml"), "--out", str(work.folder), "--dry-run"]
    said = CliRunner().invoke(app, words).stdout
    assert "8 nodes" in said and "6 of them are cells" in said
    assert "On this machine: not known before a run is finished here" in said
    work.run()
    for node in work.nodes:
        write_attempt(work.folder, node.id, Attempt("finished", "", 60.0))
    assert "On this machine: everything is finished." in CliRunner().invoke(app, words).stdout
    (work.folder / "cells/exgra-med/1/seed-1/results.json").unlink()
    (work.folder / "cells/exgra-med/1/seed-0/results.json").unlink()
    words += ["--jobs", "2"]
    said = CliRunner().invoke(app, words).stdout
    assert "4 finished" in said and "On this machine: about 1 min 0 s with --jobs 2" in said
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (found["num_cells"], found["num_cells_finished"]) == (6, 4)
    assert found["seconds_left_here"] == 60.0
    said = CliRunner().invoke(app, ["study", "status", str(work.folder)]).stdout
    assert "About 2 min 0 s left with --jobs 1." in said


def test_a_failed_node_stops_only_what_needs_it(tmp_path: Path) -> None:
    work = Work(tmp_path)
    with pytest.raises(StudyFailed) as raised:
        work.run(fails=["shared/seed-0"])
    state = work.state()
    assert state["shared/seed-0"] == "failed"
    assert {each for name, each in state.items() if name.endswith("seed-1")} == {"finished"}
    assert {
        each for name, each in state.items() if name.startswith("cells") and name.endswith("seed-0")
    } == {"not run"}
    lines = str(raised.value.message).splitlines()
    assert lines[0] == "4 of 8 nodes are not finished."
    assert "shared/seed-0: It ended with exit code 3; see" in lines[1]
    assert "Not run, because shared/seed-0 is not finished." in lines[2]
    assert raised.value.exit_code == 1
    assert "something broke" in (work.folder / "logs/shared__seed-0.log").read_text()
    work.run()
    assert set(work.state().values()) == {"finished"}


@pytest.mark.slow
def test_a_signal_asks_the_nodes_and_leaves_a_study_that_can_go_on(tmp_path: Path) -> None:
    work = Work(tmp_path)

    def ask() -> None:
        while not (work.folder / "hanging").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(StudyStopped) as raised:
        work.run(jobs=1, hangs=["cells/instruct/1/seed-0"])
    thread.join()
    assert (work.folder / "asked").exists()
    assert raised.value.exit_code == 143 and "of 8 nodes finished" in str(raised.value)
    assert work.state()["cells/instruct/1/seed-0"] == "stopped"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    work.run()
    assert set(work.state().values()) == {"finished"}


@pytest.mark.slow
def test_nodes_wait_for_what_they_need(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.run(jobs=4)
    order = [each["node"] for each in work.told()]
    for seed in (0, 1):
        shared = order.index(f"shared/seed-{seed}")
        cells = [
            n for n, name in enumerate(order) if name.startswith("cells") and name[-1] == str(seed)
        ]
        assert shared < min(cells)


def test_another_study_in_the_folder_is_refused_and_a_larger_one_is_not(tmp_path: Path) -> None:
    folder = fake_study(tmp_path, {"instruct": {1.0: 0.5}}, SMALL)
    larger = SMALL.replace("seeds: [0, 1]", "seeds: [0, 1, 2]")
    start_study(folder, load_study(str(write_study(tmp_path, larger))))
    assert len(open_study(folder)[1]) == 12
    other = larger.replace("baseline:", "set: {stages.vqa.learning_rate: 0.5}\nbaseline:")
    with pytest.raises(RunError, match=r"stages.vqa.learning_rate is 0.001 there and 0.5 here"):
        start_study(folder, load_study(str(write_study(tmp_path, other))))
    with pytest.raises(RunError, match="is not a study folder"):
        start_study(folder / "cells", load_study(str(tmp_path / "try.yaml")))


def test_the_status_says_why(tmp_path: Path) -> None:
    work = Work(tmp_path)
    with pytest.raises(StudyFailed):
        work.run(fails=["cells/exgra-med/1/seed-0"])
    status = write_status(work.folder, work.study, work.nodes)
    entry = status["nodes"]["cells/exgra-med/1/seed-0"]
    assert entry["state"] == "failed" and "exit code 3" in entry["sentence"]
    assert status["counts"] == {"finished": 7, "failed": 1}


def test_the_machine_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    shared = share_machine(2, 2, ["0", "1", "2", "3"])
    assert shared.threads == 2
    assert [shared.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == ["0,1", "2,3"]
    assert share_machine(3, 1, ["0", "1"]).environment(2)["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in share_machine(1, 1, []).environment(0)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "4, 6"}) == ["4", "6"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_a_nodes_command_is_a_list_of_words() -> None:
    name = "a b; c"
    assert node_command(Path(name), "n") == [
        sys.executable, "-m", "exgra_med", "study", "node", name, "n",
    ]  # fmt: skip
    assert "--nproc-per-node=4" in node_command(Path("x"), "n", 4)


def test_a_node_that_another_process_holds_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exgra_med.lab.studies import node
    from exgra_med.lab.studies.node import run_node

    monkeypatch.setattr(node, "SECONDS_TO_SAVE", 0.2)
    work = Work(tmp_path)
    lock = work.folder / "logs" / "shared__seed-0.lock"
    lock.parent.mkdir()
    hold = "import sys, time; from pathlib import Path; from exgra_med.files import sole_writer\n"
    hold += "with sole_writer(Path(sys.argv[1]), 'x'): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", hold, str(lock)], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    said = f"The node shared/seed-0 is being written by process {other.pid} on "
    with pytest.raises(RunError, match=said):
        run_node(work.folder, "shared/seed-0", Silent())
    other.kill()
    other.communicate()
    with pytest.raises(RunError, match="needs shared/seed-0, which is not finished"):
        run_node(work.folder, "cells/instruct/1/seed-0", Silent())
    assert read_attempt(work.folder, "shared/seed-0") is None


def test_slurm_arrays_follow_one_another(tmp_path: Path) -> None:
    place = tmp_path / "it's here"
    place.mkdir()
    work = Work(place)
    assert [len(level) for level in levels(work.nodes, set())] == [2, 6]
    assert levels(work.nodes, {"shared/seed-0", "shared/seed-1"}) == [
        [
            f"cells/{method}/1/seed-{seed}"
            for seed in (0, 1)
            for method in ("instruct", "exgra-med", "equal-tokens")
        ]
    ]
    commands = write_arrays(work.folder, "try", work.nodes, set(), jobs=3, threads=2)
    assert [command[2] for command in commands] == ["--array=0-1%3", "--array=0-5%3"]
    lines = shell_lines(commands)
    assert 'afterany:"${level_0%%;*}"' in lines[1] and "dependency" not in lines[0]
    script = work.folder / "slurm" / "array.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    listed = (work.folder / "slurm" / "nodes-1.txt").read_text().splitlines()
    assert listed == levels(work.nodes, set())[1]


def nodes_of(study: Study, nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if node.cell]


def test_a_finished_cell_has_its_score(tmp_path: Path) -> None:
    work = Work(tmp_path)
    cell = nodes_of(work.study, work.nodes)[0]
    assert work.state()[cell.id] == "waiting"
    fake_cell(work.folder, work.study, cell, 0.5)
    assert work.state()[cell.id] == "finished"


def test_a_process_that_died_without_a_word_is_not_running(tmp_path: Path) -> None:
    work = Work(tmp_path)
    write_attempt(work.folder, "shared/seed-0", Attempt("running", "then"))
    assert work.state()["shared/seed-0"] == "stopped"
    lock = lock_path(work.folder, "shared/seed-0")
    with files.sole_writer(lock, "it"):
        assert work.state()["shared/seed-0"] == "running"


def test_weights_of_scored_cells_go_where_the_study_does_not_keep_them(tmp_path: Path) -> None:
    from exgra_med.lab.studies.node import run_node

    for keep in (True, False):
        place = tmp_path / str(keep)
        place.mkdir()
        work = Work(place, SMALL + f"keep_weights: {str(keep).lower()}\n")
        cell = nodes_of(work.study, work.nodes)[0]
        fake_cell(work.folder, work.study, cell, 0.5)
        weights = work.folder / cell.id / "checkpoints"
        (weights / "vqa").mkdir(parents=True)
        run_node(work.folder, cell.id, Silent())
        assert weights.exists() is keep


def test_the_rest_takes_as_long_as_what_is_like_it() -> None:
    cells = [
        Node(f"{method}-{fraction}-{seed}", "cell", (), cell=Cell(method, None, fraction, seed))
        for method in ("a", "b")
        for fraction in (0.1, 1.0)
        for seed in (0, 1)
    ]
    found = {node.id: Attempt("waiting") for node in cells}
    assert remaining_seconds(cells, found, 2) is None
    found["a-0.1-0"] = Attempt("finished", seconds=10.0)
    found["a-1.0-0"] = Attempt("finished", seconds=100.0)
    # Left: one each like a-0.1 and a-1.0, and two each of b, taken by their fraction.
    assert remaining_seconds(cells, found, 2) == (10 + 100 + 2 * 10 + 2 * 100) / 2
    found["b-1.0-1"] = Attempt("failed")
    assert remaining_seconds(cells, found, 1) == 10 + 100 + 2 * 10 + 100


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_nodes_end_with_a_study_that_is_killed(tmp_path: Path) -> None:
    work = Work(tmp_path)
    node = "shared/seed-0"
    study = os.fork()
    if study == 0:
        try:
            work.run(jobs=1, hangs=[node])
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while not (work.folder / "hanging").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    # Its handler of SIGTERM is set right after that.
    time.sleep(0.2)
    os.kill(study, signal.SIGKILL)
    os.waitpid(study, 0)
    while not (work.folder / "asked").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (work.folder / "asked").exists()
