"""10,000, 100,000 and 1,000,000 records: memory and processor time of every verb on the way.

    PYTHONPATH=src python benchmarks/scale.py --out benchmarks/results/scale.json
    PYTHONPATH=src python benchmarks/scale.py --quick --out RESULT.json
    PYTHONPATH=src python benchmarks/scale.py --out benchmarks/results/scale.json \\
        --picture docs/figures/scale.svg --numbers      # draws what was measured

Records are invented, on 2,000 tiny pictures. Each stage is a process of its own, so that its peak
memory is the system's figure, and its processor time does not count other work of the machine.
Beside both stands what the same process takes for the fewest records, so that one sees what a
further record costs: bytes and microseconds, from the second largest number to the largest.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from exgra_med.files import write_text

NUMBERS = (10_000, 100_000, 1_000_000)
QUICK = (500, 1_000, 2_000)
NUM_PICTURES = 2_000
ORGANS = ("lung", "liver", "heart", "kidney", "brain", "spleen")
MODALITIES = ("CT", "MRI", "X-ray", "ultrasound")
FINDINGS = ("nodule", "cyst", "fracture", "effusion", "mass", "opacity")
SIDES = ("left", "right", "upper", "lower")

WITHOUT_A_MODEL = """
import hashlib, sys, time
import numpy as np
from exgra_med.data.records import open_prepared
from exgra_med.data.conversation import choose_conversations
from exgra_med.training.order import image_groups, micro_batches, num_steps, plan_epoch
from functools import partial

prepared = open_prepared(sys.argv[1])
records = choose_conversations(prepared.stored("test"), 1, 1.0, 0)
plan = partial(plan_epoch, len(records), 8, 4, 7, group_of=image_groups(records))
total = num_steps(len(records), 8, 4, 2.0)

def digest(first):
    found = hashlib.sha256()
    for batch in micro_batches(plan, range(first, total), range(4)):
        found.update(np.asarray(batch, dtype=np.int64).tobytes())
    return found.hexdigest()

# A run that goes on has the same steps as one that was never stopped.
whole = hashlib.sha256()
late = hashlib.sha256()
half = 4 * (total // 2)
for number, batch in enumerate(micro_batches(plan, range(total), range(4))):
    part = np.asarray(batch, dtype=np.int64).tobytes()
    whole.update(part)
    if number >= half:
        late.update(part)
assert digest(total // 2) == late.hexdigest()
assert records[len(records) - 1].id
print(whole.hexdigest())
"""
WRITING = """
import json, sys
from pathlib import Path
from exgra_med.evaluation.answers import Prediction, PredictionWriter

reference, out, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
said = ("yes", "no", "a nodule in the left lung", "the liver")
def predictions():
    with reference.open(encoding="utf-8") as stream:
        for row, line in enumerate(stream):
            right = json.loads(line)["turns"][1]["text"]
            name = json.loads(line)["id"]
            yield Prediction(name, right if row % 3 else said[row % 4], "stop", None, 4)
def write(count):
    batch = []
    with PredictionWriter(out) as writer:
        for row, each in enumerate(predictions()):
            if row < count and each.id not in writer.done:
                batch.append(each)
            if len(batch) == 64 or (row == count - 1 and batch):
                writer.append(batch)
                batch = []
# Stopped half-way, and gone on with.
write(number // 2)
write(number)
"""
RUN = """
import sys
from pathlib import Path
from exgra_med.evaluation.session import open_session
from exgra_med.evaluation.tasks import vqa
from exgra_med.llm.service import ServiceSettings
from exgra_med.terminal import Silent

data, answers, out = sys.argv[1:]
service = ServiceSettings(model="m", base_url="http://127.0.0.1:9/v1")
session = open_session("m", Silent(), data=data, out=Path(out), engine="openai", service=service)
path = session.path(vqa.NAME)
path.parent.mkdir(parents=True, exist_ok=True)
Path(answers).rename(path)
vqa.score(session)
"""


def make_source(folder: Path, number: int) -> None:
    """A table of one's own: `test.jsonl` and its pictures."""
    images = folder / "images"
    images.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for each in range(min(NUM_PICTURES, number)):
        Image.fromarray(generator.integers(0, 255, (8, 8), np.uint8)).save(images / f"{each}.png")
    with (folder / "test.jsonl").open("w", encoding="utf-8") as stream:
        for row in range(number):
            organ, modality = ORGANS[row % 6], MODALITIES[row // 6 % 4]
            finding, side = FINDINGS[row // 24 % 6], SIDES[row // 144 % 4]
            is_closed = row % 2
            stream.write(
                json.dumps(
                    {
                        "id": f"q{row}",
                        "image": f"{row * 7919 % min(NUM_PICTURES, number)}.png",
                        "question": f"Is there a {finding} in the {side} {organ}?"
                        if is_closed
                        else f"What does the {side} part of the {organ} show in picture {row}?",
                        "answer": ("yes", "no")[row // 2 % 2]
                        if is_closed
                        else f"a {finding} in the {side} {organ}",
                        "modality": modality,
                        "organ": organ,
                    }
                )
                + "\n"
            )


def run(command: list[str], out: Path | None = None) -> dict[str, float]:
    """Processor seconds and peak memory of a process, by the system's account."""
    start = time.perf_counter()
    with (out or Path(os.devnull)).open("wb") as stream:
        child = subprocess.Popen([sys.executable, *command], stdout=stream)
        # Of this child alone: RUSAGE_CHILDREN would give the largest of all.
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ended with {child.returncode}")
    return {
        "peak_megabytes": round(used.ru_maxrss / 1024, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
        "seconds": round(time.perf_counter() - start, 2),
    }


def measure(folder: Path, number: int) -> dict[str, dict[str, float]]:
    """Every stage for one number of records."""
    cli = ["-m", "exgra_med"]
    source, prepared = folder / "source", folder / "prepared"
    make_source(source, number)
    answers, done = folder / "answers.jsonl", folder / "run"
    reference = str(prepared / "test.jsonl")
    stages: dict[str, dict[str, float]] = {}

    def stage(name: str, command: list[str], out: Path | None = None) -> None:
        stages[name] = run(command, out)
        print(f"{number:>9,} {name:<16} {stages[name]}", flush=True)

    stage("prepare", [*cli, "data", "prepare", "custom", "--source", str(source), "--out",
                      str(prepared)])  # fmt: skip
    shutil.rmtree(source)
    stage("check", [*cli, "data", "check", str(prepared), "--json"])
    stage("order", ["-c", WITHOUT_A_MODEL, str(prepared)])
    stage("write answers", ["-c", WRITING, reference, str(answers), str(number)])
    stage("score", [*cli, "evaluate", "score", str(answers), reference, "--json"])
    stage("score in a run", ["-c", RUN, str(prepared), str(answers), str(done)])
    stage("report", [*cli, "evaluate", "report", str(done)])
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} records instead.")
    parser.add_argument("--scratch", type=Path, help="Needs about 3 GB for the million.")
    parser.add_argument("--numbers", type=int, nargs="*", help="Other numbers of records.")
    parser.add_argument("--picture", type=Path, help="SVG of the curves (needs matplotlib).")
    given = parser.parse_args()
    numbers = (QUICK if given.quick else NUMBERS) if given.numbers is None else given.numbers
    results: dict[str, dict[str, dict[str, float]]] = {}
    for number in numbers:
        with tempfile.TemporaryDirectory(dir=given.scratch) as temporary:
            results[str(number)] = measure(Path(temporary), number)
        # After each number, so that a stop loses the largest alone.
        write_text(given.out, json.dumps(document(results), indent=2) + "\n")
    if given.picture:
        draw(json.loads(given.out.read_text(encoding="utf-8")), given.picture)


def document(results: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """What is kept of a measurement: number -> stage -> figures, turned round, and the machine."""
    numbers = list(results)
    return {
        "benchmark": "scale",
        "unit": "peak resident memory in MB (2^20 bytes), processor time in seconds",
        "numbers": [int(number) for number in numbers],
        "pictures": NUM_PICTURES,
        "stages": {
            name: {number: results[number][name] for number in numbers}
            | {"further_record": further(results, name)}
            for name in results[numbers[0]]
        },
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "num_cpus": os.cpu_count(),
            "load_average": [round(load, 1) for load in os.getloadavg()],
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def further(results: dict[str, dict[str, dict[str, float]]], name: str) -> dict[str, float]:
    """What one more record costs, between the two largest numbers."""
    numbers = list(results)
    if len(numbers) < 2:
        return {}
    few, many = (results[number][name] for number in numbers[-2:])
    more = int(numbers[-1]) - int(numbers[-2])
    memory, seconds = (
        many[figure] - few[figure] for figure in ("peak_megabytes", "processor_seconds")
    )
    return {
        "bytes": round(memory * 2**20 / more),
        "microseconds": round(seconds * 1e6 / more, 1),
    }


def draw(value: dict[str, Any], out: Path) -> None:
    """Memory and processor time over the number of records, a line a stage."""
    from exgra_med.evaluation.report.page import pyplot

    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    numbers = value["numbers"]
    titles = {
        "peak_megabytes": "peak memory, MB",
        "processor_seconds": "processor time, s",
    }
    for axis, (figure_name, title) in zip(axes, titles.items(), strict=True):
        for name, figures in value["stages"].items():
            axis.plot(numbers, [figures[str(n)][figure_name] for n in numbers], ".-", label=name)
        axis.set_xscale("log")
        axis.set_yscale("log" if figure_name == "processor_seconds" else "linear")
        axis.set_ylim(bottom=0 if figure_name == "peak_megabytes" else None)
        axis.set_xlabel("records")
        axis.set_title(title)
    axes[1].legend(fontsize=8)
    # Without a date and drawn names of its parts the same figures make the same file.
    plt.rcParams["svg.hashsalt"] = "scale"
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
