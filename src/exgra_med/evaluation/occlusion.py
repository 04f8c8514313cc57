"""Where does the answer hang on the picture? An occlusion map.

A grey patch covers each cell of a grid in turn, and the model is asked how likely the answer it has
given is now. A cell matters where covering it changes that likelihood. Nothing is drawn at random.

What a map does not say: that the model understands what it looks at. A grey patch is itself
something to see, and two cells that show the same can stand in for one another.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from exgra_med.data.records import Record, Turn
from exgra_med.errors import DataError

if TYPE_CHECKING:
    from exgra_med.model.bundle import Bundle

Scorer = Callable[[Iterable[Image.Image]], Sequence[float]]
"""Mean log-likelihood a token of one given answer, one for each picture in place of the first."""
GRIDS = (4, 8)
"""Cells a side: a coarse map is there soon, and the finer one replaces it. 81 pictures in all."""
BATCH = 8
"""Pictures scored together; there is a progress report, and a chance to stop, after each batch."""
FLAT_POINTS = 1.0
"""A map whose largest change is smaller than so many percentage points shows nothing."""
_GREY = (127, 127, 127)


@dataclass(frozen=True)
class Occlusion:
    """An answer's likelihood with the whole picture, and with each cell of it covered.

    Likelihood is the mean probability of a token of the answer (a geometric mean), in percent: for
    an answer of one token its probability.
    """

    whole: float
    covered: list[list[float]]
    """[row][column], from the upper left."""

    @property
    def drops(self) -> list[list[float]]:
        """By how many percentage points covering a cell lowers the likelihood; below 0 where it
        raises it."""
        return [[self.whole - each for each in row] for row in self.covered]

    @property
    def largest(self) -> float:
        """The largest change by one cell, in percentage points, up or down."""
        return max(abs(each) for row in self.drops for each in row)

    @property
    def is_flat(self) -> bool:
        """Whether no cell changes the likelihood by `FLAT_POINTS`."""
        return self.largest < FLAT_POINTS

    @property
    def strongest(self) -> tuple[int, int]:
        """Row and column, from 0, of the cell that lowers the likelihood most."""
        drops = self.drops
        cells = [(row, column) for row in range(len(drops)) for column in range(len(drops[row]))]
        return max(cells, key=lambda cell: drops[cell[0]][cell[1]])


@dataclass(frozen=True)
class Progress:
    """How far an occlusion map is."""

    num_done: int
    num_pictures: int
    found: Occlusion | None
    """The finest map that is complete."""


def occlude(
    picture: Image.Image, score: Scorer, grids: Sequence[int] = GRIDS, batch: int = BATCH
) -> Iterator[Progress]:
    """Make an occlusion map; yields after each batch, with every map that is complete by then.

    Args:
        picture: the whole picture.
        score: of the answer that was given; see `Scorer`.
        grids: cells a side, one map each; a side of fewer pixels has as many cells as pixels.
        batch: pictures scored together.

    Raises:
        DataError: the model gives no finite likelihood.
    """
    boxes = [_cells(picture.size, grid) for grid in grids]
    total = 1 + sum(len(row) for cells in boxes for row in cells)
    whole, done = _percent(score([picture]))[0], 1
    yield Progress(done, total, None)
    found = None
    for cells in boxes:
        flat = [box for row in cells for box in row]
        values: list[float] = []
        for first in range(0, len(flat), batch):
            chosen = flat[first : first + batch]
            values += _percent(score(_covered(picture, box) for box in chosen))
            done += len(chosen)
            if len(values) == len(flat):
                width = len(cells[0])
                rows = [values[at : at + width] for at in range(0, len(values), width)]
                found = Occlusion(whole, rows)
            yield Progress(done, total, found)


def _cells(size: tuple[int, int], grid: int) -> list[list[tuple[int, int, int, int]]]:
    """Boxes that cover a picture of a size, each pixel in one, in rows."""
    columns, rows = (_edges(side, min(grid, side)) for side in size)
    return [
        [(left, top, right, bottom) for left, right in itertools.pairwise(columns)]
        for top, bottom in itertools.pairwise(rows)
    ]


def _edges(side: int, count: int) -> list[int]:
    return [round(side * number / count) for number in range(count + 1)]


def _covered(picture: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    covered = picture.convert("RGB")  # a copy
    covered.paste(_GREY, box)
    return covered


def _percent(log_likelihoods: Sequence[float]) -> list[float]:
    if not all(math.isfinite(each) for each in log_likelihoods):
        raise DataError("The model gives no finite likelihood of this answer, so there is no map.")
    return [100 * math.exp(each) for each in log_likelihoods]


def answer_scorer(
    bundle: "Bundle",
    images: Sequence[Image.Image],
    turns: Sequence[Turn],
    answer: str,
    template: str,
) -> Scorer:
    """How likely a model's answer is with other pictures in place of the first one.

    Args:
        bundle: the model that gave the answer.
        images: those of the conversation.
        turns: what was asked, the last turn by the user.
        answer: what the model wrote.
        template: chat template of a native model.
    """
    from exgra_med.evaluation.likelihood import last_answer_scores
    from exgra_med.recipe.schema import TextSettings

    record = Record(
        id="occlusion",
        image=[str(number) for number in range(len(images))] or None,
        turns=[*turns, Turn(role="assistant", text=answer)],
    )
    text = TextSettings(template=template, max_length=bundle.context_length)

    def score(pictures: Iterable[Image.Image]) -> list[float]:
        # One after the other: what the processor makes of a picture is smaller than the picture.
        told = [bundle.conversation(record, [each, *images[1:]], text) for each in pictures]
        return last_answer_scores(bundle, told)

    return score
