"""Records to tensors: padding, images in their places, faults that name the record."""

import pytest
import torch

from exgra_med.data.prepared import Prepared
from exgra_med.errors import DataError, TrainingError
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import TextSettings
from exgra_med.training.batch import IGNORED, StageDataset, collate


def dataset(
    toy: Bundle, sample: Prepared, records: list, aligned: bool = True, **text: object
) -> StageDataset:
    folder = sample.image_folder(10**8)
    return StageDataset(records, folder, toy, TextSettings.model_validate(text), aligned)


def test_a_batch_pads_on_the_right_and_masks_what_it_padded(toy: Bundle, sample: Prepared) -> None:
    examples = list(map(dataset(toy, sample, sample.records("train")[:3]).__getitem__, range(3)))
    batch = collate(examples, toy.pad_token_id)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        assert batch["input_ids"][row, :length].tolist() == example.input_ids
        assert (batch["input_ids"][row, length:] == toy.pad_token_id).all()
        assert (batch["labels"][row, length:] == IGNORED).all()
        assert int(batch["attention_mask"][row].sum()) == length
    assert batch["pixel_values"].shape == (3, 3, 28, 28)
    assert batch["sample_of_image"].tolist() == [0, 1, 2]
    assert batch["answer_mask"].sum(1).tolist() == [len(each.answer_ids) for each in examples]


def test_text_only_and_several_images_keep_every_image_with_its_record(
    toy: Bundle, sample: Prepared
) -> None:
    first, second, third = sample.records("train")[:3]
    records = [
        first,
        second.model_copy(update={"image": None}),
        third.model_copy(update={"image": [third.images[0], first.images[0]]}),
    ]
    data = dataset(toy, sample, records)
    batch = collate([data[number] for number in range(3)], toy.pad_token_id)
    assert batch["sample_of_image"].tolist() == [0, 2, 2]
    assert torch.equal(batch["pixel_values"][0], batch["pixel_values"][2])
    placeholders = (batch["input_ids"] == toy.image_token_id).sum(1).tolist()
    per_image = toy.num_image_tokens
    assert placeholders == [per_image, 0, 2 * per_image]


def test_a_missing_image_is_found_before_training(toy: Bundle, sample: Prepared) -> None:
    lost = sample.records("train")[0].model_copy(update={"image": "nowhere.jpg"})
    with pytest.raises(DataError, match=lost.id):
        dataset(toy, sample, [lost])


def test_alignment_needs_extended_answers(toy: Bundle, sample: Prepared) -> None:
    plain = sample.records("train")[0].model_copy(update={"extended": None})
    with pytest.raises(DataError, match="no extended answers"):
        dataset(toy, sample, [plain])
    batch = collate([dataset(toy, sample, [plain], aligned=False)[0]], toy.pad_token_id)
    assert "extended_ids" not in batch


def test_a_record_with_nothing_supervised_is_refused_by_name(toy: Bundle, sample: Prepared) -> None:
    record = sample.records("train")[0]
    whole = dataset(toy, sample, [record])[0]
    first_label = next(place for place, label in enumerate(whole.labels) if label != IGNORED)
    short = dataset(toy, sample, [record], max_length=first_label)
    with pytest.raises(TrainingError, match=record.id):
        short[0]
