"""Copy a run's results into the repository, for the results page of the documentation.

    PYTHONPATH=src python tools/keep_results.py runs/demo demo

Left out are the scores by group, which the run's own report shows, and nothing else.
"""

import json
import sys
from pathlib import Path

from exgra_med.evaluation.results import read_results
from exgra_med.files import write_text

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def keep(run: Path, name: str) -> Path:
    """Write `benchmarks/results/run-NAME.json` and return its path."""
    results = read_results(run).model_dump(mode="json")
    for entry in results["results"]:
        entry["details"].pop("groups", None)
    out = RESULTS / f"run-{name}.json"
    write_text(out, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    return out


if __name__ == "__main__":
    print(keep(Path(sys.argv[1]), sys.argv[2]))
