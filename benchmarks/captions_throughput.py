"""Extended answers a second: one request at a time, and 64 side by side, in one run.

    PYTHONPATH=src python benchmarks/captions_throughput.py --out RESULT.json

A server in a process of its own answers every request after the same latency. `sequential` is the
original's way (one request after another, here with one kept connection); `concurrent` is
`captions generate` whole: reading, cache, checks of the reply, writing. Rounds of both alternate.
"""

import argparse
import asyncio
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

from exgra_med.captions.generate import ServiceSettings, generate_captions
from exgra_med.files import write_text

REPLY = json.dumps(
    {
        "choices": [{"message": {"content": json.dumps({"revision": "A longer answer. " * 20})}}],
        "usage": {"prompt_tokens": 600, "completion_tokens": 200},
    }
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(REPLY),
    REPLY,
)


class Server(asyncio.Protocol):
    """Answers every request after the same time, with as little work as possible."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().split(b"content-length: ")[1].split()[0]):
            self.received = b""
            asyncio.get_running_loop().call_later(self.latency, self.transport.write, ANSWER)


async def serve(latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(latency), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


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
    settings = ServiceSettings(
        model="m", base_url=url, concurrency=concurrency, cache=folder / f"{name}.sqlite"
    )
    start = time.perf_counter()
    summary, _ = generate_captions(str(data), folder / f"{name}-out.jsonl", settings)
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
    parser.add_argument("--serve", action="store_true", help="be the server")
    parser.add_argument("--out", type=Path, default=Path("captions_throughput.json"))
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.latency))
        return
    command = [sys.executable, __file__, "--serve", "--latency", str(given.latency)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    rates: dict[str, list[float]] = {"sequential": [], "concurrent": []}
    processor: list[float] = []
    loads = []
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            measure(url, folder, 5, 1)
            for _ in range(given.rounds):
                loads.append(round(os.getloadavg()[0], 1))
                rates["sequential"].append(measure(url, folder, given.sequential, 1))
                before = time.process_time()
                rates["concurrent"].append(measure(url, folder, given.records, given.concurrency))
                processor.append(1000 * (time.process_time() - before) / given.records)
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
        "processor_milliseconds_per_answer": round(statistics.median(processor), 2),
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
