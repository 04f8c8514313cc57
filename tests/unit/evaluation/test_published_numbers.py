"""Published numbers are whole, have a source each, and never share a line across protocols."""

import re

from exgra_med.evaluation.published import NOT_COMPARABLE, NUMBERS, by_protocol
from exgra_med.evaluation.results import Entry, Score
from exgra_med.evaluation.tasks.vqa import TASK


def test_every_number_has_metric_regime_and_source() -> None:
    assert len(NUMBERS) == 88
    assert len(set(NUMBERS)) == len(NUMBERS)
    for each in NUMBERS:
        assert re.fullmatch(r"\d{1,3}(\.\d{1,2})?", each.value), each
        assert float(each.value) <= 100
        said = (each.benchmark, each.model, each.metric, each.regime, each.source, each.checked)
        assert all(text.strip() == text and text for text in said), each
        assert "same" not in said, each
        assert each.questions == "" or each.questions.isdecimal()


def test_no_number_is_told_twice_in_one_protocol() -> None:
    told = [(each.benchmark, each.model, each.protocol) for each in NUMBERS]
    assert len(set(told)) == len(told)


def entry(dataset: str) -> Entry:
    scores = {name: {"average": Score(value=61.25)} for name in ("strict", "legacy")}
    return Entry(dataset=dataset, split="test", task="vqa", engine={}, scores=scores)


def test_a_report_shows_them_by_protocol_beside_its_own_score() -> None:
    (block,) = TASK.further(entry("vqa-rad"))
    assert block.under.startswith(NOT_COMPARABLE)
    assert "61.2 (strict)" in block.under
    rows = {(row.label, row.small, str(row.cells[1])): row.cells for row in block.table.rows}
    assert len(rows) == len(by_protocol([each for each in NUMBERS if each.dataset == "vqa-rad"]))
    ours = [cells for (label, *_), cells in rows.items() if label.startswith("mean of open recall")]
    assert str(ours[0][0]).startswith("LLaVA-Med, all data 72.64; ")
    # A number of this run is in no row.
    assert not any("61.2" in str(cell) for cells in rows.values() for cell in cells)
    assert all(column.is_text for column in block.table.columns)


def test_a_data_set_that_nobody_published_on_has_no_table() -> None:
    assert TASK.further(entry("mine")) == []
