"""Questions with their images for the report: a random dozen, and some that went wrong."""

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from exgra_med.data.images import ImageFolder
from exgra_med.errors import DataError
from exgra_med.evaluation.answers import Pairing, Question
from exgra_med.evaluation.metrics import legacy, strict

# Small copies of images for pages.


_QUALITY = 80


def jpeg(image: Image.Image, side_pixels: int) -> str:
    """A copy that fits a square, as base64 JPEG without any metadata of the file."""
    small = image.convert("RGB")
    small.thumbnail((side_pixels, side_pixels))
    small.info.clear()
    stream = BytesIO()
    small.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


_SIDE_PIXELS = 360


@dataclass(frozen=True, slots=True)
class Example:
    """One card: what was asked, what was expected, what was said."""

    id: str
    question: str
    reference: str
    prediction: str
    score: float
    """1 for a right closed answer; for an open one the strict recall."""
    mark: str
    """`right`, `partly right` or `wrong`, by the strict score."""
    detail: str
    """Why, in a few words."""
    image: str | None
    """JPEG as base64; None where there is none to show."""
    image_problem: str = ""


@dataclass(frozen=True, slots=True)
class Examples:
    """Cards of the report."""

    sample: list[Example]
    wrong: list[Example]
    num_wrong: int
    """Wrong and partly right answers in all, shown or not."""


def pick_examples(
    pairing: Pairing, images: ImageFolder | None, num_examples: int, seed: int = 0
) -> Examples:
    """Draw questions at random, at most one an image as far as there are enough images.

    Nothing is chosen by how well it looks: the sample is drawn before anything is scored, and the
    wrong answers are drawn from all wrong ones.

    Args:
        pairing: questions with answers.
        images: where the images lie; cards have none without it.
        num_examples: cards of each of the two lists.
        seed: of the draw.
    """
    generator = random.Random(seed)
    rows = list(range(len(pairing.questions)))
    generator.shuffle(rows)
    marks = {row: judge(pairing.questions[row], pairing.answers[row]) for row in rows}
    missed = [row for row in rows if marks[row][1] != "right"]
    sample = _spread(rows, pairing.questions, num_examples)
    shown = set(sample)
    wrong = _spread([row for row in missed if row not in shown], pairing.questions, num_examples)
    cards = {
        row: make_card(pairing.questions[row], pairing.answers[row], marks[row], images)
        for row in [*sample, *wrong]
    }
    return Examples([cards[row] for row in sample], [cards[row] for row in wrong], len(missed))


def _spread(rows: Sequence[int], questions: Sequence[Question], number: int) -> list[int]:
    seen: set[str] = set()
    first = [
        row
        for row in rows
        if questions[row].cluster not in seen and not seen.add(questions[row].cluster)
    ]
    chosen = set(first)
    return [*first, *(row for row in rows if row not in chosen)][:number]


def judge(question: Question, answer: str | None) -> tuple[float, str, str]:
    """Score, mark (`right`, `partly right`, `wrong`) and the reason in a few words; see `Example`.

    Args:
        question: with its reference answer.
        answer: None where there is none.
    """
    if answer is None:
        return 0.0, "wrong", "no answer"
    if question.answer_type == "CLOSED":
        reading = strict.closed(answer, question.answer, question.text, question.options)
        detail = {
            strict.Verdict.RIGHT: "closed",
            strict.Verdict.WRONG: f"closed, read as “{reading.chosen}”",
            strict.Verdict.SEVERAL: "closed, names several options",
            strict.Verdict.ABSTAINED: "closed, abstains",
            strict.Verdict.UNPARSED: "closed, names no option",
        }[reading.verdict]
        if not reading.hit and legacy.closed_hit(answer, question.answer):
            detail += "; legacy counts it as right"
        return float(reading.hit), "right" if reading.hit else "wrong", detail
    recall = strict.open_overlap(answer, question.answer).recall
    mark = "right" if recall == 1 else "partly right" if recall else "wrong"
    return recall, mark, f"open, recall {100 * recall:.0f} %"


def make_card(
    question: Question,
    answer: str | None,
    judged: tuple[float, str, str],
    images: ImageFolder | None,
) -> Example:
    """One card with a small copy of its first image, or with why there is none."""
    score, mark, detail = judged
    picture, problem = None, "" if question.images else "a question without an image"
    if images is not None and question.images:
        try:
            picture = jpeg(images.open(question.images[0], question.id), _SIDE_PIXELS)
        except DataError as error:
            problem = error.message
    elif question.images:
        problem = "the image folder is not at hand"
    return Example(
        id=question.id,
        question=question.text,
        reference=question.answer,
        prediction="(no answer)" if answer is None else answer.strip() or "(empty)",
        score=score,
        mark=mark,
        detail=detail,
        image=picture,
        image_problem=problem,
    )
