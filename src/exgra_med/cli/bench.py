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
    from exgra_med.lab.benchmarks.matching import benchmark_matching, markdown_tables, write_result

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


@app.command(
    epilog="Examples: exgra-med bench step | exgra-med bench step --shape llama-7b "
    "--device cuda --dtype bfloat16 --out step-7b.json"
)
def step(
    shape: Annotated[str, typer.Option(help="Sizes of the model: tiny, small, llama-7b.")] = (
        "small"
    ),
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    records: Annotated[int, typer.Option(min=2, help="Records of the step.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Timed steps of a process.")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each way.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write the result to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time one stage-2 step beside the original's way of it: time, memory, alignment, MFU."""
    from exgra_med.lab.benchmarks.matching import write_result
    from exgra_med.lab.benchmarks.step import Settings, benchmark_step, markdown_table

    settings = Settings(shape, device, dtype, records, rounds, repeats)
    with counting(as_json) as report:
        result = benchmark_step(settings, report)
    if out is not None:
        write_result(result, out)
    if as_json:
        print_json(result)
    else:
        say(markdown_table(result))
