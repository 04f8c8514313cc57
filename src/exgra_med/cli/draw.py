"""`exgra-med draw`: the matched graphs of a run as a page with pictures."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: exgra-med evaluate graphs runs/demo --out graphs.html"


def draw(
    run: Annotated[Path, typer.Argument(help="A run folder with a stage that aligns.")],
    out: Annotated[Path, typer.Option(help="An HTML file.")] = Path("graphs.html"),
    stage: Annotated[str | None, typer.Option(help="The last that aligns else.")] = None,
    nodes: Annotated[int, typer.Option(min=2, max=16, help="Records, at most.")] = 8,
    draw: Annotated[int, typer.Option(min=0, help="Number of the draw of records.")] = 0,
    bare: Annotated[bool, typer.Option("--bare", help="Without the graph layers.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Draw the graphs of a few records, and how they are matched before and after training.

    Thumbnails and texts are nodes, nearest neighbours edges; right and wrong matches have their
    own colours, and beside them stand the similarities.
    """
    from exgra_med.evaluation.graphs import measure_graphs
    from exgra_med.evaluation.report.graph_page import write_graphs
    from exgra_med.recipe.run_folder import open_run

    graphs = measure_graphs(open_run(run), stage, nodes, draw, not bare, device)
    for moment in (graphs.before, graphs.after):
        typer.echo(f"{moment.title} training: {100 * moment.accuracy:.0f} % of matches are right")
    typer.echo(f"{write_graphs(graphs, out)}")
