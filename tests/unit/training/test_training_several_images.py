"""Training on records with none, one and several images: one node a record, nothing is cut."""

import json
from pathlib import Path

import pytest
import torch

from exgra_med.data.records import Record, open_prepared
from exgra_med.errors import DataError
from exgra_med.model.batch import Batch, Layout, StageDataset
from exgra_med.model.bundle import Bundle
from exgra_med.model.sizes import model_config
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.run_folder import start_run
from exgra_med.recipe.schema import TextSettings
from exgra_med.terminal import Silent
from exgra_med.training.estimate import PlannedModel, measure_workload
from exgra_med.training.log import read_log
from exgra_med.training.objective import Objective, pool_views
from exgra_med.training.order import image_groups
from exgra_med.training.preflight import check_before_training
from exgra_med.training.stages import train_run
from several_images import TALKS, make_several, talk

NAMES = list(TALKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_several(tmp_path_factory.mktemp("several") / "data")


def dataset(
    toy: Bundle, folder: Path, records: list[Record], packed: bool = True, **text: object
) -> StageDataset:
    images = open_prepared(folder).image_folder(10**6)
    layout = Layout(packed=packed, tokens_per_row=256)
    return StageDataset(records, images, toy, TextSettings.model_validate(text), True, layout)


@pytest.mark.parametrize("packed", [True, False])
def test_every_image_stands_in_its_record_and_a_node_is_the_mean_of_its_own(
    toy: Bundle, folder: Path, packed: bool
) -> None:
    data = dataset(toy, folder, [talk(name) for name in NAMES], packed)
    batch = data.collate([data[number] for number in range(len(data))])
    with_images = [name for name in NAMES if talk(name).images]
    assert batch["num_nodes"] == len(with_images) == 7
    assert len(batch["pixel_values"]) == sum(len(talk(name).images) for name in NAMES) == 15
    features, states = Objective(toy, None).bundle.encode(batch)
    assert features is not None
    view = pool_views(batch, features, states)[0]
    for node, name in enumerate(with_images):
        pixels = data[NAMES.index(name)].conversations[0].pixels
        own = toy.model.image_features(pixels)
        assert len(own) == len(talk(name).images)
        torch.testing.assert_close(view[node], own.float().mean(1).mean(0), atol=1e-6, rtol=1e-5)
    order = [name for name in with_images for _ in talk(name).images]
    counted = [batch["node_of_image"].tolist().count(node) for node in range(7)]
    assert counted == [order.count(name) for name in with_images]


def test_a_record_reads_its_images_in_order_in_a_batch_as_alone(toy: Bundle, folder: Path) -> None:
    toy.model.double()
    data = dataset(toy, folder, [talk(name) for name in NAMES])

    def batch_of(*numbers: int) -> Batch:
        batch = data.collate([data[number] for number in numbers])
        if batch["pixel_values"] is not None:
            batch["pixel_values"] = batch["pixel_values"].double()
        return batch

    own = Objective(toy, None)
    everything = range(len(data))
    with torch.no_grad():
        alone = [own(batch_of(number), [0])["language_loss_sum"] for number in everything]
        together = own(batch_of(*everything), [0])["language_loss_sum"]
        torch.testing.assert_close(together, torch.stack(alone).sum())
        for name in ("two", "four", "in a sentence", "over turns"):
            batch = batch_of(NAMES.index(name))
            right = own.bundle.encode(batch)[1][0]
            batch["pixel_values"] = batch["pixel_values"].flip(0)
            assert not torch.allclose(own.bundle.encode(batch)[1][0], right, atol=1e-9, rtol=0)


def test_records_that_show_the_same_images_are_of_one_group() -> None:
    records = [talk("two"), talk("in a sentence"), talk("one"), talk("none")]
    groups = image_groups(records)
    assert groups[0] == groups[1] and len(set(groups)) == 3


def many(num_images: int, question: str = "Which?") -> Record:
    images = [f"{n % 8}.png" for n in range(num_images)]
    return talk("two", "train", id="several/train/many", image=images).model_copy(
        update={"turns": [talk("two").turns[0].model_copy(update={"text": question}),
                          talk("two").turns[1]]}
    )  # fmt: skip


def test_images_that_do_not_fit_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    data = make_several(tmp_path / "data", many(40))
    recipe = load_recipe("debug/tiny", [f"data.folder={data}", "text.max_length=512"]).recipe
    with pytest.raises(DataError) as caught:
        check_before_training(recipe, tmp_path / "run")
    assert "The 40 images of record 'several/train/many'" in caught.value.message
    assert "and `text.max_length` is 512" in caught.value.message
    fits = recipe.model_copy(update={"text": TextSettings(max_length=2048)})
    planned = PlannedModel(model_config(recipe.model))
    assert measure_workload(fits, "aligned", planned).images == pytest.approx((15 + 40) / 9)
    held_out = json.loads((data / "validation.jsonl").read_text().splitlines()[0])
    assert held_out["id"] == "several/validation/none"


@pytest.mark.parametrize("question", ["Which? " * 40, "word " * 60 + "<image> " * 4])
def test_images_behind_a_long_question_are_refused_before_the_first_step(
    toy: Bundle, folder: Path, question: str
) -> None:
    with pytest.raises(DataError, match=r"'several/train/many': question and image need more than"):
        dataset(toy, folder, [many(4, question)], max_length=100)
    assert len(dataset(toy, folder, [many(4, question)], max_length=1000)) == 1


def test_a_short_answer_may_still_be_cut_behind_the_images(toy: Bundle, folder: Path) -> None:
    whole = dataset(toy, folder, [many(4)])[0].conversations[0].input_ids
    last = max(place for place, token in enumerate(whole) if token == toy.image_token_id)
    length = len(whole) - 3
    assert (
        len(dataset(toy, folder, [many(4)], max_length=length)[0].conversations[0].input_ids)
        == length
        > last
    )
    with pytest.raises(DataError, match=f"more than {last} tokens"):
        dataset(toy, folder, [many(4)], max_length=last)


@pytest.mark.slow
def test_a_mixed_batch_trains_with_its_graphs(folder: Path, tmp_path: Path) -> None:
    settings = [f"data.folder={folder}", "data.questions_per_record=2", "text.max_length=1024"]
    settings += ["stages.aligned.max_steps=2", "stages.aligned.batch_size=8"]
    recipe = load_recipe("debug/tiny", settings).recipe
    recipe = recipe.model_copy(update={"stages": {"aligned": recipe.stages["aligned"]}})
    run = start_run(tmp_path / "run", recipe, resume=False)
    train_run(run, Silent())
    steps = [line for line in read_log(run.log) if line.get("kind") == "train"]
    assert len(steps) == 2
    for line in steps:
        assert 0 < line["alignment_loss"] < 100 and 0 <= line["matching_accuracy"] <= 1
        assert 0 < line["language_loss"] < 20
