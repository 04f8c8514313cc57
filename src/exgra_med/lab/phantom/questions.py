"""Questions about scenes, chosen so that text alone gives little away: answers are balanced."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from operator import attrgetter
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
    ADJECTIVES,
    EXTENDED,
    NUMBERS,
    WITH_ARTICLE,
    WORDINGS,
    capital,
    device_phrase,
    findings,
    lesion_phrase,
    place_answer,
    place_phrase,
    single_organs,
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

    `words` fill the blanks of questions and extended answers.
    """

    answer: str
    words: dict[str, str]
    organ: str | None = None
    lesion: Lesion | None = None


@dataclass(frozen=True)
class Family:
    """Questions of one kind.

    Args:
        answers: every answer there is, balanced over.
        propose: the candidates of a scene; of a yes/no question both where both can be asked.
        balanced_words: blanks for each filling of which answers are balanced too.
        about_lesions: whether it is asked in `test_composition`.
        weight: how often it is among the questions to choose from; more where few scenes fit.
    """

    answer_type: Literal["OPEN", "CLOSED"]
    answers: tuple[str, ...]
    propose: Callable[[Scene], Iterable[Candidate]]
    balanced_words: tuple[str, ...] = ()
    about_lesions: bool = False
    weight: int = 1


def _yes(holds: object) -> str:
    return "yes" if holds else "no"


def _of_scene(
    scene: Scene, answer: str, organ: str | None = None, lesion: Lesion | None = None, **words: str
) -> Candidate:
    scan = WITH_ARTICLE[scene.modality]
    known = {
        "answer": answer,
        "scan": scan,
        "region": scene.region,
        "context": f"{scan} of the {scene.region}",
        "findings": findings(scene.lesions),
        "device": device_phrase(scene),
        "Device": capital(device_phrase(scene)),
    }
    return Candidate(answer, known | words, organ, lesion)


def _of_lesion(scene: Scene, lesion: Lesion, answer: str, **words: str) -> Candidate:
    known = {
        "kind": lesion.kind,
        "article": "an" if lesion.kind[0] in "aeiou" else "a",
        "shape": ADJECTIVES[lesion.shape],
        "place": place_phrase(lesion),
        "Place": capital(place_phrase(lesion)),
        "finding": lesion_phrase(lesion),
    }
    return _of_scene(scene, answer, lesion.organ, lesion, **known | words)


def _of_all(answer: Callable[[Scene], str]) -> Callable[[Scene], list[Candidate]]:
    """The one candidate of every scene."""
    return lambda scene: [_of_scene(scene, answer(scene))]


def _of_each(
    answer: Callable[[Lesion], str], by_shape: bool = False
) -> Callable[[Scene], list[Candidate]]:
    """Of every lesion; where told by shape, of those whose shape no other lesion has."""

    def propose(scene: Scene) -> list[Candidate]:
        shapes = [lesion.shape for lesion in scene.lesions]
        asked = (each for each in scene.lesions if not by_shape or shapes.count(each.shape) == 1)
        return [_of_lesion(scene, each, answer(each)) for each in asked]

    return propose


def _modality_check(scene: Scene) -> Iterator[Candidate]:
    for modality in MODALITIES:
        words = {"asked_modality": modality, "asked_scan": WITH_ARTICLE[modality]}
        yield _of_scene(scene, _yes(modality == scene.modality), **words)


def _laterality(scene: Scene) -> Iterator[Candidate]:
    for organ in scene.organs:
        if organ.side and organ.name in single_organs(scene.region):
            yield _of_scene(scene, organ.side, organ.name, asked_organ=organ.name)


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
            yield _of_scene(scene, "no", name, scene.lesions[0], asked_organ=name)


def _shape_check(scene: Scene) -> Iterator[Candidate]:
    for lesion in scene.lesions:
        for kind, shape in SHAPES.items():
            same = kind == lesion.kind
            # A held-out pair is not asked for "no" either: text alone would give the answer away.
            if same or (lesion.organ, kind) not in held_out_pairs():
                yield _of_lesion(scene, lesion, _yes(same), asked_shape=ADJECTIVES[shape])


def _comparison(scene: Scene) -> Iterator[Candidate]:
    for first, second in permutations(scene.lesions, 2):
        if first.size != second.size:
            words = {"other_place": place_phrase(second), "other_finding": lesion_phrase(second)}
            yield _of_lesion(scene, first, _yes(first.size == "large"), **words)


def _device(scene: Scene) -> Iterator[Candidate]:
    if scene.device:
        yield _of_scene(scene, scene.device.kind)


_about_lesions = partial(Family, about_lesions=True)

FAMILIES: dict[str, Family] = {
    "modality": Family("OPEN", MODALITIES, _of_all(attrgetter("modality"))),
    "modality_check": Family("CLOSED", YES_NO, _modality_check, ("asked_modality",)),
    "region": Family("OPEN", REGIONS, _of_all(attrgetter("region"))),
    "laterality": Family("CLOSED", SIDES, _laterality, ("asked_organ",), weight=2),
    "count": Family("OPEN", NUMBERS, _of_all(lambda scene: NUMBERS[len(scene.lesions)]), weight=2),
    "lesion_present": Family("CLOSED", YES_NO, _of_all(lambda scene: _yes(scene.lesions))),
    "lesion_in_organ": _about_lesions("CLOSED", YES_NO, _lesion_in_organ, ("asked_organ",)),
    "organ": _about_lesions("OPEN", tuple(ORGANS), _of_each(attrgetter("organ"), by_shape=True)),
    "place": _about_lesions("OPEN", PLACES, _of_each(place_answer, by_shape=True)),
    "side": _about_lesions(
        "CLOSED", SIDES, _of_each(attrgetter("side"), by_shape=True), ("shape",)
    ),
    "shape": _about_lesions("OPEN", tuple(SHAPES.values()), _of_each(attrgetter("shape"))),
    "shape_check": _about_lesions("CLOSED", YES_NO, _shape_check, ("asked_shape",)),
    "kind": _about_lesions("OPEN", KINDS, _of_each(attrgetter("kind"))),
    "size": _about_lesions("CLOSED", SIZES, _of_each(attrgetter("size"))),
    "contrast": _about_lesions("CLOSED", CONTRASTS, _of_each(attrgetter("contrast"))),
    "comparison": _about_lesions("CLOSED", YES_NO, _comparison, weight=3),
    "device_present": Family("CLOSED", YES_NO, _of_all(lambda scene: _yes(scene.device))),
    "device": Family("OPEN", DEVICES, _device, weight=2),
}
"""Name -> family; `WORDINGS` has the same names."""


SLACK = 2
"""How much more often than the rarest answer another may have been given to a wording."""


@dataclass(frozen=True)
class Asked:
    """A question of a family as it is asked; `extended` is the answer with its finding."""

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
        self._seed, self._split, self._number = seed, split, questions_per_image
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
        family, balanced = FAMILIES[name], FAMILIES[name].balanced_words
        choices = [
            (candidate, wording, (name, wording, *(candidate.words[word] for word in balanced)))
            for candidate in family.propose(scene)
            for wording in WORDINGS[name]
        ]
        random.shuffle(choices)

        def excess(choice: tuple[Candidate, str, tuple[str, ...]]) -> int:
            candidate, _, key = choice
            rarest = min(self._given[*key, answer] for answer in family.answers)
            return self._given[*key, candidate.answer] - rarest

        best = min(choices, key=excess, default=None)
        if best is None or excess(best) >= SLACK:
            return None
        candidate, wording, key = best
        self._given[*key, candidate.answer] += 1
        sentences = EXTENDED.get(f"{name}:{candidate.answer}") or EXTENDED[name]
        sentence = sentences[int(random.integers(len(sentences)))]
        words = candidate.words
        return Asked(name, wording.format(**words), sentence.format(**words), candidate)
