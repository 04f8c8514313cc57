"""`data check` with a tokenizer: what training would stop at is a fault, what it cuts a notice."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from exgra_med.cli.main import app
from exgra_med.data.chat_template import encode_conversation
from exgra_med.data.inspect.check import CheckReport, Window, check_prepared
from exgra_med.data.prepare import write_prepared
from exgra_med.data.records import Prepared, open_prepared
from exgra_med.data.sources.source import Collected
from exgra_med.errors import DataError
from exgra_med.model.convert.checkpoint import import_checkpoint
from exgra_med.model.processor import train_tokenizer

GOLDEN = Path(__file__).parents[2] / "golden" / "data" / "model"
NUM_IMAGE_TOKENS = 9


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Some records of the bundled sample, so that few images are decoded again and again."""
    bundled = open_prepared("bundled:vqa-rad-sample")
    splits = {split: bundled.records(split)[:8] for split in ("train", "test")}
    collected = Collected(splits, bundled.image_folder(10**7), [])
    return write_prepared(tmp_path_factory.mktemp("check") / "out", collected, {"dataset": "some"})


@pytest.fixture(scope="module")
def tokenizer(sample: Prepared) -> PreTrainedTokenizerFast:
    return train_tokenizer([record.question for record in sample.records("train")], 400)


def test_an_image_changed_since_is_a_fault(sample: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(sample.path, folder)
    first, second = sorted((folder / "images").iterdir())[:2]
    shutil.copyfile(second, first)
    [fault] = check_prepared(open_prepared(folder)).faults
    assert str(folder / "images") in fault and "Prepare the folder again" in fault


def lengths(sample: Prepared, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        record.id: len(
            encode_conversation(tokenizer, record, "exgra", NUM_IMAGE_TOKENS, 10**6).input_ids
        )
        for split in sample.splits
        for record in sample.records(split)
    }


def check(sample: Prepared, tokenizer: PreTrainedTokenizerFast, max_length: int) -> CheckReport:
    return check_prepared(sample, window=Window(tokenizer, NUM_IMAGE_TOKENS, max_length))


def test_everything_fits_and_the_lengths_are_those_of_training(
    sample: Prepared, tokenizer: PreTrainedTokenizerFast
) -> None:
    report = check(sample, tokenizer, 10**6)
    expected = lengths(sample, tokenizer)
    assert not report.faults
    assert report.facts["longest_conversation_in_tokens"] == max(expected.values())
    assert report.facts["tokens"] == sum(expected.values())
    assert 0 < report.facts["tokens_learned_from"] < report.facts["tokens"]
    assert report.facts["longest_extended_answer_in_tokens"] > 0
    assert report.facts["records_cut"] == 0
    assert not [text for text in report.notices if "characters were counted" in text]


def test_a_record_that_is_longer_than_the_window_is_named(
    sample: Prepared, tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = lengths(sample, tokenizer)
    longest = max(expected.values())
    report = check(sample, tokenizer, longest - 1)
    too_long = [name for name, length in expected.items() if length == longest]
    cut = [text for text in report.notices if f"more than {longest - 1}" in text]
    assert not report.faults and report.facts["records_cut"] == len(too_long) == len(cut)
    assert cut[0] == (
        f"{too_long[0]}: {longest} tokens, more than {longest - 1}; "
        "1 that should be learned from are cut off."
    )


def test_a_window_without_room_for_an_answer_is_a_fault(
    sample: Prepared, tokenizer: PreTrainedTokenizerFast
) -> None:
    [record] = sample.records("train")[:1]
    encoded = encode_conversation(tokenizer, record, "exgra", NUM_IMAGE_TOKENS, 10**6)
    start = next(n for n, label in enumerate(encoded.labels) if label >= 0)
    report = check(sample, tokenizer, start)
    assert f"{record.id}: nothing in its first {start} tokens is learned from." in report.faults
    tight = check(sample, tokenizer, 20)
    assert any("need more than 20 tokens" in text for text in tight.faults)


def test_without_a_model_it_says_that_it_counted_characters(sample: Prepared) -> None:
    report = check_prepared(sample)
    assert (
        "notice: characters were counted; --tokenizer CHECKPOINT counts tokens." in report.lines()
    )
    assert "tokens" not in report.facts
    with pytest.raises(DataError, match="template"):
        check_prepared(sample, template="none-such")


def test_the_verb_loads_the_tokenizer_of_a_checkpoint(tmp_path: Path) -> None:
    import_checkpoint(str(GOLDEN / "checkpoint_dci"), str(GOLDEN / "clip_tiny"), tmp_path / "m")
    for path in (tmp_path / "m").glob("*.safetensors"):
        # The weights are not needed.
        path.unlink()
    arguments = ["data", "check", "bundled:vqa-rad-sample", "--tokenizer", str(tmp_path / "m")]
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["facts"]["max_length_in_tokens"] == 2048
    short = CliRunner().invoke(app, [*arguments, "--max-length", "12"], catch_exceptions=False)
    assert short.exit_code == 2 and "need more than 12 tokens" in short.stdout
    assert "more faults, see --json" in short.stdout
