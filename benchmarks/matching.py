"""Matching solvers side by side, those of others with ours; what docs/explanation shows.

    PYTHONPATH=src python benchmarks/matching.py --out benchmarks/results/matching.json

The measuring is in `exgra_med.lab.benchmarks.matching`; `exgra-med bench matching` is the same
without the solvers of others, which take part here where they are installed.
"""

import argparse
from pathlib import Path

from third_party_solvers import installed

from exgra_med.lab.benchmarks.matching import benchmark_matching, markdown_tables, write_result

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="write the result to this JSON file")
    parser.add_argument("--quick", action="store_true", help="small graphs only")
    options = parser.parse_args()
    sizes = {"sizes": (8, 16), "num_steps": 2, "dim": 512} if options.quick else {}
    result = benchmark_matching(**sizes, others=installed())
    if options.out is not None:
        write_result(result, options.out)
    print(markdown_tables(result))
