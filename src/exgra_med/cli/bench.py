"""`exgra-med bench`: measure on this machine what the documentation reports of another."""

from pathlib import Path
from typing import Annotated, Any

import typer

from exgra_med.cli.options import Device, Json, OptionalOutFile, device_for
from exgra_med.terminal import counting, show

app = typer.Typer(help="Measure speed and quality on this machine.", no_args_is_help=True)


@app.command(
    epilog="""
Examples:

* `exgra-med bench matching --quick`

* `exgra-med bench matching --out matching.json`
"""
)
def matching(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only small graphs. It takes a minute.")
    ] = False,
    out: OptionalOutFile = None,
    as_json: Json = False,
) -> None:
    """Time the matching solvers and compare their objectives, over sizes and regimes."""
    from exgra_med.lab.benchmarks.matching import benchmark_matching, markdown_tables

    with counting("measuring the solvers") as report:
        if quick:
            result = benchmark_matching((8, 16), num_steps=2, dim=512, report=report)
        else:
            result = benchmark_matching(report=report)
    _show_result(result, markdown_tables(result), out, as_json)


@app.command(
    epilog="""
Examples:

* `exgra-med bench step`

* `exgra-med bench step --shape llama-7b --device cuda --dtype bfloat16 --out step-7b.json`
"""
)
def step(
    shape: Annotated[
        str,
        typer.Option("--shape", metavar="NAME", help="Model size: tiny, small, 160m, llama-7b."),
    ] = "small",
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="float32 or bfloat16.")
    ] = "float32",
    records: Annotated[
        int, typer.Option("--records", min=2, max=65536, help="Records of the step.")
    ] = 16,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed steps of one process.")] = 3,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Processes for each way of the step.")
    ] = 3,
    out: OptionalOutFile = None,
    as_json: Json = False,
) -> None:
    """Time one stage-2 step beside the original's way of it: time, memory, alignment, MFU."""
    device = device_for(device)
    from exgra_med.lab.benchmarks.step import Settings, benchmark_step, markdown_table

    settings = Settings(shape, device, dtype, records, rounds, repeats)
    with counting("measuring the step") as report:
        result = benchmark_step(settings, report)
    _show_result(result, markdown_table(result), out, as_json)


def _show_result(result: dict[str, Any], tables: str, out: Path | None, as_json: bool) -> None:
    from exgra_med.lab.benchmarks.matching import write_result

    if out is not None:
        write_result(result, out)
    show(result, as_json, [tables])
