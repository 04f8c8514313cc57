"""Reports: words, findings, intervals over patients, and the page that shows them."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_up_run import SayingEngine, made_up_session
from PIL import Image

from exgra_med.cli.main import app
from exgra_med.data.records import Record, file_sha256, open_prepared, write_records
from exgra_med.errors import DataError, MissingExtraError, ScoreError
from exgra_med.evaluation.answers import question_of
from exgra_med.evaluation.cards import model_card
from exgra_med.evaluation.report import write_report
from exgra_med.evaluation.report.page import marked, report_card
from exgra_med.evaluation.results import read_results
from exgra_med.evaluation.tables import tasks, terminal_table
from exgra_med.evaluation.tasks import reports
from exgra_med.evaluation.tasks.reports import (
    VARIANT,
    baseline_reports,
    bleu_counts,
    bleu_of,
    compare_findings,
    holds_reports,
    report_cluster,
    report_words,
    rouge_l,
    score_report_files,
    score_texts,
)

REFERENCES = (
    "Right apical pneumothorax. No effusion.",
    "The heart is enlarged. Small left effusion. No pneumothorax.",
    "Heart size is normal. The lungs are clear. No effusion or pneumothorax.",
    "Stable cardiomegaly with mild edema. No consolidation.",
    "Bibasilar atelectasis. Pneumonia cannot be excluded.",
    "Left lower lobe consolidation. No pneumothorax.",
)
FLIPPED = (
    "No right apical pneumothorax. Effusion.",
    "The heart is not enlarged. No small left effusion. Pneumothorax.",
    "Heart size is enlarged. The lungs are not clear. Effusion or pneumothorax.",
    "No cardiomegaly, no mild edema. Consolidation.",
    "No bibasilar atelectasis. Pneumonia cannot be excluded.",
    "No left lower lobe consolidation. Pneumothorax.",
)


def record(number: int, answer: str, split: str = "test", **meta: Any) -> Record:
    turns = [
        {"role": "user", "text": "Write the report of these images."},
        {"role": "assistant", "text": answer},
    ]
    images = [f"{number}.png", f"{number}-lateral.png"]
    value = {"id": f"ward/{split}/{number}", "image": images, "turns": turns}
    return Record.model_validate(value | {"meta": {"task": "report"} | meta})


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A prepared folder: 12 studies of 6 patients in test, 6 studies in train."""
    folder = tmp_path / "ward"
    (folder / "images").mkdir(parents=True)
    test = [record(n, REFERENCES[n % 6], group=n // 2) for n in range(12)]
    train = [record(n, REFERENCES[n % 3], "train", group=n) for n in range(20, 26)]
    for each in (*test, *train):
        for name in each.images:
            Image.new("L", (40, 50), 20 * (len(name) % 9)).save(folder / "images" / name)
    splits = {"train": train, "test": test}
    for split, records in splits.items():
        write_records(folder / f"{split}.jsonl", records)
    manifest = {
        "format": 1,
        "dataset": "ward",
        "counts": {split: len(records) for split, records in splits.items()},
        "files": {f"{split}.jsonl": file_sha256(folder / f"{split}.jsonl") for split in splits},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def scores(references: Any, texts: Any, **arguments: Any) -> dict[str, Any]:
    codes = np.arange(len(references))
    return score_texts(list(references), list(texts), codes, **arguments)


def values(references: Any, texts: Any) -> dict[str, float | None]:
    found = scores(references, texts, num_bootstrap_samples=0)
    return {name: each["value"] for name, each in found.items()}


def test_a_flipped_negation_is_seen_where_words_hardly_see_it() -> None:
    found = values(REFERENCES, FLIPPED)
    assert found["corpus_bleu_1"] > 60 and found["mean_rouge_l"] > 60
    assert found["finding_f1"] == 0
    assert found["contradictions"] == 100
    same = values(REFERENCES, REFERENCES)
    assert same["finding_f1"] == same["mean_rouge_l"] == same["corpus_bleu_4"] == 100
    assert same["contradictions"] == 0


def test_shares_of_findings_by_hand() -> None:
    references = ["Cardiomegaly. Edema. No effusion.", "Pneumonia cannot be excluded. Fracture."]
    texts = ["Cardiomegaly. Possible effusion. No edema.", "Pneumonia. No fracture. Mass."]
    assert compare_findings(references[0], texts[0]) == {
        "Cardiomegaly": "hit", "Edema": "opposite", "Pleural effusion": "added",
    }  # fmt: skip
    assert compare_findings(references[1], texts[1]) == {
        "Lung lesion": "added", "Pneumonia": "open", "Fracture": "opposite",
    }  # fmt: skip
    found = values(references, texts)
    # Hits: cardiomegaly. Added: effusion (hedged), mass. Missed: edema, fracture.
    assert found["finding_precision"] == pytest.approx(100 / 3)
    assert found["finding_recall"] == pytest.approx(100 / 3)
    assert found["finding_f1"] == pytest.approx(100 / 3)
    # Decided by both: cardiomegaly, edema, fracture.
    assert found["contradictions"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("reference", "report", "expected"),
    [
        # By the package rouge-score 0.1.2, `rougeL` without stemming, `fmeasure`.
        ("No pneumothorax or pleural effusion.", "Pneumothorax and pleural effusion.", 2 / 3),
        ("The heart is enlarged.", "Heart size is normal, heart is not enlarged.", 0.5),
        ("a b c d e f g", "c d a b x e", 6 / 13),
        ("1.5 cm nodule", "nodule of 1.5 cm", 2 / 3),
        ("", "anything", 0.0),
        ("anything", "", 0.0),
    ],
)
def test_rouge_l_is_that_of_the_package(reference: str, report: str, expected: float) -> None:
    assert rouge_l(report_words(reference), report_words(report)) == pytest.approx(expected)


def test_bleu_by_hand_of_one_report_and_of_a_corpus() -> None:
    counts = np.array([
        bleu_counts("a b c d".split(), "a b x d".split()),
        bleu_counts("e f".split(), "e f g h".split()),
    ])  # fmt: skip
    # 3 of 4 words, 1 of 3 pairs; 2 of 4, 1 of 3.
    assert bleu_of(counts, 1) == pytest.approx([0.75, 0.5])
    assert bleu_of(counts, 2) == pytest.approx([(0.75 / 3) ** 0.5, (0.5 / 3) ** 0.5])
    assert float(bleu_of(counts.sum(axis=0), 2)) == pytest.approx((5 / 8 * 2 / 6) ** 0.5)
    # Sums and means are the same corpus; three words for four are too short.
    assert float(bleu_of(counts.mean(axis=0), 2)) == pytest.approx((5 / 8 * 2 / 6) ** 0.5)
    short = np.array(bleu_counts("a b c d".split(), "a b c".split()))
    assert float(bleu_of(short, 1)) == pytest.approx(np.exp(1 - 4 / 3))
    assert float(bleu_of(np.array(bleu_counts(["a"], [])), 4)) == 0


def test_words_of_every_script_count_and_headings_do_not() -> None:
    assert report_words("Findings: clear. IMPRESSION: normal") == ["clear", "normal"]
    assert report_words("心影增大 Ödem") == ["心", "影", "增", "大", "ödem"]


def test_a_report_that_is_not_there_counts_nothing_and_is_told(ward: Path) -> None:
    whole = values(REFERENCES, REFERENCES)
    half = values(REFERENCES, [*REFERENCES[:3], "", "", ""])
    assert half["mean_rouge_l"] == whole["mean_rouge_l"] / 2
    assert half["finding_recall"] < 100 and half["corpus_bleu_1"] < 70
    answers = ward / "answers.jsonl"
    rows = [{"id": f"ward/test/{n}", "text": REFERENCES[n % 6]} for n in range(10)]
    rows[0]["text"] = "<think>No effusion.</think>"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = score_report_files(answers, ward / "test.jsonl")
    assert found["answer_counts"]["missing"] == 2 and found["answer_counts"]["empty"] == 1
    assert found["scores"]["mean_rouge_l"]["value"] == pytest.approx(75)
    assert "Reports missing or empty: 3" in " ".join(reports.report_notes(found))


def test_intervals_are_over_patients() -> None:
    references = [REFERENCES[n % 6] for n in range(40)]
    texts = [REFERENCES[(n + n // 2 % 3) % 6] for n in range(40)]
    apart = score_texts(references, texts, np.arange(40))["mean_rouge_l"]
    together = score_texts(references, texts, np.arange(40) // 8)["mean_rouge_l"]
    assert apart["value"] == together["value"]
    few = score_texts(references, texts, np.arange(40) // 10)["mean_rouge_l"]
    assert apart["interval"] and together["interval"] and few["interval"] is None
    question = question_of(record(1, "Clear.", group=7))
    assert report_cluster(question).split("\n") == ["1.png", "1-lateral.png", "group 7"]


def test_baselines_give_no_picture_its_own_report() -> None:
    clusters = np.array([0, 0, 1, 2, 2])
    found = baseline_reports(list("abcde"), clusters, ["x y z", "x y", "q"])
    own = dict(zip("abcde", clusters, strict=True))
    assert all(own[text] != code for text, code in zip(found["another_report"], clusters))  # noqa: B905
    assert found["one_for_all"] == ["x y z"] * 5 or found["one_for_all"] == ["x y"] * 5
    assert baseline_reports(["a", "b"], np.array([0, 0]), []) == {}


def evaluated(ward: Path, run: Path, texts: Any = None, radeval: Any = ()) -> Any:
    """The entry of a run whose model writes what a function says of the number of a study."""

    def say(each: Record) -> str | None:
        number = int(each.id.rpartition("/")[2])
        return (texts or (lambda n: FLIPPED[n % 6] if n % 3 else REFERENCES[n % 6]))(number)

    run.mkdir(exist_ok=True)
    session = made_up_session(run, ward, SayingEngine(say), num_bootstrap_samples=200)
    return reports.evaluate(session, radeval)


def test_a_run_tells_its_reports_everywhere(ward: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    entry = evaluated(ward, run)
    assert (run / "predictions/reports/ward/test.jsonl").is_file()
    assert entry.task == "reports" and entry.details["num_images"] == 6
    assert {*entry.details["baselines"]} == {"another_report", "one_for_all"}
    title, columns, rows = terminal_table([entry], tasks()["reports"])
    assert title == "Reports: ward, test" and columns[2] == "95 % interval"
    labels = [row[0] for row in rows]
    both = terminal_table([entry, entry], tasks()["reports"])
    assert [row[0] for row in both[2]] == ["ward, test: score"] * 2
    # How each number is put together stands beside it.
    assert all(label.endswith(("corpus", "mean of reports")) for label in labels)
    (run / "recipe.yaml").write_text(
        f"name: ward\ndata: {{folder: {ward}}}\nmodel: {{start: made-up}}\n", encoding="utf-8"
    )
    page = write_report(run).read_text(encoding="utf-8")
    for text in (
        "Does it contradict the reference?", "Better than without the picture?",
        "<mark>", "contradicts the reference: ", "the same findings", "Without a look",
        "By finding", "reference of another picture",
    ):  # fmt: skip
        assert text in page, text
    assert "Findings contradicted" in (card := model_card(run)) and "Without a look" in card
    rows_of_csv = (run / "scores.csv").read_text(encoding="utf-8")
    assert "ward,test,reports,score,finding_f1" in rows_of_csv
    assert 'ward,test,reports,"baseline another_report, score",mean_bleu_4' in rows_of_csv


def test_what_was_written_is_not_asked_again(ward: Path, tmp_path: Path) -> None:
    evaluated(ward, tmp_path / "run")

    def refuse(_: int) -> str:
        raise AssertionError("asked again")

    evaluated(ward, tmp_path / "run", refuse)


def test_hostile_reports_are_text(ward: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    evaluated(ward, run, lambda n: "<script>alert(1)</script> <mark>x</mark> pneumothorax")
    (run / "recipe.yaml").write_text(f"name: ward\ndata: {{folder: {ward}}}\n", encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_records_that_are_no_reports_are_left_out_or_refused(ward: Path, tmp_path: Path) -> None:
    records = open_prepared(ward).records("test")
    short = record(99, "yes").model_copy(update={"meta": {}})
    assert reports.report_records([*records, short]) == records
    with pytest.raises(DataError, match="--map report=COLUMN"):
        reports.report_records([short])
    mixed = tmp_path / "mixed.jsonl"
    write_records(mixed, [records[0], short])
    with pytest.raises(ScoreError, match="files of their own"):
        holds_reports(mixed)


def test_a_card_says_what_became_of_the_findings() -> None:
    def card(reference: str, report: str) -> Any:
        return report_card(question_of(record(1, reference)), report, None)

    assert card("No effusion.", "Effusion.").kind == "wrong"
    assert card("Edema. Mass.", "Edema.").detail == "missed Lung lesion"
    assert card("Edema. No mass.", "Edema. No mass.").detail == (
        "stated by both: Edema; denied by both: Lung lesion"
    )
    assert card("Edema.", "").mark == "no report"
    assert card("The liver is fine.", "Liver fine.").kind == "unread"


def test_words_that_differ_are_marked() -> None:
    reference, report = marked("No left effusion, clear.", "Findings: Left effusion: clear lungs.")
    assert reference == [("No", True), (" left effusion, clear.", False)]
    assert report == [("Findings: Left effusion: clear ", False), ("lungs.", True)]
    assert marked("a b", "c d") == ([("a b", True)], [("c d", True)])
    assert marked("", "x") == ([], [("x", True)])


class _FakeRadEval:
    """What the adapter needs of RadEval 2: per-report lists, or corpus values."""

    def __init__(self, metrics: list[str], per_sample: bool, show_progress: bool) -> None:
        self.metrics, self.per_sample = metrics, per_sample

    def __call__(self, refs: list[str], hyps: list[str]) -> dict[str, Any]:
        assert all(each.strip() for each in hyps)
        if self.metrics == ["f1chexbert"]:
            assert not self.per_sample
            keys = ("all_micro", "all_macro", "5_micro", "5_macro")
            return {f"f1chexbert_{key}_f1": 0.5 for key in keys}
        if self.metrics == ["ratescore"]:
            raise OSError("no such model on the hub")
        assert self.per_sample
        same = [float(a == b) for a, b in zip(refs, hyps, strict=True)]
        return {f"radgraph_{each}": same for each in ("simple", "partial", "complete")}


@pytest.fixture
def radeval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "radeval", SimpleNamespace(RadEval=_FakeRadEval))  # type: ignore[arg-type]
    monkeypatch.setattr("exgra_med.evaluation.radeval.version", lambda _: "2.2.1")


def test_radeval_scores_beside_the_others_and_stays(
    ward: Path, tmp_path: Path, radeval: None
) -> None:
    run = tmp_path / "run"
    first = evaluated(ward, run, lambda n: REFERENCES[n % 6] if n % 2 else "", ["radgraph"])
    assert first.score(VARIANT, "radgraph_complete").value == 50
    assert first.score(VARIANT, "radgraph_complete").interval is not None
    then = evaluated(ward, run, radeval=["f1chexbert"])
    assert then.score(VARIANT, "radgraph_complete") == first.score(VARIANT, "radgraph_complete")
    assert then.score(VARIANT, "f1chexbert_all_micro_f1").value == 50
    assert then.score(VARIANT, "f1chexbert_all_micro_f1").interval is None
    assert then.details["radeval"] == {"version": "2.2.1", "measures": ["radgraph", "f1chexbert"]}
    labels = [row[0] for row in terminal_table([then], tasks()["reports"])[2]]
    assert "CheXbert F1, 14 labels, micro, corpus" in labels
    # Other answers: what was measured of the earlier ones is gone.
    entry = read_results(run).results[0]
    file = run / entry.answers["questions"]
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [{"id": each["id"], "text": "Clear."} for each in lines]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert "radgraph_complete" not in evaluated(ward, run).scores[VARIANT]


def test_radeval_is_refused_in_one_sentence(radeval: None, monkeypatch: Any) -> None:
    with pytest.raises(ScoreError, match=r"cannot compute 'ratescore': OSError: no such model"):
        scores(REFERENCES, REFERENCES, radeval=["ratescore"])
    with pytest.raises(ScoreError, match="sends the reports to a service"):
        reports.check_names(["radfact_ct"])
    with pytest.raises(ScoreError, match="Known: radgraph, ratescore"):
        reports.check_names(["radgraf"])
    monkeypatch.setitem(sys.modules, "radeval", None)
    with pytest.raises(MissingExtraError, match=r"exgra-med\[reports\]"):
        reports.check_names(["radgraph"])


def test_score_of_a_file_needs_no_model(ward: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = ward / "answers.jsonl"
    rows = [{"question_id": f"ward/test/{n}", "text": FLIPPED[n % 6]} for n in range(12)]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["evaluate", "score", str(answers), str(ward / "test.jsonl")]
    app([*words], standalone_mode=False)
    told = capsys.readouterr().out
    assert "Findings, F1, corpus" in told and "no clinical truth" in told
    app([*words, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["scores"]["contradictions"]["value"] == 100
    with pytest.raises(Exception, match="short questions"):
        app([*words, "--scorer", "legacy"], standalone_mode=False)
