"""Records to tensors: padding, images in their places, faults that name the record."""

import pytest
import torch

from exgra_med.data.records import Prepared, Record
from exgra_med.errors import DataError, TrainingError
from exgra_med.model.batch import (
    IGNORED,
    Batch,
    Layout,
    StageDataset,
    num_supervised,
    num_tokens,
)
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import TextSettings

PADDED = Layout(packed=False)
PACKED = Layout(tokens_per_row=256)


def dataset(
    toy: Bundle,
    sample: Prepared,
    records: list[Record],
    layout: Layout = PADDED,
    aligned: bool = True,
    **text: object,
) -> StageDataset:
    folder = sample.image_folder(10**8)
    return StageDataset(records, folder, toy, TextSettings.model_validate(text), aligned, layout)


def whole(data: StageDataset) -> Batch:
    return data.collate([data[number] for number in range(len(data))])


def test_padded_calls_are_those_of_the_original(toy: Bundle, sample: Prepared) -> None:
    data = dataset(toy, sample, sample.records("train")[:3])
    batch = whole(data)
    conversations, answers, extended = batch["calls"]
    for row in range(3):
        example = data[row]
        for rows, ids in [
            (conversations, example.conversations[0].input_ids),
            (answers, example.answer_ids),
            (extended, example.extended_ids),
        ]:
            assert rows["input_ids"][row, : len(ids)].tolist() == ids
            assert (rows["input_ids"][row, len(ids) :] == toy.pad_token_id).all()
            assert int(rows["attention_mask"][row].sum()) == len(ids)
        labels = [*example.conversations[0].labels[1:], IGNORED]
        assert conversations["targets"][row, : len(labels)].tolist() == labels
    assert (answers["segment"] == torch.arange(3).unsqueeze(1)).all()
    assert (extended["segment"] == torch.arange(3, 6).unsqueeze(1)).all()
    assert batch["pixel_values"].shape == (3, 3, 28, 28)
    assert batch["node_of_image"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("layout", [PADDED, PACKED])
def test_text_only_and_several_images_keep_every_image_with_its_record(
    toy: Bundle, sample: Prepared, layout: Layout
) -> None:
    first, second, third = sample.records("train")[:20:8]
    records = [
        first,
        second.model_copy(update={"image": None}),
        third.model_copy(update={"image": [third.images[0], first.images[0]]}),
    ]
    data = dataset(toy, sample, records, layout)
    batch = whole(data)
    assert batch["num_nodes"] == 2
    pixels = {
        0: {bytes(data[0].conversations[0].pixels[0].numpy())},
        1: {bytes(each.numpy()) for each in data[2].conversations[0].pixels},
    }
    for node, image in zip(batch["node_of_image"].tolist(), batch["pixel_values"], strict=True):
        assert bytes(image.numpy()) in pixels[node]
    ids = batch["calls"][0]["input_ids"]
    assert int((ids == toy.image_token_id).sum()) == 3 * toy.num_image_tokens


def test_packing_keeps_every_supervised_token_and_computes_fewer(
    toy: Bundle, sample: Prepared
) -> None:
    records = sample.records("train")[:30:3]
    padded, packed = (whole(dataset(toy, sample, records, each)) for each in (PADDED, PACKED))
    assert num_supervised(padded) == num_supervised(packed)
    assert num_tokens(packed) < num_tokens(padded)


def test_a_missing_image_is_found_before_training(toy: Bundle, sample: Prepared) -> None:
    lost = sample.records("train")[0].model_copy(update={"image": "nowhere.jpg"})
    with pytest.raises(DataError, match=lost.id):
        dataset(toy, sample, [lost])


def test_alignment_needs_extended_answers(toy: Bundle, sample: Prepared) -> None:
    plain = sample.records("train")[0].model_copy(update={"extended": None})
    with pytest.raises(DataError, match="no extended answers"):
        dataset(toy, sample, [plain])
    batch = whole(dataset(toy, sample, [plain], aligned=False))
    assert batch["num_nodes"] == 0
    assert len(batch["calls"]) == 1


def test_a_record_with_nothing_supervised_is_refused_by_name(toy: Bundle, sample: Prepared) -> None:
    record = sample.records("train")[0]
    labels = dataset(toy, sample, [record])[0].conversations[0].labels
    first_label = next(place for place, label in enumerate(labels) if label != IGNORED)
    short = dataset(toy, sample, [record], max_length=first_label)
    with pytest.raises(TrainingError, match=record.id):
        short[0]
