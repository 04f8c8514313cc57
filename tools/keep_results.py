"""Copy a run's results into the repository, for the results page of the documentation.

    PYTHONPATH=src python tools/keep_results.py runs/demo demo

Left out are the scores by group, which the run's own report shows, and nothing else. Added is what
made the run: the digest of its recipe, its commit and the versions behind it, since the same recipe
gives other numbers under other code and on other machines.
"""

import json
import sys
from pathlib import Path

from exgra_med.data.records import file_sha256
from exgra_med.evaluation.results import read_results
from exgra_med.files import write_text
from exgra_med.recipe.load import shipped_recipes
from exgra_med.recipe.run_folder import open_run

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def recipe_digest(name: str) -> str:
    """sha256 of the file of a shipped recipe."""
    return file_sha256(shipped_recipes()[name])


def keep(run: Path, name: str) -> Path:
    """Write `benchmarks/results/run-NAME.json` and return its path."""
    opened, results = open_run(run), read_results(run).model_dump(mode="json")
    record = opened.record()
    made = {key: record[key] for key in ("exgra_med", "git_commit", "platform")}
    made |= {
        "torch": record["versions"]["torch"],
        "recipe_sha256": recipe_digest(opened.recipe.name),
    }
    for entry in results["results"]:
        entry["details"].pop("groups", None)
        entry["details"]["made_with"] = made
    out = RESULTS / f"run-{name}.json"
    write_text(out, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    return out


if __name__ == "__main__":
    print(keep(Path(sys.argv[1]), sys.argv[2]))
