"""This package beside what one would use instead: the same model, records and precision, in turns.

    python benchmarks/peers/run.py --data data/slake --out benchmarks/results/peers.json

Each way runs in a process of its own, and each library of others in an environment of its own, made
from the package index by this command and kept in `--environments`; what it shares with this
package's environment, PyTorch above all, is taken from there, so that all ways run on the same. The
ways of a row take turns, round after round; a ratio is of two ways in one round. What cannot be
installed or run is written down with its message. `--start` is any LLaVA of transformers, the small
model without it. `--quick` runs everything with few steps, to see that it runs.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from exgra_med.captions.compose import compose_captions
from exgra_med.captions.merge import merge_captions
from exgra_med.data.chat_template import options_suffix
from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, open_prepared
from exgra_med.model.small_model import small_model

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = {
    "trl": ["trl==1.16.0", "datasets"],
    "lmms-eval": ["lmms-eval==0.7.3", "decord"],
    "ms-swift": ["ms-swift==4.6.0"],
    "pylibmgm": ["pylibmgm==1.1.3"],
}
ROWS = {
    "training": {
        "ours": None,
        "ours-sharing": None,
        "ours-aligned": None,
        "trainer": None,
        "trl": "trl",
        "ms-swift": "ms-swift",
        "nanovlm": None,
    },
    "evaluation": {
        "ours": None,
        "one-by-one": None,
        "pipeline": None,
        "lmms-eval": "lmms-eval",
    },
    "matching": {"ours": None, "ours-thorough": None, "pylibmgm": "pylibmgm"},
}
"""Row -> way -> its environment; None is this package's own."""


def environment(name: str, root: Path) -> tuple[Path, str]:
    """Python of an environment, made where it is not there, and why it could not be made."""
    folder = root / name
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return python, ""
    print(f"making the environment {name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    shared = sysconfig.get_path("purelib")
    (own / "shared.pth").write_text(shared + "\n", encoding="utf-8")
    command = [python, "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        return python, done.stderr.strip().splitlines()[-1]
    (folder / "ready").touch()
    return python, ""


def shown(record: Record, images: ImageFolder) -> dict[str, Any]:
    """A record as every way is told it: options are named in the question."""
    record = record.first_exchange()
    options = record.meta.get("options")
    return {
        "id": record.id,
        "picture": str(images.locate(record.images[0], record.id)),
        "question": record.question + (options_suffix(options) if options else ""),
        "answer": record.answer,
    }


def run_way(row: str, way: str, python: Path, job: dict[str, Any]) -> dict[str, Any]:
    """One way in a process of its own; `message` where it ended badly."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(job, file)
        file.flush()
        command = [str(python), str(HERE / f"{row}.py"), way, file.name]
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        errors = [each for each in lines if re.match(r"[\w.]+(Error|Exception): ", each)]
        return {"message": (errors or lines)[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def compared(rounds: dict[str, list[dict[str, Any]]], count: int) -> dict[str, Any]:
    """What a row says of its ways: how much a second, and ours over theirs, round by round."""
    table = {}
    speeds = {
        way: [
            count / statistics.median(each["seconds"]) if "seconds" in each else None
            for each in found
        ]
        for way, found in rounds.items()
    }
    for way, found in rounds.items():
        good = [each for each in found if "seconds" in each]
        if not good:
            table[way] = {"message": found[0]["message"]}
            continue
        table[way] = {
            "per_second": round(statistics.median(filter(None, speeds[way])), 3),
            "rounds": len(good),
            "peak_gigabytes": max(each["peak_gigabytes"] for each in good),
            "version": good[0]["version"],
        }
        pairs = zip(speeds["ours"], speeds[way], strict=True)
        ratios = [ours / own for ours, own in pairs if ours and own]
        if way != "ours" and ratios:
            table[way] |= {
                "ours_over_it": round(statistics.median(ratios), 2),
                "lowest": round(min(ratios), 2),
                "highest": round(max(ratios), 2),
            }
        first = rounds["ours"][0]
        if "products_share" in good[0]:
            shares = [each["products_share"] for each in good]
            table[way]["products_share"] = statistics.median(shares)
            table[way]["step_gigaflops"] = good[0]["step_gigaflops"]
        if "answers" in good[0] and "answers" in first:
            same = zip(first["answers"], good[0]["answers"], strict=True)
            table[way]["answers_as_ours"] = sum(a == b for a, b in same)
        if "values" in good[0]:
            table[way]["value"] = round(sum(good[0]["values"]), 3)
    return table


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared folder")
    parser.add_argument("--start", type=Path, help="a checkpoint of transformers")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--environments", type=Path, default=Path("runs/peers"))
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--half", action="store_true", help="bfloat16 in all ways")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    began = time.monotonic()
    for folder in (asked.environments, asked.out.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        start = asked.start or small_model()
        data = _extended(asked.data, Path(scratch))
        result: dict[str, Any] = {"rows": {}}
        for row in asked.rows:
            result["rows"][row] = _row(row, asked, start, data)
            print(json.dumps(result["rows"][row], indent=2), flush=True)
        result["metadata"] = _metadata(asked) | {
            "minutes": round((time.monotonic() - began) / 60, 1)
        }
    asked.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _extended(data: Path, scratch: Path) -> Path:
    """The same records with extended answers, which only the way with graphs reads."""
    compose_captions(str(data), [], scratch / "long.jsonl", num_questions=1)
    merge_captions(str(data), scratch / "long.jsonl", scratch / "data")
    return scratch / "data"


def _row(row: str, asked: argparse.Namespace, start: Path, data: Path) -> dict[str, Any]:
    prepared = open_prepared(data)
    images = prepared.image_folder(10**8)
    train, test = (
        [each for each in prepared.records(split) if each.images] for split in ("train", "test")
    )
    # Questions of whole pictures, as a test has them; of training every so manieth.
    test = test[: 8 if asked.quick else 64]
    steps = 2 if asked.quick else 3
    job = {
        "start": str(start.resolve()),
        "prepared": str(data),
        "train": [shown(each, images) for each in train[:: max(1, len(train) // 400)]],
        "test": [shown(each, images) for each in test],
        "batch_size": 4 if asked.quick else 8,
        "warm_up": 1,
        "steps": steps,
        "half": asked.half,
        "learning_rate": 1e-4,
        "rank": 8,
        "new_tokens": 8 if asked.quick else 16,
        "nodes": 16,
        "problems": 4 if asked.quick else 40,
    }
    pythons, rounds = {}, {way: [] for way in ROWS[row]}
    for way, name in ROWS[row].items():
        python, problem = Path(sys.executable), ""
        if name is not None:
            python, problem = environment(name, asked.environments)
        if problem:
            rounds[way].append({"message": problem})
        else:
            pythons[way] = python
    for number in range(1 if asked.quick else asked.rounds):
        for way in list(pythons)[:: 1 if number % 2 == 0 else -1]:
            print(f"{row}, round {number + 1}: {way}", flush=True)
            rounds[way].append(run_way(row, way, pythons[way], job))
    return compared(rounds, job["batch_size"] if row == "training" else 1)


def _metadata(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        "precision": "bfloat16" if asked.half else "float32",
        "model": asked.start.name if asked.start else "small",
        "rounds": 1 if asked.quick else asked.rounds,
        "quick": asked.quick,
    }


if __name__ == "__main__":
    main()
