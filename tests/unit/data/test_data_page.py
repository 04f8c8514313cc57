"""The page of a prepared folder."""

import base64
import hashlib
import re
from pathlib import Path

from exgra_med.data.prepare import prepare
from exgra_med.data.records import open_prepared
from exgra_med.evaluation.report import data_page as pages
from exgra_med.evaluation.report.data_page import data_page

SAMPLE = open_prepared("bundled:vqa-rad-sample")


def test_the_page_is_self_contained_and_escaped(rad: Path, tmp_path: Path, change_rad) -> None:
    evil = "<script>alert(1)</script><img src=http://example.org/x.png>"
    change_rad(0, question=evil, answer_type="OPEN", answer=evil)
    page = data_page(prepare("vqa-rad", rad, tmp_path / "out"))
    assert "lazy" not in page and "content-visibility:" not in page
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page
    assert "<img src=http" not in page
    assert "&lt;script&gt;" in page and "data:image/jpeg;base64" in page


def test_the_page_says_what_to_know_before_training(rad, tmp_path, change_rad) -> None:
    change_rad(0, answer=" ")
    page = data_page(prepare("vqa-rad", rad, tmp_path / "out"))
    assert "2 of 2 test images are in train too." in page
    assert "1 rows were left out: empty answer" in page
    sample = data_page(SAMPLE)
    assert "test images are in train" not in sample and "left out" not in sample
    shown = sample.partition("What is in train")[2].partition("commonest answers")[2]
    counts = re.findall(r"<span>([\d,]+)</span></li>", shown.partition("</figure>")[0])
    assert len(counts) == 13 and sum(map(int, counts)) == 198
    assert "Licence: CC0 1.0." in sample


def test_each_picture_stands_once_with_all_its_questions(monkeypatch) -> None:
    page = data_page(SAMPLE)
    records = [record for split in SAMPLE.splits for record in SAMPLE.records(split)]
    rows = re.findall(r'<li data-split="(\w+)" data-type="(\w+)">', page)
    assert len(rows) == len(records) == 336
    assert page.count("<img") == len({record.image_group for record in records}) == 48
    assert sum(split == "test" and kind == "OPEN" for split, kind in rows) == 22
    monkeypatch.setattr(pages, "MAX_PICTURES", 5)
    page = data_page(SAMPLE)
    assert page.count("<img") == 5 and "5 of 48 images, drawn at random" in page
