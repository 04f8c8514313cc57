"""Families of questions: what can be asked about a scene, and the answers that are true of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from exgra_med.data.phantom.anatomy import (
    CONTRASTS,
    DEVICES,
    KINDS,
    MODALITIES,
    ORGANS,
    REGIONS,
    SHAPES,
    SIDES,
    SIZES,
    held_out_pairs,
    organs_of,
)
from exgra_med.data.phantom.scene import Lesion, Scene
from exgra_med.data.phantom.text import (
    NUMBERS,
    adjective,
    capital,
    device_phrase,
    findings,
    lesion_phrase,
    place_answer,
    place_phrase,
    single_organs,
    with_modality,
)

YES_NO = ("yes", "no")
_PLACES = tuple(
    place
    for name, organ in ORGANS.items()
    for place in (
        [f"{side} {name}" for side in SIDES] if organ.paired or organ.is_central else [name]
    )
)


@dataclass(frozen=True)
class Candidate:
    """A question that a scene can answer.

    Args:
        answer: the short answer.
        extended: the answer with its finding, as a sentence.
        words: what fills the blanks of the question's wordings.
        organ: the organ that is asked about, where there is one.
        lesion: the lesion that is asked about, where there is one.
    """

    answer: str
    extended: str
    words: dict[str, str] = field(default_factory=dict)
    organ: str | None = None
    lesion: Lesion | None = None


@dataclass(frozen=True)
class Family:
    """Questions of one kind.

    Args:
        answer_type: OPEN or CLOSED.
        answers: every answer there is, balanced over.
        propose: the candidates of a scene; of a yes/no question both where both can be asked.
        balanced_words: blanks for each filling of which answers are balanced too.
        about_lesions: whether it is asked in `test_composition`.
    """

    answer_type: Literal["OPEN", "CLOSED"]
    answers: tuple[str, ...]
    propose: Callable[[Scene], Iterator[Candidate]]
    balanced_words: tuple[str, ...] = ()
    about_lesions: bool = False


def _context(scene: Scene) -> str:
    return f"{with_modality(scene.modality)} of the {scene.region}"


def _modality(scene: Scene) -> Iterator[Candidate]:
    yield Candidate(
        scene.modality, f"This is {_context(scene)}, and it shows {findings(scene.lesions)}."
    )


def _modality_check(scene: Scene) -> Iterator[Candidate]:
    for modality in MODALITIES:
        words = {"modality": modality, "a_modality": with_modality(modality)}
        if modality == scene.modality:
            yield Candidate("yes", f"Yes, this is {_context(scene)}.", words)
        else:
            text = f"No, this is not {with_modality(modality)} but {_context(scene)}."
            yield Candidate("no", text, words)


def _region(scene: Scene) -> Iterator[Candidate]:
    yield Candidate(
        scene.region,
        f"The {scene.region} is shown on {with_modality(scene.modality)}, "
        f"with {findings(scene.lesions)}.",
    )


def _laterality(scene: Scene) -> Iterator[Candidate]:
    for organ in scene.organs:
        if organ.name in single_organs(scene.region):
            assert organ.side is not None
            text = f"The {organ.name} lies on the {organ.side} side on {_context(scene)}."
            yield Candidate(organ.side, text, {"organ": organ.name}, organ.name)


def _count(scene: Scene) -> Iterator[Candidate]:
    number = NUMBERS[len(scene.lesions)]
    if not scene.lesions:
        text = f"There are {number} lesions: no lesion is seen on {_context(scene)}."
    else:
        noun = "There is one lesion" if number == "one" else f"There are {number} lesions"
        text = f"{noun} on {_context(scene)}: {findings(scene.lesions)}."
    yield Candidate(number, text)


def _lesion_present(scene: Scene) -> Iterator[Candidate]:
    if scene.lesions:
        text = f"Yes, {_context(scene)} shows {findings(scene.lesions)}."
        yield Candidate("yes", text)
    else:
        yield Candidate("no", f"No, there is no lesion on {_context(scene)}.")


def _lesion_in_organ(scene: Scene) -> Iterator[Candidate]:
    affected = {lesion.organ for lesion in scene.lesions}
    free = [name for name in organs_of(scene.region) if name not in affected]
    if not affected or not free:
        return
    for name in affected:
        lesions = [lesion for lesion in scene.lesions if lesion.organ == name]
        words = {"organ": name}
        yield Candidate("yes", f"Yes, there is {findings(lesions)}.", words, name, lesions[0])
    for name in free:
        text = f"No, the {name} is free of lesions; there is {findings(scene.lesions)}."
        yield Candidate("no", text, {"organ": name}, name, scene.lesions[0])


def _named_by_shape(scene: Scene) -> Iterator[tuple[Lesion, dict[str, str]]]:
    """Lesions whose shape tells them from the others of their scene."""
    shapes = [lesion.shape for lesion in scene.lesions]
    for lesion in scene.lesions:
        if shapes.count(lesion.shape) == 1:
            yield lesion, {"shape": adjective(lesion.shape)}


def _organ(scene: Scene) -> Iterator[Candidate]:
    for lesion, words in _named_by_shape(scene):
        text = f"The {lesion.organ} is affected: there is {lesion_phrase(lesion)}."
        yield Candidate(lesion.organ, text, words, lesion.organ, lesion)


def _place(scene: Scene) -> Iterator[Candidate]:
    for lesion, words in _named_by_shape(scene):
        text = f"{capital(place_phrase(lesion))} is affected: there is {lesion_phrase(lesion)}."
        yield Candidate(place_answer(lesion), text, words, lesion.organ, lesion)


def _side(scene: Scene) -> Iterator[Candidate]:
    for lesion, words in _named_by_shape(scene):
        text = f"It is on the {lesion.side} side: there is {lesion_phrase(lesion)}."
        yield Candidate(lesion.side, text, words, lesion.organ, lesion)


def _shape(scene: Scene) -> Iterator[Candidate]:
    for lesion in scene.lesions:
        text = f"Its shape is a {lesion.shape}: there is {lesion_phrase(lesion)}."
        if lesion.shape == "round":
            text = f"It is round: there is {lesion_phrase(lesion)}."
        yield _about(lesion, lesion.shape, text)


def _shape_check(scene: Scene) -> Iterator[Candidate]:
    for lesion in scene.lesions:
        for kind, shape in SHAPES.items():
            words = {"place": place_phrase(lesion), "shape": adjective(shape)}
            if kind == lesion.kind:
                text = f"Yes, there is {lesion_phrase(lesion)}."
                yield Candidate("yes", text, words, lesion.organ, lesion)
            elif (lesion.organ, kind) not in held_out_pairs():
                # A held-out pair is named nowhere, or "no" could be learned from the text.
                text = f"No, it is not {adjective(shape)}: there is {lesion_phrase(lesion)}."
                yield Candidate("no", text, words, lesion.organ, lesion)


def _kind(scene: Scene) -> Iterator[Candidate]:
    for lesion in scene.lesions:
        text = f"{capital(lesion_phrase(lesion))} is seen on {with_modality(scene.modality)}."
        yield _about(lesion, lesion.kind, text)


def _size(scene: Scene) -> Iterator[Candidate]:
    for lesion in scene.lesions:
        text = f"The {lesion.kind} is {lesion.size}: there is {lesion_phrase(lesion)}."
        yield _about(lesion, lesion.size, text)


def _contrast(scene: Scene) -> Iterator[Candidate]:
    for lesion in scene.lesions:
        text = f"It appears {lesion.contrast}: there is {lesion_phrase(lesion)}."
        yield _about(lesion, lesion.contrast, text)


def _about(lesion: Lesion, answer: str, extended: str) -> Candidate:
    return Candidate(answer, extended, {"place": place_phrase(lesion)}, lesion.organ, lesion)


def _comparison(scene: Scene) -> Iterator[Candidate]:
    for first in scene.lesions:
        for second in scene.lesions:
            if first.size == second.size:
                continue
            words = {"place": place_phrase(first), "other_place": place_phrase(second)}
            answer = "yes" if first.size == "large" else "no"
            text = (
                f"{capital(answer)}, there is {lesion_phrase(first)}, but {lesion_phrase(second)}."
            )
            yield Candidate(answer, text, words, first.organ, first)


def _device_present(scene: Scene) -> Iterator[Candidate]:
    answer = "yes" if scene.device else "no"
    text = f"{capital(answer)}, {device_phrase(scene)} on {_context(scene)}."
    yield Candidate(answer, text)


def _device(scene: Scene) -> Iterator[Candidate]:
    if scene.device:
        text = f"{capital(device_phrase(scene))} on {_context(scene)}."
        yield Candidate(scene.device.kind, text)


FAMILIES: dict[str, Family] = {
    "modality": Family("OPEN", MODALITIES, _modality),
    "modality_check": Family("CLOSED", YES_NO, _modality_check, ("modality",)),
    "region": Family("OPEN", REGIONS, _region),
    "laterality": Family("CLOSED", SIDES, _laterality, ("organ",)),
    "count": Family("OPEN", NUMBERS, _count),
    "lesion_present": Family("CLOSED", YES_NO, _lesion_present),
    "lesion_in_organ": Family("CLOSED", YES_NO, _lesion_in_organ, ("organ",), about_lesions=True),
    "organ": Family("OPEN", tuple(ORGANS), _organ, about_lesions=True),
    "place": Family("OPEN", _PLACES, _place, about_lesions=True),
    "side": Family("CLOSED", SIDES, _side, ("shape",), about_lesions=True),
    "shape": Family("OPEN", tuple(SHAPES.values()), _shape, about_lesions=True),
    "shape_check": Family("CLOSED", YES_NO, _shape_check, ("shape",), about_lesions=True),
    "kind": Family("OPEN", KINDS, _kind, about_lesions=True),
    "size": Family("CLOSED", SIZES, _size, about_lesions=True),
    "contrast": Family("CLOSED", CONTRASTS, _contrast, about_lesions=True),
    "comparison": Family("CLOSED", YES_NO, _comparison, about_lesions=True),
    "device_present": Family("CLOSED", YES_NO, _device_present),
    "device": Family("OPEN", DEVICES, _device),
}
"""Name -> family; `WORDINGS` has the same names."""
