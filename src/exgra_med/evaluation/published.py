"""Published VQA numbers, to stand beside a legacy score of the same data set and never instead.

Averages of open recall and closed accuracy under the published rules, fine-tuned 7B models, one run
each, no interval. Read from secondary notes on arXiv 2410.02615v4: check the paper before citing.
"""

from dataclasses import dataclass

SOURCE = "arXiv 2410.02615v4, second-hand; one run each, published rules"


@dataclass(frozen=True, slots=True)
class Published:
    """One published average in percent."""

    model: str
    average: float


_VQA_RAD = (
    ("LLaVA-Med, all data", 72.64),
    ("LLaVA-Med, 10 % of the data", 52.39),
    ("ExGra-Med, all data", 74.91),
    ("ExGra-Med with DCI, all data", 75.25),
    ("ExGra-Med, 10 % of the data", 72.52),
)
_SLAKE = (
    ("LLaVA-Med, all data", 83.43),
    ("LLaVA-Med, 10 % of the data", 80.62),
    ("ExGra-Med, all data", 85.46),
    ("ExGra-Med with DCI, all data", 85.23),
    ("ExGra-Med, 10 % of the data", 85.01),
)
_PATHVQA = (
    ("LLaVA-Med, all data", 64.06),
    ("LLaVA-Med, 10 % of the data", 56.15),
    ("ExGra-Med, all data", 63.87),
    ("ExGra-Med with DCI, all data", 64.82),
    ("ExGra-Med, 10 % of the data", 64.34),
)
PUBLISHED: dict[str, tuple[Published, ...]] = {
    name: tuple(Published(model, average) for model, average in rows)
    for name, rows in (("vqa-rad", _VQA_RAD), ("slake", _SLAKE), ("pathvqa", _PATHVQA))
}
"""Data set name, as in a manifest -> published averages."""
