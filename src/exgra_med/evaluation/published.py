"""Published numbers, to stand beside a score of the same data set and never in one column with it.

They are in `published_numbers.csv`, one a line, each with its metric, its regime (split, training,
who measured it) and its source. Most are second-hand, so look at the source before citing; the
column `checked` says which were read there. The curves of data efficiency are below.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class PublishedNumber:
    """One number of a paper, a model card or a page."""

    dataset: str
    """As in a manifest; empty for a benchmark that is not read here."""
    benchmark: str
    """As its source calls it."""
    model: str
    value: str
    """In percent, with the decimals that were published."""
    metric: str
    """`not said` where the source does not say it."""
    regime: str
    """Split, training and who measured it."""
    questions: str
    """How many were counted, where that is known."""
    source: str
    checked: str
    """`second-hand`, or where it was read."""

    @property
    def protocol(self) -> tuple[str, str, str, str]:
        """What has to be the same for two numbers to be compared."""
        return self.metric, self.regime, self.source, self.checked


with Path(__file__).with_name("published_numbers.csv").open(encoding="utf-8", newline="") as _file:
    NUMBERS = tuple(PublishedNumber(**row) for row in csv.DictReader(_file))


def by_protocol(numbers: Sequence[PublishedNumber]) -> dict[tuple[str, ...], str]:
    """Protocol (metric, regime, source, checked) -> its models with their numbers, in words."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for each in numbers:
        groups.setdefault(each.protocol, []).append(f"{each.model} {each.value}")
    return {protocol: "; ".join(texts) for protocol, texts in groups.items()}


NOT_COMPARABLE = (
    "Each line is a protocol of its own: numbers of different protocols, this run's among them, "
    "cannot be compared directly."
)

CURVE_METRIC = "vqa.legacy.average, scorer published, normaliser published"
"""The score of the curves, as `results.json` would name it: never put together with another one."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What the paper reports for shares of the instruction data, on one data set."""

    title: str
    """The data set, as the paper calls it."""
    source: str
    of: dict[str, tuple[str, dict[float, float]]]
    """Model -> name, and share of the data -> published average in percent."""


CURVES = {
    "vqa-rad": Curves(
        "VQA-RAD",
        "arXiv 2410.02615v4, figure of data efficiency on VQA-RAD, read off second-hand; one run "
        "each, published rules; its ablation table says 74.37 for ExGra-Med at 40 %",
        {
            "exgra-med": ("ExGra-Med (paper)", {0.1: 72.5, 0.4: 73.7, 0.7: 74.6, 1.0: 74.9}),
            "llava-med": ("LLaVA-Med (paper)", {0.1: 52.4, 0.4: 70.8, 0.7: 73.8, 1.0: 72.6}),
        },
    ),
    "slake": Curves(
        "SLAKE",
        "arXiv 2410.02615v4, tables of 10 and 100 % and of ablations (40 %), second-hand; one run "
        "each, published rules",
        {
            "exgra-med": ("ExGra-Med (paper)", {0.1: 85.01, 0.4: 84.99, 1.0: 85.46}),
            "llava-med": ("LLaVA-Med (paper)", {0.1: 80.62, 1.0: 83.43}),
        },
    ),
}
"""Data set -> what is known of it."""


def curves_of(named: Mapping[str, Any] | None) -> list[tuple[str, str, dict[float, float]]]:
    """Of each method whose model has a curve: method, name of the model, share -> average.

    `named`: the section `published` of a study, with `dataset` and `methods` (method -> model).
    """
    if named is None or named["dataset"] not in CURVES:
        return []
    known = CURVES[named["dataset"]].of
    return [(method, *known[model]) for method, model in named["methods"].items() if model in known]


def published_curve(dataset: str, model: str) -> dict[float, float]:
    """Share of the data -> published average in percent; empty where nothing is known."""
    found = curves_of({"dataset": dataset, "methods": {"": model}})
    return dict(found[0][2]) if found else {}
