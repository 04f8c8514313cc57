"""The nine published ExGra-Med checkpoints, and the licences that apply to them."""

from dataclasses import dataclass

VISION = "openai/clip-vit-large-patch14"
"""The vision tower of all of them; it is not in the checkpoints."""

LICENCES = (
    "CC BY-NC 4.0 (ExGra-Med)",
    "LLaMA licence, research only (language model)",
    "OpenAI terms, no competing use (instruction data written by GPT-4)",
    "PMC-15M and the VQA sets: the terms of each (images)",
    "MIT (CLIP)",
)
"""The licences a checkpoint inherits, from its own to those of its sources."""

NOTICE = "Research use only. Nothing this model writes is clinical advice."


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """A checkpoint on the hub.

    `revision` is the commit a download is pinned to; none has been verified so far, so the newest
    is taken unless the caller names one.
    """

    name: str
    stage: str
    data_share: str
    connector: str
    purpose: str
    revision: str | None = None

    @property
    def hub_name(self) -> str:
        """Owner and name."""
        return f"MERGE-Group/{self.name}"


_INSTRUCT, _ALIGNED, _FINE = "instruction tuning", "instruction tuning + alignment", "fine-tuning"
_SOURCE = "a start for fine-tuning on"
_BASELINE, _WITH_GRAPHS = "baseline of the data study, no graphs", "the data study with graphs"

PUBLISHED_CHECKPOINTS = (
    PublishedCheckpoint("llava-med-10", _INSTRUCT, "10 %", "none", _BASELINE),
    PublishedCheckpoint("llava-med-40", _INSTRUCT, "40 %", "none", _BASELINE),
    PublishedCheckpoint("exgra-med-10", _ALIGNED, "10 %", "none", _WITH_GRAPHS),
    PublishedCheckpoint("exgra-med-40", _ALIGNED, "40 %", "none", _WITH_GRAPHS),
    PublishedCheckpoint("exgra-med", _ALIGNED, "100 %", "none", f"{_SOURCE} any VQA set; chat"),
    PublishedCheckpoint("exgra-med-dci", _ALIGNED, "100 %", "dci", f"{_SOURCE} any VQA set; chat"),
    PublishedCheckpoint("exgra-med-dci-vqa-rad", _FINE, "VQA-RAD", "dci", "answers on radiology"),
    PublishedCheckpoint("exgra-med-dci-slake", _FINE, "SLAKE", "dci", "answers on CT, MRI, X-ray"),
    PublishedCheckpoint("exgra-med-dci-pathvqa", _FINE, "PathVQA", "dci", "answers on pathology"),
)


def published_checkpoint(name: str) -> PublishedCheckpoint | None:
    """The published checkpoint of that name, with or without its owner."""
    return next(
        (each for each in PUBLISHED_CHECKPOINTS if name in (each.name, each.hub_name)), None
    )
