"""Questions after findings that are in a picture and findings that are not, from known truth.

POPE (Li et al. 2023, arXiv 2305.10355) asks a model for objects, half of which are absent. Absent
ones are drawn at random, or are the most frequent of the data set (popular), or those that most
often come together with what is there (adversarial). Here the last kind is also taken from
pictures of the same group, such as modality and region, so that it could be there.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

PRESENT, RANDOM, POPULAR, ADVERSARIAL = "present", "random", "popular", "adversarial"
MOST_PRESENT = 3
"""Present findings of one picture that are asked, as in POPE; the first ones by name."""


@dataclass(frozen=True)
class Truth:
    """What is known of a picture."""

    image: str
    findings: frozenset[str]
    """All that are there, of the vocabulary of the data set."""
    group: str
    """Pictures of the same kind, such as `CT/Abdomen`."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Goes into the records."""


@dataclass(frozen=True)
class Asked:
    """One question: is the finding there?"""

    truth: Truth
    finding: str
    kinds: tuple[str, ...]
    """`present`, or how an absent finding was chosen; several ways can choose the same one."""

    @property
    def is_there(self) -> bool:
        """Whether the right answer is yes."""
        return self.kinds == (PRESENT,)


def existence_questions(
    pictures: Sequence[Truth],
    seed: int = 0,
    overlaps: Sequence[Collection[str]] = (),
) -> Iterator[Asked]:
    """Ask for the findings of each picture, and for as many absent ones of each kind.

    A picture without a finding is asked for one of each kind. The choice for a picture depends on
    the seed, its name and all pictures, not on their order.

    Args:
        pictures: of one split; each once.
        seed: of the random kind.
        overlaps: findings of which one may be called by the name of the other; none of them is
            asked as absent where another of them is there.
    """
    frequency = Counter(name for each in pictures for name in each.findings)
    together: Counter[tuple[str, str]] = Counter()
    in_group: dict[str, Counter[str]] = defaultdict(Counter)
    for each in pictures:
        in_group[each.group].update(each.findings)
        together.update((a, b) for a in each.findings for b in each.findings if a != b)
    for each in pictures:
        there = sorted(each.findings)[:MOST_PRESENT]
        for finding in there:
            yield Asked(each, finding, (PRESENT,))
        unsure = {
            name for group in overlaps if not each.findings.isdisjoint(group) for name in group
        }
        absent = sorted(frequency.keys() - each.findings - unsure)
        number = max(1, len(there))
        drawn = random.Random(f"{seed} {each.image}").sample(absent, min(number, len(absent)))
        popular = sorted(absent, key=lambda name: (-frequency[name], name))
        group = in_group[each.group]

        def likely(
            name: str, here: frozenset[str] = each.findings, group: Counter[str] = group
        ) -> tuple[int, int, str]:
            return -sum(together[other, name] for other in here), -group[name], name

        adversarial = sorted((name for name in absent if group[name]), key=likely)
        kinds: dict[str, list[str]] = {}
        for kind, names in ((RANDOM, drawn), (POPULAR, popular), (ADVERSARIAL, adversarial)):
            for name in names[:number]:
                kinds.setdefault(name, []).append(kind)
        for name, own in kinds.items():
            yield Asked(each, name, tuple(own))
