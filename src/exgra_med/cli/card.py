"""`exgra-med card`: the model card of a run, the data card of a prepared folder."""

from pathlib import Path
from typing import Annotated

import typer

from exgra_med.cli.output import say

app = typer.Typer(help="Cards that travel with a model or a data set.", no_args_is_help=True)


@app.command("model", epilog="Example: `exgra-med card model runs/demo --out MODEL_CARD.md`")
def model(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; MODEL_CARD.md in the run else.")
    ] = None,
) -> None:
    """Write a run's card: licence chain, data, hashes, scores with intervals, limits."""
    from exgra_med.evaluation.cards import write_model_card

    say(write_model_card(run, out or run / "MODEL_CARD.md"))


@app.command("data", epilog="Example: `exgra-med card data data/vqa-rad --out DATA_CARD.md`")
def data(
    folder: Annotated[str, typer.Argument(help="A prepared folder, or bundled:NAME.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("DATA_CARD.md"),
) -> None:
    """Write a prepared folder's card: origin, licence, hashes, counts, what was left out."""
    from exgra_med.evaluation.cards import write_data_card

    say(write_data_card(folder, out))
