"""`exgra-med bench`: measure on this machine what the documentation reports of another."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.output import counting, print_json, say

app = typer.Typer(help="Measure speed and quality on this machine.", no_args_is_help=True)


@app.callback()
def _bench() -> None:
    pass


@app.command(
    epilog="Examples: exgra-med bench matching --quick | "
    "exgra-med bench matching --out benchmarks/results/matching.json"
)
def matching(
    out: Annotated[Path | None, typer.Option(help="Write the result to this JSON file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small graphs only, 1 minute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the matching solvers and compare their objectives, over sizes and regimes."""
    from exgra_med.alignment.benchmark import benchmark_matching
    from exgra_med.alignment.benchmark_report import markdown_tables, write_result

    with counting(as_json) as report:
        if quick:
            result = benchmark_matching((8, 16), num_steps=2, dim=512, report=report)
        else:
            result = benchmark_matching(report=report)
    if out is not None:
        write_result(result, out)
    if as_json:
        print_json(result)
    else:
        say(markdown_tables(result))
