"""100,000 records: memory while they are extended, and how soon a resumed run asks again.

    PYTHONPATH=src python benchmarks/captions_scale.py --out RESULT.json

Answers come from a cache that is filled beforehand, so that reading, cache, checks and writing are
measured and not a server. Each run is a process of its own; its peak memory is the system's figure.
The resumed run finds all but ten records finished; the time goes from its start to the moment when
its first request reaches a server.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from exgra_med.captions.question import PROMPT, messages_for, pairs_of
from exgra_med.captions.records import open_records
from exgra_med.files import write_text
from exgra_med.llm.cache import AnswerCache
from exgra_med.llm.prompt import load_prompt
from exgra_med.llm.request import ChatRequest, Reply

TESTS = Path(__file__).resolve().parents[1] / "tests" / "unit" / "captions"
sys.path.insert(0, str(TESTS))
ANSWER = (
    "The picture shows a lesion in the left lung, an area that differs from what is around it. "
)
CHILD = """
import json, resource, sys, time
from pathlib import Path
from exgra_med.captions.generate import ServiceSettings, generate_captions
data, out, cache, url = sys.argv[1:]
start = time.perf_counter()
settings = ServiceSettings(model="m", base_url=url, cache=Path(cache))
summary, _ = generate_captions(data, Path(out), settings)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(summary | {"megabytes": peak, "seconds": time.perf_counter() - start}))
"""


def prepare(folder: Path, number: int) -> tuple[Path, Path]:
    """A file of records and a cache with an answer for each."""
    data, stored = folder / f"{number}.jsonl", folder / f"{number}.sqlite"
    with data.open("w", encoding="utf-8") as stream:
        for row in range(number):
            talk = [
                {"role": "user", "text": f"What does picture {row} show, and where is it?"},
                {"role": "assistant", "text": f"A lesion of {row} mm in the left lung."},
            ]
            item = {"id": f"pmc/{row}", "image": f"{row}.jpg", "turns": talk}
            stream.write(json.dumps(item) + "\n")
    cache, prompt = AnswerCache(stored), load_prompt(PROMPT)
    cache._connection.execute("BEGIN")
    for record in open_records(str(data)).iterate():
        for question, answer in pairs_of(record):
            request = ChatRequest("m", messages_for(prompt, question, answer))
            text = json.dumps({"revision": f"{ANSWER}{answer}"})
            cache.put(request.key, "m", Reply(text, 500, 100, 0.0))
    cache._connection.execute("COMMIT")
    cache.close()
    return data, stored


def run(data: Path, out: Path, cache: Path, url: str) -> dict:
    command = [sys.executable, "-c", CHILD, str(data), str(out), str(cache), url]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def resume_seconds(data: Path, out: Path, folder: Path) -> dict[str, float]:
    """Cut ten records off the output and time a resumed run with an empty cache."""
    from bad_server import BadServer

    kept = out.read_bytes().splitlines(keepends=True)[:-10]
    out.write_bytes(b"".join(kept))
    cache = folder / "empty.sqlite"
    AnswerCache(cache).close()
    with BadServer() as server:
        start = time.perf_counter()
        command = [sys.executable, "-c", CHILD, str(data), str(out), str(cache), server.url]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        while not server.requests:
            time.sleep(0.005)
        first = time.perf_counter() - start
        summary = json.loads(child.communicate()[0])
    assert (summary["requests"], summary["earlier"]) == (10, len(kept)), summary
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import openai, exgra_med.captions.generate"], check=True)
    imports = time.perf_counter() - start
    return {"to_first_request": round(first, 2), "of_these_imports": round(imports, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in (given.records // 100, given.records // 10, given.records):
            data, cache = prepare(folder, number)
            out = folder / f"{number}-out.jsonl"
            summary = run(data, out, cache, "http://127.0.0.1:9/v1")
            assert (summary["done"], summary["requests"]) == (number, 0), summary
            assert len(out.read_bytes().splitlines()) == number
            rows.append(
                {
                    "records": number,
                    "peak_megabytes": round(summary["megabytes"], 1),
                    "seconds": round(summary["seconds"], 2),
                    "output_megabytes": round(out.stat().st_size / 1e6, 1),
                }
            )
        resume = resume_seconds(data, out, folder)
    result = {
        "benchmark": "captions_scale",
        "from_cache": rows,
        "resume_seconds": resume,
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "num_cpus": os.cpu_count(),
            "load_average": [round(load, 1) for load in os.getloadavg()],
            "python": platform.python_version(),
        },
    }
    write_text(given.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
