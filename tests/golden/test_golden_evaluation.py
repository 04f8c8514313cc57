"""The legacy scorers equal the published scripts, item by item and in the printed tables."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from exgra_med.errors import ScoreError
from exgra_med.evaluation import metrics
from exgra_med.evaluation.answers import read_candidates, read_predictions, read_reference
from exgra_med.evaluation.metrics import published_words
from exgra_med.evaluation.score import score_files, score_vqa

DATA = Path(__file__).parent / "data" / "evaluation"
PER_ITEM = json.loads((DATA / "per_item.json").read_text(encoding="utf-8"))
AGGREGATE = json.loads((DATA / "aggregate.json").read_text(encoding="utf-8"))
CANDIDATES = DATA / "made_up" / "candidate.json"
SCORER = {"run_eval.py": "legacy", "run_eval_pvqa.py": "legacy-pathvqa"}
PRINTED = {
    "exact match score": "open_exact_match",
    "f1 score": "open_f1",
    "precision": "open_precision",
    "recall": "open_recall",
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
    assert published_words(prediction) == item["norm_pred_once"]
    assert published_words(reference) == item["norm_ref_once"]
    assert published_words(published_words(prediction)) == item["norm_pred_twice"]
    assert published_words(published_words(reference)) == item["norm_ref_twice"]
    assert metrics.published_closed_hit(prediction, reference) == item["closed_hit_run_eval"]
    dropped = None if item["closed_run_eval_pvqa"] == "SKIPPED" else item["closed_run_eval_pvqa"]
    assert metrics.published_closed_hit_pathvqa(prediction, reference) == dropped
    overlap = metrics.published_overlap(prediction, reference)
    assert overlap == (item["exact"], item["f1"], item["precision"], item["recall"])
    candidates = metrics.PublishedCandidates(PER_ITEM["candidates"]["0"])
    assert candidates.hit(prediction, reference) == item["open_hit"]
    bleu = metrics.published_bleu(prediction, reference)
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
        assert float(f"{result['scores'][name]['value']:g}") == value
    counts = re.search(r"num_open (\d+) \|\| num_close (\d+)", AGGREGATE[key]["stdout"])
    assert counts is not None
    printed = tuple(int(number) for number in counts.groups())
    counted = (result["num_open"], result["scores"]["closed_accuracy"]["count"])
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
        assert result["scores"]["open_recall"]["value"] is None
        assert result["scores"]["average"]["value"] is None
        assert result["scores"]["closed_accuracy"]["value"] == 100.0
    elif "int_answer" in key:
        assert result["oddities"] == {"reference_not_text": 1}
        assert result["scores"]["open_recall"]["value"] == 0.0
    else:
        assert result["oddities"]["pathvqa_answer_type"] == 67
        assert float(f"{result['scores']['open_recall']['value']:g}") == 77.1277


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
            metrics.published_overlap(*parts(each)).recall
            for each in pair
            if each["answer_type"] == "OPEN"
        ]
        hits = [
            metrics.published_closed_hit(*parts(each))
            for each in pair
            if each["answer_type"] == "CLOSED"
        ]
        expected = item["metrics_when_paired_with_item_5"]
        assert 100 * sum(recalls) / len(recalls) == pytest.approx(expected["recall"], abs=1e-12)
        assert (100 * sum(hits) / len(hits) if hits else 0.0) == expected["accuracy"]


def _training_metric(types: list[str], items: list[dict[str, Any]]) -> dict[str, Any]:
    """Our score of what the published metric of fine-tuning saw, with these types."""
    questions, predictions = [], []
    for number, (kind, item) in enumerate(zip(types, items, strict=True)):
        reference = item["decoded_label"].partition("Assistant: ")[2].split("\n")[0]
        talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": reference}]
        questions.append({"id": number, "answer_type": kind, "conversations": talk})
        text = item["decoded_prediction"].split("###")[0]
        predictions.append({"question_id": number, "text": text})
    return {"questions": questions, "predictions": predictions}


def _score(folder: Path, case: dict[str, Any]) -> dict[str, float | None]:
    (folder / "gt.json").write_text(json.dumps(case["questions"]), encoding="utf-8")
    lines = "".join(json.dumps(each) + "\n" for each in case["predictions"])
    (folder / "pred.jsonl").write_text(lines, encoding="utf-8")
    result = score_files(
        folder / "pred.jsonl", folder / "gt.json", "legacy", num_bootstrap_samples=0
    )
    return {name: score["value"] for name, score in result["scores"].items()}


def test_the_validation_metric_of_a_whole_call_and_where_it_crashed(tmp_path: Path) -> None:
    golden = json.loads((DATA / "compute_metrics.json").read_text(encoding="utf-8"))
    items, results = golden["items"], golden["results"]
    types = [item["answer_type"] for item in items]
    scores = _score(tmp_path, _training_metric(types, items))
    # The second call took the types of another split, by the order of calls; ours belong to the
    # records, so every call is the first.
    for call in (results["calls"][0], results["calls"][2]):
        assert scores["open_recall"] == pytest.approx(call["recall"], abs=1e-12)
        assert scores["closed_accuracy"] == call["accuracy"]
        assert scores["average"] == pytest.approx(call["average"], abs=1e-12)
    assert results["closed_only"].startswith("ZeroDivisionError")
    closed = _score(tmp_path, _training_metric(["CLOSED"] * 5, items[:5]))
    assert closed["open_recall"] is None and closed["average"] is None
    assert closed["closed_accuracy"] == scores["closed_accuracy"]
    assert results["label_without_Assistant"].startswith("ValueError")
    # Our references are records, not decoded labels: there is no marker that could be missing.
    case = _training_metric(["OPEN"], items[5:6])
    case["questions"][0]["conversations"][1]["value"] = "liver"
    assert _score(tmp_path, case)["open_recall"] == 100.0


MODALITIES = "made_up_rad/run_eval_modalities.py"


@pytest.mark.parametrize(("place", "organ"), enumerate(("made_up_rad", "CHEST", "HEAD", "ABD")))
def test_the_tables_of_the_script_for_modalities_are_equal(place: int, organ: str) -> None:
    questions = read_reference(DATA / "made_up" / "gt.json").questions
    predictions = read_predictions(DATA / "made_up" / "pred.jsonl").predictions
    # The golden run gave the organs to the questions in turn.
    rows = range(len(questions)) if not place else range(place - 1, len(questions), 3)
    result = score_vqa(
        [predictions[row] for row in rows],
        [questions[row] for row in rows],
        "legacy",
        candidates=read_candidates(CANDIDATES),
        num_bootstrap_samples=0,
    )
    _, printed = re.split(rf"^ {organ}$", AGGREGATE[MODALITIES]["stdout"], flags=re.MULTILINE)
    printed = printed.split("========")[0]
    expected = _table(printed)
    assert len(expected) == 10
    for name, value in expected.items():
        assert float(f"{result['scores'][name]['value']:g}") == value
    shown = dict(re.findall(r"^(?:yes/no )?(tp|fp|tn|fn|precision|recall|f1)\s+(\S+)$",
                            printed.split("yes/no accuracy")[1], re.MULTILINE))  # fmt: skip
    assert len(shown) == 7
    for name, value in shown.items():
        assert float(f"{result['yes_no'][name]:g}") == float(value)


def test_a_folder_without_a_data_set_s_name_and_a_bare_file_name_are_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert AGGREGATE["made_up/run_eval_modalities.py"]["rc"] == 1
    assert AGGREGATE["edge/bare_gt_filename/run_eval.py"]["rc"] == 1
    monkeypatch.chdir(DATA / "made_up")
    bare = score_files(Path("pred.jsonl"), Path("gt.json"), "legacy", num_bootstrap_samples=0)
    whole = _table(AGGREGATE["made_up/run_eval.py"]["stdout"])
    assert float(f"{bare['scores']['open_recall']['value']:g}") == whole["open_recall"]
