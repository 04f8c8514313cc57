"""One file per data set, from its published files to records."""

from exgra_med.data.sources.source import Source
from exgra_med.errors import DataError
from exgra_med.plugins import Registry

SOURCES = Registry(
    "data set",
    "exgra_med.datasets",
    {
        "vqa-rad": "exgra_med.data.sources.vqa_rad:SOURCE",
        "slake": "exgra_med.data.sources.slake:SOURCE",
        "slake-existence": "exgra_med.data.sources.slake_existence:SOURCE",
        "pathvqa": "exgra_med.data.sources.pathvqa:SOURCE",
        "omnimedvqa": "exgra_med.data.sources.omnimedvqa:SOURCE",
        "pmc-vqa": "exgra_med.data.sources.pmc_vqa:SOURCE",
        "medxpertqa": "exgra_med.data.sources.medxpertqa:SOURCE",
        "kvasir-vqa": "exgra_med.data.sources.kvasir_vqa:SOURCE",
        "vqa-med-2019": "exgra_med.data.sources.vqa_med_2019:SOURCE",
        "llava-med": "exgra_med.data.sources.llava_med:SOURCE",
        "exgra-med": "exgra_med.data.sources.exgra_med:SOURCE",
        "chat-benchmark": "exgra_med.data.sources.chat_benchmark:SOURCE",
        "iu-xray": "exgra_med.data.sources.report_sets:IU_XRAY",
        "mimic-cxr": "exgra_med.data.sources.report_sets:MIMIC_CXR",
        "shards": "exgra_med.data.sources.shards:SOURCE",
        "custom": "exgra_med.data.sources.custom:SOURCE",
    },
    DataError,
    Source,
)
"""Name on the command line -> its `Source`."""
