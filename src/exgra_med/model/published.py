"""Published checkpoints, what their authors claim of them, and the licences that apply.

Nine of ExGra-Med, ten of S-Chain (five of them start from LLaVA-Med), and LLaVA-Med v1.5.
"""

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

PROVENANCE = "import.json"
"""What an imported checkpoint has beside its weights: where it came from."""
NOTICE = "Research use only. Nothing this model writes is clinical advice."


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """A number that the authors of a checkpoint publish, and how it was counted."""

    dataset: str
    """As in a manifest."""
    protocol: str
    """A scorer, as `results.json` names it."""
    measure: str
    value: str
    """In the unit of the measure, with the decimals that were published."""
    source: str
    split: str = "test"
    questions: int | None = None
    """How many were counted, where that is known."""


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
    repository: str = ""
    """Owner and name on the hub; of ExGra-Med's own where absent."""
    folder: str = ""
    """Of the repository, where it holds several checkpoints."""
    claims: tuple[PublishedScore, ...] = ()
    no_claims: str = ""
    """Why there is none, where there is none."""
    is_importable: bool = True
    """Whether its layout is the one that `checkpoint import` reads."""

    @property
    def hub_name(self) -> str:
        """Owner and name."""
        return self.repository or f"MERGE-Group/{self.name}"

    @property
    def where(self) -> str:
        """Its repository, and its folder there."""
        return f"{self.hub_name}/{self.folder}".rstrip("/")

    @property
    def how_to_use(self) -> str:
        """What a person does with it, since none can be read as it is published."""
        import_it = (
            f"exgra-med checkpoint import {{}} --vision {VISION} --out checkpoints/{self.name}"
        )
        if self.folder:
            return (
                f"Download that folder (hf download {self.hub_name} --include '{self.folder}/*' "
                f"--local-dir FOLDER), then: {import_it.format(f'FOLDER/{self.folder}')}"
            )
        if not self.is_importable:
            return (
                "Let the software that it was published with answer, and score its file: "
                "exgra-med evaluate score ANSWERS REFERENCE"
            )
        return f"Convert it first: {import_it.format(self.name)}"


_INSTRUCT, _ALIGNED, _FINE = "instruction tuning", "instruction tuning + alignment", "fine-tuning"
_SOURCE = "a start for fine-tuning on"
_BASELINE, _WITH_GRAPHS = "baseline of the data study, no graphs", "the data study with graphs"
_START = "Its authors give scores of models that were fine-tuned from it, and none of it."


def _fine_tuned(
    dataset: str, value: str, questions: int | None, protocol: str
) -> tuple[PublishedScore]:
    """What the paper's row "ExGra-Med + DCI" says of a data set."""
    source = "arXiv 2410.02615v4, second-hand; that it is this checkpoint is nowhere said"
    return (PublishedScore(dataset, protocol, "average", value, source, questions=questions),)


_OF_EXGRA_MED = (
    PublishedCheckpoint("llava-med-10", _INSTRUCT, "10 %", "none", _BASELINE, no_claims=_START),
    PublishedCheckpoint("llava-med-40", _INSTRUCT, "40 %", "none", _BASELINE, no_claims=_START),
    PublishedCheckpoint("exgra-med-10", _ALIGNED, "10 %", "none", _WITH_GRAPHS, no_claims=_START),
    PublishedCheckpoint("exgra-med-40", _ALIGNED, "40 %", "none", _WITH_GRAPHS, no_claims=_START),
    PublishedCheckpoint(
        "exgra-med", _ALIGNED, "100 %", "none", f"{_SOURCE} any VQA set; chat", no_claims=_START
    ),
    PublishedCheckpoint(
        "exgra-med-dci", _ALIGNED, "100 %", "dci", f"{_SOURCE} any VQA set; chat", no_claims=_START
    ),
    PublishedCheckpoint(
        "exgra-med-dci-vqa-rad",
        _FINE,
        "VQA-RAD",
        "dci",
        "answers on radiology",
        claims=_fine_tuned("vqa-rad", "75.25", 451, "legacy"),
    ),
    PublishedCheckpoint(
        "exgra-med-dci-slake",
        _FINE,
        "SLAKE",
        "dci",
        "answers on CT, MRI, X-ray",
        claims=_fine_tuned("slake", "85.23", 1061, "legacy"),
    ),
    PublishedCheckpoint(
        "exgra-med-dci-pathvqa",
        _FINE,
        "PathVQA",
        "dci",
        "answers on pathology",
        claims=_fine_tuned("pathvqa", "64.82", None, "legacy-pathvqa"),
    ),
)

# README of leduckhai/S-Chain, commit a76a678e: each is a folder of the hub's leduckhai/S-Chain.
_TRAINED = {
    "base": "final answer (Q4) alone",
    "gpt-cot": "synthetic chain of thought by GPT",
    "gpt-schain": "S-Chain's chain of thought",
    "gpt-medrag-only": "retrieved texts, final answer (Q4) alone",
    "gpt-medrag-schain": "retrieved texts and S-Chain's chain of thought",
}
_OF_S_CHAIN = tuple(
    PublishedCheckpoint(
        f"{start}-{kind}",
        _FINE,
        "S-Chain",
        "none",
        f"dementia on MRI: {trained}",
        repository="leduckhai/S-Chain",
        folder=f"{start}-{kind}",
        no_claims="Its authors' scores are in arXiv 2510.22728, which was not read; the README has "
        "none.",
    )
    for start in ("exgra-med", "llava-med")
    for kind, trained in _TRAINED.items()
)

PUBLISHED_CHECKPOINTS = (
    *_OF_EXGRA_MED,
    *_OF_S_CHAIN,
    PublishedCheckpoint(
        "llava-med-v1.5-mistral-7b",
        _INSTRUCT,
        "100 %",
        "none",
        "chat about figures of articles; a start for VQA",
        repository="microsoft/llava-med-v1.5-mistral-7b",
        no_claims="Its authors show a figure of chat scores by GPT-4, and no VQA score of it.",
        is_importable=False,
    ),
)


def published_checkpoint(name: str) -> PublishedCheckpoint | None:
    """The published checkpoint of that name, with or without its owner."""
    return next(
        (each for each in PUBLISHED_CHECKPOINTS if name in (each.name, each.where)),
        None,
    )
