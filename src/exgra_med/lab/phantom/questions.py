"""Questions about scenes, chosen so that text alone gives little away: answers are balanced."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exgra_med.lab.phantom.scene import (
    CONTRASTS,
    DEVICES,
    KINDS,
    MODALITIES,
    ORGANS,
    REGIONS,
    SHAPES,
    SIDES,
    SIZES,
    SPLITS,
    Lesion,
    Scene,
    held_out_pairs,
    organs_of,
)
from exgra_med.lab.phantom.text import (
    EXTENDED,
    NUMBERS,
    WORDINGS,
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
PLACES = tuple(
    place
    for name, organ in ORGANS.items()
    for place in (
        [f"{side} {name}" for side in SIDES] if organ.paired or organ.is_central else [name]
    )
)
"""Every answer to where a lesion is."""


@dataclass(frozen=True)
class Candidate:
    """A question that a scene can answer.

    Args:
        answer: the short answer.
        words: what fills the blanks of questions and extended answers.
        organ: the organ that is asked about, where there is one.
        lesion: the lesion that is asked about, where there is one.
    """

    answer: str
    words: dict[str, str]
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
        weight: how often it is among the questions to choose from; more where few scenes fit.
    """

    answer_type: Literal["OPEN", "CLOSED"]
    answers: tuple[str, ...]
    propose: Callable[[Scene], Iterator[Candidate]]
    balanced_words: tuple[str, ...] = ()
    about_lesions: bool = False
    weight: int = 1


def _of_scene(scene: Scene, answer: str, **words: str) -> Candidate:
    scan = with_modality(scene.modality)
    known = {
        "answer": answer,
        "scan": scan,
        "region": scene.region,
        "context": f"{scan} of the {scene.region}",
        "findings": findings(scene.lesions),
        "device": device_phrase(scene),
        "Device": capital(device_phrase(scene)),
    }
    return Candidate(answer, known | words)


def _of_lesion(scene: Scene, lesion: Lesion, answer: str, **words: str) -> Candidate:
    known = {
        "kind": lesion.kind,
        "article": "an" if lesion.kind[0] in "aeiou" else "a",
        "shape": adjective(lesion.shape),
        "place": place_phrase(lesion),
        "Place": capital(place_phrase(lesion)),
        "finding": lesion_phrase(lesion),
    }
    words = _of_scene(scene, answer).words | known | words
    return Candidate(answer, words, lesion.organ, lesion)


def _modality(scene: Scene) -> Iterator[Candidate]:
    yield _of_scene(scene, scene.modality)


def _modality_check(scene: Scene) -> Iterator[Candidate]:
    for modality in MODALITIES:
        answer = "yes" if modality == scene.modality else "no"
        scan = with_modality(modality)
        yield _of_scene(scene, answer, asked_modality=modality, asked_scan=scan)


def _region(scene: Scene) -> Iterator[Candidate]:
    yield _of_scene(scene, scene.region)


def _laterality(scene: Scene) -> Iterator[Candidate]:
    for organ in scene.organs:
        if organ.side and organ.name in single_organs(scene.region):
            words = _of_scene(scene, organ.side, asked_organ=organ.name).words
            yield Candidate(organ.side, words, organ.name)


def _count(scene: Scene) -> Iterator[Candidate]:
    yield _of_scene(scene, NUMBERS[len(scene.lesions)])


def _lesion_present(scene: Scene) -> Iterator[Candidate]:
    yield _of_scene(scene, "yes" if scene.lesions else "no")


def _lesion_in_organ(scene: Scene) -> Iterator[Candidate]:
    affected = {lesion.organ: lesion for lesion in scene.lesions}
    names = organs_of(scene.region)
    # Where only one answer could be given, the answer could be had from the rest of the scene.
    if not affected or len(affected) == len(names):
        return
    for name in names:
        if name in affected:
            here = [lesion for lesion in scene.lesions if lesion.organ == name]
            words = {"asked_organ": name, "finding": findings(here)}
            yield _of_lesion(scene, affected[name], "yes", **words)
        else:
            words = _of_scene(scene, "no", asked_organ=name).words
            yield Candidate("no", words, name, scene.lesions[0])


def _identified_by_shape(scene: Scene) -> Iterator[Lesion]:
    """Lesions whose shape no other lesion of the scene has."""
    shapes = [lesion.shape for lesion in scene.lesions]
    return (lesion for lesion in scene.lesions if shapes.count(lesion.shape) == 1)


def _organ(scene: Scene) -> Iterator[Candidate]:
    return (_of_lesion(scene, each, each.organ) for each in _identified_by_shape(scene))


def _place(scene: Scene) -> Iterator[Candidate]:
    return (_of_lesion(scene, each, place_answer(each)) for each in _identified_by_shape(scene))


def _side(scene: Scene) -> Iterator[Candidate]:
    return (_of_lesion(scene, each, each.side) for each in _identified_by_shape(scene))


def _shape(scene: Scene) -> Iterator[Candidate]:
    return (_of_lesion(scene, each, each.shape) for each in scene.lesions)


def _shape_check(scene: Scene) -> Iterator[Candidate]:
    for lesion in scene.lesions:
        for kind, shape in SHAPES.items():
            answer = "yes" if kind == lesion.kind else "no"
            # A held-out pair is not asked for "no" either: text alone would give the answer away.
            if answer == "yes" or (lesion.organ, kind) not in held_out_pairs():
                yield _of_lesion(scene, lesion, answer, asked_shape=adjective(shape))


def _kind(scene: Scene) -> Iterator[Candidate]:
    return (_of_lesion(scene, each, each.kind) for each in scene.lesions)


def _size(scene: Scene) -> Iterator[Candidate]:
    return (_of_lesion(scene, each, each.size) for each in scene.lesions)


def _contrast(scene: Scene) -> Iterator[Candidate]:
    return (_of_lesion(scene, each, each.contrast) for each in scene.lesions)


def _comparison(scene: Scene) -> Iterator[Candidate]:
    for first in scene.lesions:
        for second in scene.lesions:
            if first.size != second.size:
                words = {
                    "other_place": place_phrase(second),
                    "other_finding": lesion_phrase(second),
                }
                yield _of_lesion(scene, first, "yes" if first.size == "large" else "no", **words)


def _device_present(scene: Scene) -> Iterator[Candidate]:
    yield _of_scene(scene, "yes" if scene.device else "no")


def _device(scene: Scene) -> Iterator[Candidate]:
    if scene.device:
        yield _of_scene(scene, scene.device.kind)


FAMILIES: dict[str, Family] = {
    "modality": Family("OPEN", MODALITIES, _modality),
    "modality_check": Family("CLOSED", YES_NO, _modality_check, ("asked_modality",)),
    "region": Family("OPEN", REGIONS, _region),
    "laterality": Family("CLOSED", SIDES, _laterality, ("asked_organ",), weight=2),
    "count": Family("OPEN", NUMBERS, _count, weight=2),
    "lesion_present": Family("CLOSED", YES_NO, _lesion_present),
    "lesion_in_organ": Family(
        "CLOSED", YES_NO, _lesion_in_organ, ("asked_organ",), about_lesions=True
    ),
    "organ": Family("OPEN", tuple(ORGANS), _organ, about_lesions=True),
    "place": Family("OPEN", PLACES, _place, about_lesions=True),
    "side": Family("CLOSED", SIDES, _side, ("shape",), about_lesions=True),
    "shape": Family("OPEN", tuple(SHAPES.values()), _shape, about_lesions=True),
    "shape_check": Family("CLOSED", YES_NO, _shape_check, ("asked_shape",), about_lesions=True),
    "kind": Family("OPEN", KINDS, _kind, about_lesions=True),
    "size": Family("CLOSED", SIZES, _size, about_lesions=True),
    "contrast": Family("CLOSED", CONTRASTS, _contrast, about_lesions=True),
    "comparison": Family("CLOSED", YES_NO, _comparison, about_lesions=True, weight=3),
    "device_present": Family("CLOSED", YES_NO, _device_present),
    "device": Family("OPEN", DEVICES, _device, weight=2),
}
"""Name -> family; `WORDINGS` has the same names."""


SLACK = 2
"""How much more often than the rarest answer another may have been given to a wording."""


@dataclass(frozen=True)
class Asked:
    """A question as it is asked.

    Args:
        family: of `FAMILIES`.
        text: the question.
        extended: the answer with its finding, as a sentence.
        candidate: its short answer, and what it is about.
    """

    family: str
    text: str
    extended: str
    candidate: Candidate


class Questioner:
    """Asks about the scenes of one split, in their order.

    It counts the answers to each wording, asks what was answered least, and passes over a question
    whose answer was given too often: the answers are level at every point of the split, so a
    folder with fewer scenes has the first questions of one with more.
    """

    def __init__(self, seed: int, split: str, questions_per_image: int) -> None:
        self._seed = seed
        self._split = split
        self._number = questions_per_image
        self._given: Counter[tuple[str, ...]] = Counter()
        self._names = [
            name
            for name, family in FAMILIES.items()
            for _ in range(family.weight)
            if family.about_lesions or split != "test_composition"
        ]

    def ask(self, scene: Scene) -> list[Asked]:
        """The questions about the next scene: as many as wanted, or as it allows."""
        # The last number keeps these choices apart from those of the scene.
        random = np.random.default_rng([self._seed, SPLITS.index(self._split), scene.number, 1])
        asked: dict[str, Asked] = {}
        for place in random.permutation(len(self._names)):
            name = self._names[place]
            if len(asked) == self._number:
                break
            if name not in asked and (question := self._choose(name, scene, random)):
                asked[name] = question
        return list(asked.values())

    def _choose(self, name: str, scene: Scene, random: np.random.Generator) -> Asked | None:
        family = FAMILIES[name]
        choices = [
            (candidate, wording, self._key(name, family, candidate, wording))
            for candidate in family.propose(scene)
            for wording in WORDINGS[name]
        ]
        random.shuffle(choices)
        best, least = None, SLACK
        for choice in choices:
            candidate, _, key = choice
            rarest = min(self._given[*key, answer] for answer in family.answers)
            excess = self._given[*key, candidate.answer] - rarest
            if excess < least:
                best, least = choice, excess
        if best is None:
            return None
        candidate, wording, key = best
        self._given[*key, candidate.answer] += 1
        sentences = EXTENDED.get(f"{name}:{candidate.answer}") or EXTENDED[name]
        sentence = sentences[int(random.integers(len(sentences)))]
        words = candidate.words
        return Asked(name, wording.format(**words), sentence.format(**words), candidate)

    @staticmethod
    def _key(name: str, family: Family, candidate: Candidate, wording: str) -> tuple[str, ...]:
        return (name, wording, *(candidate.words[word] for word in family.balanced_words))
