"""Extended answers a second: one request at a time, and 64 side by side, in one run.

    PYTHONPATH=src python benchmarks/captions_throughput.py --out RESULT.json

A server in a process of its own answers every request after the same latency. `sequential` is the
original's way (one request after another, here with one kept connection); `concurrent` is
`captions generate` whole: reading, cache, checks of the reply, writing. Rounds of both alternate.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import openai

from exgra_med.captions.run import Settings, generate
from exgra_med.files import write_text

SERVER = Path(__file__).resolve().parents[1] / "tests" / "unit" / "captions" / "bad_server.py"


def write_records(path: Path, number: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for row in range(number):
            talk = [
                {"role": "user", "text": f"What does picture {row} show?"},
                {"role": "assistant", "text": f"A lesion of {row} mm in the left lung."},
            ]
            stream.write(json.dumps({"id": f"r/{row}", "turns": talk}) + "\n")


def measure(url: str, folder: Path, number: int, concurrency: int) -> float:
    """Answers a second of `generate` on `number` new records with an empty cache."""
    name = f"{time.monotonic_ns()}"
    data = folder / f"{name}.jsonl"
    write_records(data, number)
    settings = Settings(
        model="m", base_url=url, concurrency=concurrency, cache=folder / f"{name}.sqlite"
    )
    start = time.perf_counter()
    summary, _ = generate(str(data), folder / f"{name}-out.jsonl", settings)
    seconds = time.perf_counter() - start
    assert summary["done"] == summary["requests"] == number, summary
    return number / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--records", type=int, default=3000, help="of a concurrent round")
    parser.add_argument("--sequential", type=int, default=25, help="records of a sequential round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    command = [sys.executable, str(SERVER), str(given.latency)]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    rates: dict[str, list[float]] = {"sequential": [], "concurrent": []}
    loads = []
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            measure(url, folder, 5, 1)
            for _ in range(given.rounds):
                loads.append(round(os.getloadavg()[0], 1))
                rates["sequential"].append(measure(url, folder, given.sequential, 1))
                rates["concurrent"].append(measure(url, folder, given.records, given.concurrency))
    finally:
        server.kill()
    medians = {way: statistics.median(values) for way, values in rates.items()}
    result = {
        "benchmark": "captions_throughput",
        "latency_seconds": given.latency,
        "concurrency": given.concurrency,
        "answers_per_second": {
            way: {"median": round(medians[way], 2), "rounds": [round(x, 2) for x in values]}
            for way, values in rates.items()
        },
        "ratio": round(medians["concurrent"] / medians["sequential"], 1),
        "records_per_round": {"sequential": given.sequential, "concurrent": given.records},
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "num_cpus": os.cpu_count(),
            "load_average_before_rounds": loads,
            "python": platform.python_version(),
            "openai": openai.__version__,
        },
    }
    write_text(given.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
