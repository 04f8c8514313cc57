"""Questions that two arms answer differently: how many, and a few with their pictures."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.errors import DataError, MissingExtraError
from exgra_med.evaluation.answers import Question, pair, read_predictions
from exgra_med.evaluation.report.page import shown_answer, spread
from exgra_med.lab.studies.collect import Collected, Score, tested_data
from exgra_med.lab.studies.schema import Study
from exgra_med.recipe.run_folder import open_run

FEWEST_PAIRS = 2
"""One pair of runs cannot say what another seed changes."""
NUM_SHOWN = 4
"""Questions in each direction."""


@dataclass(frozen=True)
class Shown:
    """One question with its picture."""

    question: Question
    picture: Image.Image | None
    """None where there is none, or none that can be read."""
    answers: tuple[list[str], list[str]]
    """Of the baseline and of the other arm, one a seed."""


@dataclass(frozen=True)
class Differing:
    """Where the answers of the baseline and of another arm differ, in pairs of equal seed."""

    arms: tuple[str, str]
    """The baseline, and the other arm."""
    fraction: float
    num_pairs: int
    num_questions: int
    alone: tuple[float, float]
    """Questions that only the first, only the second answers with the full value of the score;
    mean over pairs."""
    other_seed: float
    """Questions that only one of two seeds of the baseline answers so; mean over all two seeds.
    Below all of the data seeds also differ in their pictures."""
    shown: tuple[list[Shown], list[Shown]]
    """One a picture as far as there are enough: first those that most pairs answer so, none the
    other way; equal ones in the order of the hashes of their names, so that nobody chooses."""


def count_differing(study: Study, collected: Collected) -> dict[str, Any] | None:
    """How many answers an arm changes, and how many another seed does.

    Of the first method beside the baseline, at the smallest fraction that has two pairs of runs;
    None where there is none, or where no answer has the full value of the score.

    Returns:
        `arm`, `fraction`, `num_pairs`, `num_questions`, `only_baseline`, `only_arm`, `other_seed`;
        the last three as `Differing.alone` and `Differing.other_seed`.
    """
    pairs = _pairs(study, collected)
    if pairs is None:
        return None
    first, second = _right(pairs, collected)
    if not (first.any() or second.any()):
        return None  # a score whose full value no answer reaches
    counted = [~np.isnan(collected.values[run.cell]).all(axis=1) for run in pairs[0]]
    between = [(one != two).sum() for one, two in combinations(first, 2)]
    return {
        "arm": pairs[0][1].cell.arm,
        "fraction": pairs[0][0].cell.fraction,
        "num_pairs": len(pairs),
        "num_questions": int((counted[0] | counted[1]).sum()),
        "only_baseline": float((first & ~second).sum(axis=1).mean()),
        "only_arm": float((second & ~first).sum(axis=1).mean()),
        "other_seed": float(np.mean(between)),
    }


def find_differing(
    folder: Path,
    study: Study,
    collected: Collected,
    may_be_shown: Callable[[Question], bool] = lambda _: True,
) -> Differing | None:
    """The counts of `count_differing`, with pictures and answers of a few questions that may be
    shown.

    Raises:
        DataError, DamagedFileError: data or answers are not what was scored.
    """
    pairs, counts = _pairs(study, collected), count_differing(study, collected)
    if pairs is None or counts is None:
        return None
    questions = collected.questions
    first, second = _right(pairs, collected)
    lead = (first & ~second).sum(axis=0) - (second & ~first).sum(axis=0)
    both_ways = (first & ~second).any(axis=0) & (second & ~first).any(axis=0)

    def chosen(lead: NDArray[np.int64]) -> list[int]:
        found = np.flatnonzero((lead > 0) & ~both_ways)
        rows = [row for row in map(int, found) if may_be_shown(questions[row])]

        def place(row: int) -> tuple[int, bytes]:
            return -lead[row], hashlib.sha256(questions[row].id.encode()).digest()

        return spread(sorted(rows, key=place), questions, NUM_SHOWN)

    answers = [
        [pair(read_predictions(folder / run.facts["predictions"]).predictions, questions).answers
         for run in side]
        for side in zip(*pairs, strict=True)
    ]  # fmt: skip
    settings = open_run(folder / pairs[0][0].folder).recipe.evaluation_data
    images = tested_data(folder, study, pairs[0][0]).image_folder(settings.max_pixels)

    def show(row: int) -> Shown:
        said = [[shown_answer(each[row]) for each in side] for side in answers]
        return Shown(questions[row], _picture(images, questions[row]), (said[0], said[1]))

    return Differing(
        arms=(study.baseline, counts["arm"]),
        fraction=counts["fraction"],
        num_pairs=counts["num_pairs"],
        num_questions=counts["num_questions"],
        alone=(counts["only_baseline"], counts["only_arm"]),
        other_seed=counts["other_seed"],
        shown=([show(row) for row in chosen(lead)], [show(row) for row in chosen(-lead)]),
    )


def _right(
    pairs: list[tuple[Score, Score]], collected: Collected
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[pairs, questions] of each arm: whether the answer has the full value.

    A question counts for one part of the score, and has no value in the others.
    """
    first, second = (
        np.stack([np.nan_to_num(collected.values[run.cell]).max(axis=1) == 1.0 for run in side])
        for side in zip(*pairs, strict=True)
    )
    return first, second


def _pairs(study: Study, collected: Collected) -> list[tuple[Score, Score]] | None:
    """Runs of the baseline and of another arm at one fraction, in pairs of equal seed."""
    runs = {(s.cell.arm, s.cell.fraction, s.cell.seed): s for s in collected.scores}
    baseline = study.baseline
    others = dict.fromkeys(arm for arm, _, _ in runs if arm != baseline)
    # A setting of a method, such as `instruct+SETTING`, only where there is no other method.
    for arm in sorted(others, key=lambda arm: "+" in arm):
        for fraction in sorted(study.fractions):
            both = [
                (runs[baseline, fraction, seed], runs[arm, fraction, seed])
                for seed in study.seeds
                if {(baseline, fraction, seed), (arm, fraction, seed)} <= runs.keys()
            ]
            if len(both) >= FEWEST_PAIRS:
                return both
    return None


def _picture(images: ImageFolder, question: Question) -> Image.Image | None:
    try:
        return images.open(question.images[0], question.id) if question.images else None
    except (DataError, MissingExtraError):
        return None
