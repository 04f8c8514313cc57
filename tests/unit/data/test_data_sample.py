from pathlib import Path

import PIL
import pytest

from exgra_med.data.records import open_prepared
from exgra_med.errors import DataError

SAMPLE = open_prepared("bundled:vqa-rad-sample")


def test_the_sample_has_its_images_and_counts() -> None:
    counts = {split: len(SAMPLE.records(split)) for split in SAMPLE.splits}
    assert counts == {"train": 198, "validation": 82, "test": 56} == SAMPLE.manifest["counts"]
    folder = SAMPLE.image_folder(256 * 256)
    images = [{r.images[0] for r in SAMPLE.records(split)} for split in SAMPLE.splits]
    assert [len(part) for part in images] == [28, 12, 8]
    assert len(set.union(*images)) == 48
    for name in set.union(*images):
        assert max(folder.open(name).size) <= 256


def test_every_training_and_validation_answer_is_extended() -> None:
    for split in ("train", "validation"):
        for record in SAMPLE.records(split):
            [extended] = record.extended or []
            assert len(extended) > len(record.answer), record.id
            assert extended[0].isupper() and extended.endswith("."), record.id
    assert not any(record.extended for record in SAMPLE.records("test"))


def test_extended_answers_invent_no_side_and_no_number() -> None:
    for split in ("train", "validation"):
        for record in SAMPLE.records(split):
            said = f"{record.question} {record.answer}".lower()
            [extended] = record.extended or [""]
            words = extended.lower().replace(",", " ").replace(".", " ").split()
            for word in words:
                if word.rstrip("th%").isdigit() or word in ("left", "right", "bilateral"):
                    assert word in said, (record.id, word)
            yes_no = record.answer.lower()
            if yes_no in ("yes", "no") and not extended.startswith("The recorded answer"):
                assert words[0] == yes_no, record.id


def test_the_sample_is_small_and_attributed() -> None:
    files = [path for path in SAMPLE.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000
    assert "CC0" in (SAMPLE.path / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_another_name_lists_what_there_is() -> None:
    with pytest.raises(DataError, match="vqa-rad-sample"):
        open_prepared("bundled:nothing")
    with pytest.raises(DataError):
        open_prepared("bundled:../samples/vqa-rad-sample")


def test_the_sample_can_be_rebuilt(shared: Path, tmp_path: Path) -> None:
    import runpy

    tool = Path(__file__).parents[3] / "tools/build_sample.py"
    answers = tool.with_name("sample_extended_answers.json")
    build = runpy.run_path(str(tool))["build"]
    build(shared / "data/vqa_rad", answers, tmp_path / "sample")
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "ATTRIBUTION.md"):
        assert (tmp_path / "sample" / name).read_bytes() == (SAMPLE.path / name).read_bytes()
    if f"Pillow {PIL.__version__}." in (SAMPLE.path / "ATTRIBUTION.md").read_text():
        assert open_prepared(tmp_path / "sample").fingerprint == SAMPLE.fingerprint


SLAKE = open_prepared("bundled:slake-sample")


def test_the_part_of_slake_has_its_images_and_counts() -> None:
    counts = {split: len(SLAKE.records(split)) for split in SLAKE.splits}
    assert counts == {"train": 768, "validation": 150, "test": 554} == SLAKE.manifest["counts"]
    folder = SLAKE.image_folder(256 * 256)
    images = [{r.images[0] for r in SLAKE.records(split)} for split in SLAKE.splits]
    assert [len(part) for part in images] == [75, 15, 52]
    assert len(set.union(*images)) == 75 + 15 + 52
    for name in set.union(*images):
        assert max(folder.open(name).size) <= 256
    files = [path for path in SLAKE.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000


def test_the_part_of_slake_has_nothing_of_sources_that_forbid_it() -> None:
    records = [record for split in SLAKE.splits for record in SLAKE.records(split)]
    kinds = {(record.meta["modality"], record.meta["organ"]) for record in records}
    assert kinds == {("X-Ray", "Lung"), ("MRI", "Brain"), ("MRI", "Brain_Tissue")}
    told = (SLAKE.path / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for owed in ("CC BY 4.0", "NIH Clinical Center", "Medical Segmentation Decathlon", "BY-SA"):
        assert owed in told


def test_an_extended_answer_of_slake_says_what_its_record_says() -> None:
    for split in ("train", "validation"):
        for record in SLAKE.records(split):
            [extended] = record.extended or []
            organ = record.meta["organ"].lower().replace("_", " ")
            told = f"The picture is an {record.meta['modality']} image of the {organ}."
            assert extended == f"{record.answer}. {told}"
    assert not any(record.extended for record in SLAKE.records("test"))


@pytest.mark.slow
def test_the_part_of_slake_can_be_rebuilt(shared: Path, tmp_path: Path) -> None:
    import runpy

    tool = Path(__file__).parents[3] / "tools/build_slake_sample.py"
    runpy.run_path(str(tool))["build"](shared / "data/slake_scaled", tmp_path / "sample")
    # Which has the SHA-256 of every file, images included.
    assert open_prepared(tmp_path / "sample").manifest == SLAKE.manifest
