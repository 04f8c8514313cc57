"""Clinical measures of reports by the package RadEval (Delbrouck et al. 2025), where installed.

    values = radeval_values(["radgraph", "f1chexbert"], references, reports)

RadEval fetches the models of its measures from the hub, under their own licences, and runs them on
this machine; no report leaves it. Measures that ask a service, or run code of the hub, are not
taken: RadEval itself has them.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exgra_med.errors import ScoreError
from exgra_med.evaluation.measures import Measure
from exgra_med.plugins import import_extra

Values = NDArray[np.float64]

_PER_REPORT: dict[str, dict[str, str]] = {
    "radgraph": {
        "radgraph_simple": "RadGraph F1, entities",
        "radgraph_partial": "RadGraph F1, entities with a relation",
        "radgraph_complete": "RadGraph F1, entities and relations",
    },
    "ratescore": {"ratescore": "RaTEScore"},
    "bertscore": {"bertscore": "BERTScore"},
    "radeval_bertscore": {"radeval_bertscore": "RadEval BERTScore"},
    "temporal": {"temporal_f1": "temporal F1"},
    "bleu": {"bleu": "BLEU-4 by RadEval"},
    "rouge": {"rougeL": "ROUGE-L by RadEval"},
}
"""Measure of RadEval -> its values of each report -> label."""
_CORPUS: dict[str, dict[str, str]] = {
    "f1chexbert": {
        "f1chexbert_all_micro_f1": "CheXbert F1, 14 labels, micro",
        "f1chexbert_all_macro_f1": "CheXbert F1, 14 labels, macro",
        "f1chexbert_5_micro_f1": "CheXbert F1, 5 labels, micro",
        "f1chexbert_5_macro_f1": "CheXbert F1, 5 labels, macro",
    },
    "f1radbert_ct": {
        "f1radbert_ct_micro_f1": "RadBERT-CT F1, 18 labels, micro",
        "f1radbert_ct_macro_f1": "RadBERT-CT F1, 18 labels, macro",
    },
    "srrbert": {"srrbert_weighted_f1": "SRR-BERT F1, weighted by label"},
}
"""Measure -> its values of all reports together, of which RadEval gives no part -> label."""
NAMES: tuple[str, ...] = (*_PER_REPORT, *_CORPUS)
_NOT_TAKEN = {
    "green": "it runs code of the hub",
    "crimson": "it needs a model of its own or a service",
    "mammo_green": "it sends the reports to a service",
    "radfact_ct": "it sends the reports to a service",
    "radcliq": "it is no mean of reports",
    "radgraph_radcliq": "it is a part of RadCliQ",
}
# Its models read no text of nothing; such a report is known to be worth 0.
_NOTHING = "."


def check_names(names: Sequence[str]) -> None:
    """Refuse what cannot be measured, before anything is asked.

    Raises:
        ScoreError: an unknown measure, or one that is not taken.
        MissingExtraError: RadEval is not installed.
    """
    for name in names:
        if name in _NOT_TAKEN:
            raise ScoreError(
                f"The measure {name!r} of RadEval is not taken: {_NOT_TAKEN[name]}.",
                "Give the stored answers to RadEval itself.",
            )
        if name not in NAMES:
            raise ScoreError(
                f"There is no measure {name!r} of RadEval.", f"Known: {', '.join(NAMES)}."
            )
    if names:
        import_extra("radeval", "The option --radeval", "reports")


def radeval_measures() -> list[Measure]:
    """Every measure that may be asked for, with its aggregation in the label."""
    found = []
    for parts, how in ((_PER_REPORT, "mean of reports"), (_CORPUS, "corpus")):
        for labels in parts.values():
            found += [Measure(key, f"{label}, {how}", "all") for key, label in labels.items()]
    return found


def radeval_version() -> str:
    """Version of the installed package."""
    return version("radeval")


def radeval_values(
    names: Sequence[str], references: Sequence[str], reports: Sequence[str]
) -> dict[str, Values | float]:
    """Measure -> one value a report, from 0 to 1, or one value of all reports.

    An empty report is worth 0 where reports are scored one by one; where they are scored together
    RadEval is given a full stop in its place.

    Raises:
        ScoreError: see `check_names`, or RadEval fails, such as where a model is not at hand.
        MissingExtraError: RadEval is not installed.
    """
    check_names(names)
    radeval = import_extra("radeval", "The option --radeval", "reports")
    told = np.array([bool(each.strip()) for each in reports])
    found: dict[str, Values | float] = {}
    for name in dict.fromkeys(names):
        is_single = name in _PER_REPORT
        pairs = [
            (reference, report if report.strip() else _NOTHING)
            for reference, report in zip(references, reports, strict=True)
            if report.strip() or not is_single
        ]
        given = {"refs": [each for each, _ in pairs], "hyps": [each for _, each in pairs]}
        result: dict[str, Any] = {}
        try:
            if pairs:
                scorer = radeval.RadEval([name], per_sample=is_single, show_progress=False)
                result = scorer(**given)
            for key in (_PER_REPORT if is_single else _CORPUS)[name]:
                if is_single:
                    values = np.zeros(len(reports))
                    if pairs:
                        values[told] = np.asarray(result[key], dtype=np.float64)
                    found[key] = values
                else:
                    found[key] = float(result[key])
        except Exception as error:
            # Whatever its models raise, the user can only mend it there.
            told_by = " ".join(str(error).split())
            raise ScoreError(
                f"RadEval cannot compute {name!r}: {type(error).__name__}: {told_by}",
                "The answers are kept. RadEval fetches the models of its measures from the hub.",
            ) from error
    return found
