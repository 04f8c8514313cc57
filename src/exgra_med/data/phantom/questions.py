"""Questions about scenes, chosen so that text alone tells little: every answer equally often."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from exgra_med.data.phantom.families import FAMILIES, Candidate, Family
from exgra_med.data.phantom.scene import SPLITS, Scene
from exgra_med.data.phantom.text import EXTENDED, WORDINGS

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
            for _ in range(family.tickets)
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
