"""The legacy scorers equal the published scripts, item by item and in the printed tables."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from exgra_med.errors import ScoreError
from exgra_med.evaluation.metrics import legacy, legacy_pathvqa
from exgra_med.evaluation.metrics.legacy_words import clean
from exgra_med.evaluation.score import score_files

DATA = Path(__file__).parent / "data" / "evaluation"
PER_ITEM = json.loads((DATA / "per_item.json").read_text(encoding="utf-8"))
AGGREGATE = json.loads((DATA / "aggregate.json").read_text(encoding="utf-8"))
CANDIDATES = DATA / "made_up" / "candidate.json"
SCORER = {"run_eval.py": "legacy", "run_eval_pvqa.py": "legacy-pathvqa"}
PRINTED = {
    "exact match score": "exact_match",
    "f1 score": "f1",
    "precision": "precision",
    "recall": "recall",
    "bleu_score": "bleu",
    "bleu_score_1": "bleu_1",
    "bleu_score_2": "bleu_2",
    "bleu_score_3": "bleu_3",
    "open accuracy": "open_accuracy",
    "yes/no accuracy": "closed_accuracy",
}


@pytest.mark.parametrize("item", PER_ITEM["items"], ids=lambda item: str(item["id"]))
def test_every_value_of_every_item_is_equal(item: dict[str, Any]) -> None:
    prediction, reference = item["prediction"], item["reference"]
    assert clean(prediction) == item["norm_pred_once"]
    assert clean(reference) == item["norm_ref_once"]
    assert clean(clean(prediction)) == item["norm_pred_twice"]
    assert clean(clean(reference)) == item["norm_ref_twice"]
    assert legacy.closed_hit(prediction, reference) == item["closed_hit_run_eval"]
    dropped = None if item["closed_run_eval_pvqa"] == "SKIPPED" else item["closed_run_eval_pvqa"]
    assert legacy_pathvqa.closed_hit(prediction, reference) == dropped
    overlap = legacy.overlap(prediction, reference)
    assert overlap == (item["exact"], item["f1"], item["precision"], item["recall"])
    candidates = legacy.Candidates(PER_ITEM["candidates"]["0"])
    assert candidates.hit(prediction, reference) == item["open_hit"]
    bleu = legacy.bleu(prediction, reference)
    for name, value in bleu.items():
        assert value == item[name.replace("bleu", "bleu_score")]


def _table(printed: str) -> dict[str, float]:
    rows = re.findall(r"^(\D[^\n]*?(?:_\d)?)\s{2,}([\d.e+-]+)$", printed, re.MULTILINE)
    return {PRINTED[name]: float(value) for name, value in rows if name in PRINTED}


def _files(case: str) -> tuple[Path, Path]:
    if case == "made_up_pvqa_types":
        return DATA / "made_up" / "pred.jsonl", DATA / "made_up" / "gt_pvqa_types.json"
    return DATA / case / "pred.jsonl", DATA / case / "gt.json"


FINISHED = [key for key, value in AGGREGATE.items() if value["rc"] == 0 and "modalities" not in key]
CRASHED = [
    key
    for key, value in AGGREGATE.items()
    if value["rc"] and "modalities" not in key and "bare" not in key
]


@pytest.mark.parametrize("key", FINISHED)
def test_every_printed_table_is_equal(key: str) -> None:
    case, script = key.rsplit("/", 1)
    result = score_files(*_files(case), SCORER[script], CANDIDATES, num_bootstrap_samples=0)
    expected = _table(AGGREGATE[key]["stdout"])
    assert len(expected) == (10 if script == "run_eval.py" else 6)
    for name, value in expected.items():
        assert float(f"{result['metrics'][name]:g}") == value
    counts = re.search(r"num_open (\d+) \|\| num_close (\d+)", AGGREGATE[key]["stdout"])
    assert counts is not None
    printed = tuple(int(number) for number in counts.groups())
    counted = (result["num_open"], result["denominators"]["closed_accuracy"])
    # The PathVQA script prints its two counts the wrong way round.
    assert printed == (counted if script == "run_eval.py" else counted[::-1])


@pytest.mark.parametrize("key", CRASHED)
def test_where_the_script_crashed_there_is_a_correction_or_a_clear_error(key: str) -> None:
    case, script = key.rsplit("/", 1)

    def score() -> dict[str, Any]:
        return score_files(*_files(case), SCORER[script], CANDIDATES, num_bootstrap_samples=0)

    if "id_mismatch" in key:
        with pytest.raises(ScoreError, match="No prediction has the id"):
            score()
        return
    result = score()
    if "closed_only" in key:
        assert result["metrics"]["recall"] is None
        assert result["metrics"]["average"] is None
        assert result["metrics"]["closed_accuracy"] == 100.0
    elif "int_answer" in key:
        assert result["oddities"] == {"reference_not_text": 1}
        assert result["metrics"]["recall"] == 0.0
    else:
        assert result["oddities"]["pathvqa_answer_type"] == 67
        assert float(f"{result['metrics']['recall']:g}") == 77.1277


def test_the_validation_metric_of_the_published_fine_tuning_is_legacy_on_cut_text() -> None:
    golden = json.loads((DATA / "compute_metrics.json").read_text(encoding="utf-8"))
    items = golden["items"]

    def parts(item: dict[str, Any]) -> tuple[str, str]:
        label = item["decoded_label"]
        # Cut at the first newline behind the first "Assistant", as published.
        reference = label[label.index("Assistant") + len("Assistant: ") :].split("\n")[0]
        return item["decoded_prediction"].split("###")[0], reference

    liver = items[5]
    for item in items:
        pair = [item, liver]
        recalls = [
            legacy.overlap(*parts(each)).recall for each in pair if each["answer_type"] == "OPEN"
        ]
        hits = [legacy.closed_hit(*parts(each)) for each in pair if each["answer_type"] == "CLOSED"]
        expected = item["metrics_when_paired_with_item_5"]
        assert 100 * sum(recalls) / len(recalls) == pytest.approx(expected["recall"], abs=1e-12)
        assert (100 * sum(hits) / len(hits) if hits else 0.0) == expected["accuracy"]
