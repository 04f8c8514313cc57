"""Published evaluation protocols, one file a family: what the field's numbers are made of.

A protocol of another package is an entry point of the group `exgra_med.protocols`.
"""

from exgra_med.errors import ScoreError
from exgra_med.evaluation.protocols.protocol import Protocol
from exgra_med.plugins import Registry

_HERE = "exgra_med.evaluation.protocols"
PROTOCOLS = Registry(
    "protocol",
    "exgra_med.protocols",
    {
        "strict": f"{_HERE}.strict:STRICT",
        "exgra-med": f"{_HERE}.llava_med:EXGRA_MED",
        "llava-med": f"{_HERE}.llava_med:LLAVA_MED",
        "llava-med-pathvqa": f"{_HERE}.llava_med:LLAVA_MED_PATHVQA",
        "medgemma": f"{_HERE}.medgemma:MEDGEMMA",
        "medevalkit": f"{_HERE}.medevalkit:MEDEVALKIT",
        "medevalkit-slake": f"{_HERE}.medevalkit:MEDEVALKIT_SLAKE",
        "medevalkit-pathvqa": f"{_HERE}.medevalkit:MEDEVALKIT_PATHVQA",
        "lmms-eval": f"{_HERE}.lmms_eval:LMMS_EVAL",
        "lmms-eval-zh": f"{_HERE}.lmms_eval:LMMS_EVAL_ZH",
        "vlmevalkit": f"{_HERE}.vlmevalkit:VLMEVALKIT",
        "strict-choices": f"{_HERE}.choice_protocols:STRICT_CHOICES",
        "omnimedvqa": f"{_HERE}.choice_protocols:OMNIMEDVQA_AUTHORS",
        "medevalkit-omnimedvqa": f"{_HERE}.choice_protocols:OMNIMEDVQA_MEDEVALKIT",
        "pmc-vqa-td": f"{_HERE}.choice_protocols:PMC_VQA_TD",
        "pmc-vqa-te": f"{_HERE}.choice_protocols:PMC_VQA_TE",
        "medevalkit-pmc-vqa": f"{_HERE}.choice_protocols:PMC_VQA_MEDEVALKIT",
        "medxpertqa": f"{_HERE}.choice_protocols:MEDXPERTQA_AUTHORS",
        "medevalkit-medxpertqa": f"{_HERE}.choice_protocols:MEDXPERTQA_MEDEVALKIT",
        "mmmu": f"{_HERE}.choice_protocols:MMMU_AUTHORS",
        "lmms-eval-mmmu": f"{_HERE}.choice_protocols:MMMU_LMMS_EVAL",
        "medevalkit-mmmu": f"{_HERE}.choice_protocols:MMMU_MEDEVALKIT",
        "vlmevalkit-mmmu": f"{_HERE}.choice_protocols:MMMU_VLMEVALKIT",
        "vlmevalkit-choices": f"{_HERE}.choice_protocols:CHOICES_VLMEVALKIT",
    },
    ScoreError,
    Protocol,
)
"""Name -> protocol, in the order of the tables."""


def protocols(dataset: str | None = None) -> list[Protocol]:
    """Every protocol, or those that are stated for a data set.

    Raises:
        ScoreError: a protocol of another package cannot be used.
    """
    known = [PROTOCOLS.find(name) for name in PROTOCOLS.names()]
    return [each for each in known if dataset is None or dataset in each.datasets]
