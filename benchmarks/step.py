"""One stage-2 step: ours against the original's way of doing the same; `exgra-med bench step`.

    PYTHONPATH=src python benchmarks/step.py --out benchmarks/results/step.json
    PYTHONPATH=src python benchmarks/step.py --shape llama-7b --device cuda --dtype bfloat16 --out X

The measuring is in `exgra_med.lab.benchmarks.step`. The stored result is of an earlier layout of
the file: its size `20m` is the shape `small`, and it has no operations.
"""

import sys

from exgra_med.cli.main import app

if __name__ == "__main__":
    app(["bench", "step", *sys.argv[1:]])
