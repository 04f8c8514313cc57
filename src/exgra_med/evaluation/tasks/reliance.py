"""Reliance on the image: the same questions with a grey, noise or another image, or mirrored.

A model whose score does not fall without its image answers from the question alone.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from exgra_med.data.images import ImageFolder
from exgra_med.data.records import Record, image_names
from exgra_med.errors import DataError, RunError
from exgra_med.evaluation.answer_spread import said_and_right
from exgra_med.evaluation.answers import (
    Prediction,
    Question,
    QuestionsAside,
    counts_sentence,
    pair,
    read_predictions,
)
from exgra_med.evaluation.engines import stored_template
from exgra_med.evaluation.measures import (
    Measure,
    PairedValues,
    measures,
    paired_summary,
    with_functions,
)
from exgra_med.evaluation.metrics import percent
from exgra_med.evaluation.reading import answer_text, words
from exgra_med.evaluation.results import Entry
from exgra_med.evaluation.score import counts_of
from exgra_med.evaluation.session import Session
from exgra_med.evaluation.statistics import cluster_codes, scores_of, wilson
from exgra_med.evaluation.tables import Task
from exgra_med.evaluation.tasks import vqa

NAME = "reliance"
Blindness = Literal["blank", "noise", "shuffled"]
BLINDNESS: tuple[Blindness, ...] = ("blank", "noise", "shuffled")
_GREY = (127, 127, 127)


@dataclass(frozen=True)
class BlankImages(ImageFolder):
    """Every image is grey, in its own size."""

    def open(self, name: str, where: str = "") -> Image.Image:
        """See `ImageFolder.open`."""
        return Image.new("RGB", super().open(name, where).size, _GREY)


@dataclass(frozen=True)
class NoiseImages(ImageFolder):
    """Every image is noise in its own size, the same noise for the same name."""

    seed: int = 0

    def open(self, name: str, where: str = "") -> Image.Image:
        """See `ImageFolder.open`."""
        width, height = super().open(name, where).size
        generator = np.random.default_rng([self.seed, *name.encode("utf-8")])
        return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def shuffled_records(records: Sequence[Record], seed: int = 0) -> list[Record]:
    """Records in which every image is replaced by another one of the same set, never by one of its
    own, and different ones by different ones as far as there are enough.

    Raises:
        DataError: there is only one image, or a record shows all there are, so none can be
            exchanged.
    """
    names = sorted(image_names(records))
    if len(names) == 1:
        raise DataError("There is only one image, so images cannot be exchanged.")
    shuffled = names[:]
    random.Random(seed).shuffle(shuffled)
    # A circle through all images: none maps to itself.
    other = dict(zip(shuffled, [*shuffled[1:], *shuffled[:1]], strict=True))
    return [
        record.model_copy(update={"image": _exchanged(record, other)}) if record.images else record
        for record in records
    ]


def _exchanged(record: Record, other: Mapping[str, str]) -> list[str]:
    """For each image of a record the next one on the circle that the record does not have."""
    own = set(record.images)
    if len(own) == len(other):
        raise DataError(
            f"Record {record.id!r} shows all {len(own)} images there are, so they cannot be "
            "exchanged.",
            "Ask about more images.",
        )
    taken, given = set(own), dict[str, str]()
    for name in dict.fromkeys(record.images):
        if len(taken) == len(other):
            taken = set(own)  # too few images: some are given twice
        found = other[name]
        while found in taken:
            found = other[found]
        given[name] = found
        taken.add(found)
    return [given[name] for name in record.images]


def blinded(
    kind: Blindness, records: Sequence[Record], images: ImageFolder, seed: int = 0
) -> tuple[list[Record], ImageFolder]:
    """Records and images with which to ask the same questions without the right image."""
    if kind == "shuffled":
        return shuffled_records(records, seed), images
    if kind == "noise":
        return list(records), NoiseImages(
            images.root, images.max_pixels, seed, within=images.within
        )
    return list(records), BlankImages(images.root, images.max_pixels, within=images.within)


def visual_reliance(
    seeing: Sequence[Prediction],
    blind: Mapping[str, Sequence[Prediction]],
    records: Sequence[Record],
    seed: int = 0,
    num_samples: int = 2000,
) -> dict[str, dict[str, Any]]:
    """What the right image is worth, question by question (strict score, in points).

    A question that was not answered both with and without its image does not count.

    Returns:
        Kind -> measure -> what is lost without the image (value, interval, count), for the measures
        that comparisons show; and `changed_answer`: the share of questions, in percent, whose
        answer says something else then. Nothing is taken off for chance: greedy answers have none.
    """
    questions = QuestionsAside.of(records)
    clusters = cluster_codes(question.cluster for question in questions)
    chosen = measures("compare")
    with_image = pair(seeing, questions)
    result: dict[str, dict[str, Any]] = {}
    for kind, predictions in blind.items():
        without = pair(predictions, questions)
        values = PairedValues.of(with_image, without, "strict", with_functions(chosen))
        lost = paired_summary(values.answered, chosen, clusters, seed)
        changed = _changed(questions, with_image.answers, without.answers)
        result[kind] = lost | scores_of(changed, (_CHANGED.name,), clusters, num_samples, seed)
    return result


def _changed(
    questions: Sequence[Question], before: Sequence[str | None], after: Sequence[str | None]
) -> NDArray[np.float64]:
    """(questions, 1): 1 where two answers say different things, NaN where one is missing."""

    def differ(question: Question, one: str | None, other: str | None) -> float:
        if one is None or other is None:
            return np.nan
        return said_and_right(question, one) != said_and_right(question, other)

    pairs = zip(questions, before, after, strict=True)
    return np.array([differ(*each) for each in pairs], dtype=np.float64)[:, None]


# A model that sees the side must change its answer when the image is mirrored.

_SIDES = {"left": "left", "right": "right", "左": "left", "右": "right"}
_OTHER = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class MirroredImages(ImageFolder):
    """Every image is mirrored, so that left becomes right."""

    def open(self, name: str, where: str = "") -> Image.Image:
        """See `ImageFolder.open`."""
        return ImageOps.mirror(super().open(name, where))


def side_of(text: str) -> str | None:
    """The one side that a text names; None for none or both.

    >>> side_of("Left lung"), side_of("left and right")
    ('left', None)
    """
    sides = {_SIDES[word] for word in words(text) if word in _SIDES}
    return sides.pop() if len(sides) == 1 else None


def sided_records(records: Sequence[Record]) -> list[Record]:
    """Questions about images whose reference answer names one side."""
    return [each for each in records if each.question_images and side_of(each.answer)]


def mirror_probe(
    seeing: Sequence[Prediction], mirrored: Sequence[Prediction], records: Sequence[Record]
) -> dict[str, Any]:
    """How often the side that is answered to `sided_records` follows the image when it is mirrored.

    Returns:
        `num` questions; of these, in percent, `follows` (the other side is answered; with Wilson's
        `interval`), `stays` (the same side) and `no_side` (one answer names no side). None without
        questions. A model that ignores the image stays.
    """
    before = {each.id: side_of(answer_text(each.text)) for each in seeing}
    after = {each.id: side_of(answer_text(each.text)) for each in mirrored}
    sides = [(before.get(each.id), after.get(each.id)) for each in records]
    num = len(sides)
    follows = sum(a is not None and b == _OTHER[a] for a, b in sides)
    stays = sum(a is not None and a == b for a, b in sides)
    bounds = wilson(follows, num)
    return {
        "num": num,
        "follows": percent(follows, num),
        "interval": None if bounds is None else [100 * bounds[0], 100 * bounds[1]],
        "stays": percent(stays, num),
        "no_side": percent(num - follows - stays, num),
    }


def check(session: Session) -> None:
    """Refuse before the first question what would stop `evaluate` later; see `Session.check`.

    Raises:
        RunError: the plain answers were made with another template, or other answers in another
            way.
        DataError: the images cannot be exchanged, or one is not there.
    """
    _same_template(session)
    vqa.check(session)
    for kind in BLINDNESS:
        records, _ = blinded(kind, session.records, session.images, session.seed)
        session.check(f"{NAME}/{kind}", records, **_about(session, kind))
    if sided := sided_records(session.records):
        session.check(f"{NAME}/mirrored", sided, **_about(session, "mirrored"))


def _same_template(session: Session) -> None:
    template = session.run.recipe.text.template
    asked_with = stored_template(session.path(vqa.NAME))
    if asked_with not in (None, template):
        raise RunError(
            f"The answers to {session.dataset}/{session.split} were asked with the template "
            f"{asked_with!r}.",
            f"Give --template {asked_with}.",
        )


def evaluate(session: Session, kinds: Sequence[Blindness] | None = None) -> Entry | None:
    """Ask the questions again with grey, noise and exchanged images, and say what that costs.

    Questions whose answer names a side are also asked with the image mirrored. What the images are
    worth is told beside the plain answers, which are made first where they are not there.

    Args:
        session: run, engine and questions.
        kinds: only some kinds of images, and none mirrored.

    Returns:
        The entry; nothing in all but the first process of a launch.

    Raises:
        RunError: the plain answers were made with another template.
    """
    _same_template(session)
    vqa.evaluate(session)
    blind: dict[str, Sequence[Prediction]] = {}
    for kind in kinds or BLINDNESS:
        records, images = blinded(kind, session.records, session.images, session.seed)
        blind[kind] = _ask(session, kind, records, images)
    sided = [] if kinds else sided_records(session.records)
    images = session.images
    flipped = MirroredImages(images.root, images.max_pixels, within=images.within)
    mirrored = _ask(session, "mirrored", sided, flipped) if sided else []
    if not session.is_first:
        return None
    seen = read_predictions(session.path(vqa.NAME)).predictions
    asked = QuestionsAside.of(session.records)
    files = {
        kind: session.relative(session.path(f"{NAME}/{kind}"))
        for kind in (*blind, *(("mirrored",) if sided else ()))
    }
    return session.keep(
        session.entry(
            NAME,
            scores=visual_reliance(
                seen,
                blind,
                session.records,
                session.seed,
                session.settings.num_bootstrap_samples,
            ),
            answers=files,
            details={
                "answer_counts": counts_of(pair(seen, asked)),
                "counts_by_variant": {
                    kind: counts_of(pair(answers, asked)) for kind, answers in blind.items()
                },
            }
            | ({} if kinds else {"mirrored": mirror_probe(seen, mirrored, sided)}),
        )
    )


def _ask(
    session: Session, kind: str, records: Sequence[Record], images: ImageFolder
) -> Sequence[Prediction]:
    title = f"answers with {kind} images"
    return session.ask(f"{NAME}/{kind}", title, records, images, **_about(session, kind))


def _about(session: Session, kind: str) -> dict[str, Any]:
    """What decides these answers beside engine and data."""
    return {"shown": kind, "seed": session.seed}


_CHANGED = Measure("changed_answer", "changed answer", "all", shown=frozenset())


def _notes(entry: Entry) -> list[str]:
    """How many answers could be used, and what became of those about a side in a mirrored image."""
    counts = entry.details.get("answer_counts")
    told = [f"With the right images: {counts_sentence(counts)}"] if counts else []
    for kind, label in TASK.variants.items():
        if (own := (entry.details.get("counts_by_variant") or {}).get(kind)) is not None:
            told.append(f"{label.capitalize()}: {counts_sentence(own)}")
    probe = entry.details.get("mirrored") or {}
    if not probe.get("num"):
        return told
    low, high = probe["interval"] or (0.0, 100.0)
    return [
        *told,
        f"With the image mirrored, {probe['follows']:.1f} % of {probe['num']} answers about a side "
        f"name the other side (95 % interval {low:.1f} to {high:.1f}), {probe['stays']:.1f} % "
        f"stay, and {probe['no_side']:.1f} % name no side. An answer that stays did not come from "
        "the image.",
    ]


TASK = Task(
    name=NAME,
    title="Reliance on the image",
    about="Points of the strict score that are lost when the same questions come with a wrong "
    "image. An interval that holds 0 means that the image cannot be shown to matter. A changed "
    "answer says something else then, right or wrong.",
    measures=lambda: [*measures("compare"), _CHANGED],
    variants={
        "blank": "grey image",
        "noise": "noise image",
        "shuffled": "image of another question",
    },
    rows="variants",
    differences=True,
    notes=_notes,
)
