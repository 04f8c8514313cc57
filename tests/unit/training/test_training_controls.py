"""Controls of the studies: what a stage's settings change in its batches and its losses."""

from typing import Any

import pytest
import torch

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.data.conversation import with_extended_answers
from exgra_med.data.records import Prepared, Record
from exgra_med.errors import DataError
from exgra_med.model.batch import IGNORED, Batch, Layout, StageDataset, num_supervised
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import StageAlignment, StageSettings, TextSettings
from exgra_med.training.held_out import HeldOut, pair_accuracies, unrelated
from exgra_med.training.objective import Objective
from exgra_med.training.trainable import set_trainable

LAYOUTS = [Layout(tokens_per_row=256), Layout(packed=False)]
OBJECTIVES = ["barycenter", "pairwise", "all", "infonce", "siglip", "optimal-transport"]


def dataset(
    toy: Bundle,
    sample: Prepared,
    layout: Layout = LAYOUTS[0],
    aligned: bool = False,
    records: list[Record] | None = None,
    **more: Any,
) -> StageDataset:
    records = records or sample.records("train")[:24:5]
    folder = sample.image_folder(10**8)
    return StageDataset(records, folder, toy, TextSettings(), aligned, layout, **more)


def whole(data: StageDataset) -> Batch:
    return data.collate([data[number] for number in range(len(data))])


def language_loss(toy: Bundle, batch: Batch) -> float:
    with torch.no_grad():
        return float(Objective(toy, None)(batch, [0])["language_loss_sum"])


def replaced(sample: Prepared) -> list[Record]:
    return [with_extended_answers(each) for each in sample.records("train")[:24:5]]


def test_extended_answers_are_learnt_in_place_of_the_answers(toy: Bundle, sample: Prepared) -> None:
    (found,) = dataset(toy, sample, answers="extended")[0].conversations
    (wanted,) = dataset(toy, sample, records=replaced(sample))[0].conversations
    assert (found.input_ids, found.labels) == (wanted.input_ids, wanted.labels)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("aligned", [False, True])
def test_learning_both_is_the_sum_of_learning_each(
    toy: Bundle, sample: Prepared, layout: Layout, aligned: bool
) -> None:
    """Each record gives two sequences, both with its own image; the graphs stay as they are."""
    toy.model.double()
    batches = [
        whole(dataset(toy, sample, layout, aligned, **more))
        for more in ({"answers": "both"}, {}, {"records": replaced(sample)})
    ]
    for batch in batches:
        batch["pixel_values"] = batch["pixel_values"].double()
    both, one, other = batches
    assert num_supervised(both) == num_supervised(one) + num_supervised(other)
    assert len(both["pixel_values"]) == 2 * len(one["pixel_values"])
    assert both["num_nodes"] == one["num_nodes"]
    losses = [language_loss(toy, batch) for batch in batches]
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-6)
    if aligned:
        objectives = Objective(toy, StageAlignment()).eval()
        views = [objectives(batch, [0]) for batch in (both, one)]
        for name in ("image_view", "answer_view", "extended_view"):
            torch.testing.assert_close(views[0][name], views[1][name], rtol=1e-5, atol=1e-6)


def test_extended_answers_must_be_there_to_be_learnt(toy: Bundle, sample: Prepared) -> None:
    plain = sample.records("train")[0].model_copy(update={"extended": None})
    with pytest.raises(DataError, match="no extended answers"):
        dataset(toy, sample, records=[plain], answers="both")
    stage = StageSettings(trainable=["connector"], learning_rate=1e-3)
    assert not stage.needs_extended
    assert stage.model_copy(update={"answers": "both"}).needs_extended
    two = StageAlignment(views="image-answer")
    assert not stage.model_copy(update={"alignment": two}).needs_extended
    assert stage.model_copy(update={"alignment": StageAlignment()}).needs_extended


def test_prompts_are_learnt_too_but_no_image_token(toy: Bundle, sample: Prepared) -> None:
    plain, taught = (
        dataset(toy, sample, train_on_prompts=each)[0].conversations[0] for each in (False, True)
    )
    assert plain.input_ids == taught.input_ids
    image = {toy.image_token_id, *toy.marker_ids}
    for token, label in zip(taught.input_ids, taught.labels, strict=True):
        assert label == (IGNORED if token in image else token)
    assert sum(label != IGNORED for label in plain.labels) < len(taught.labels) - len(image)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_extended_answers_no_text_of_theirs_is_computed(
    toy: Bundle, sample: Prepared, objective: Any, layout: Layout
) -> None:
    plain = [each.model_copy(update={"extended": None}) for each in replaced(sample)]
    batch = whole(dataset(toy, sample, layout, True, plain, with_extended=False))
    assert batch["num_nodes"] == len(plain)
    assert not batch["has_extended"]
    settings = StageAlignment(objective=objective, views="image-answer")
    set_trainable(toy, ["connector", "language"])
    losses = Objective(toy, settings).train()(batch, [0])
    assert torch.isfinite(losses["alignment_loss"])
    losses["alignment_loss"].backward()
    assert toy.model.model.multi_modal_projector.linear_1.weight.grad is not None


@pytest.mark.parametrize("settings", [None, {}, {"views": "image-answer"}])
def test_the_views_are_measured_with_the_same_ruler_with_and_without_alignment(
    toy: Bundle, sample: Prepared, settings: dict[str, Any] | None
) -> None:
    records = sample.records("train")[:60]
    data = dataset(toy, sample, aligned=True, records=records)
    alignment = None if settings is None else StageAlignment.model_validate(settings)
    figures = HeldOut(data, 4, 3, measure_views=True).measure(
        Objective(toy, alignment), torch.device("cpu")
    )
    reference = HeldOut(data, 4, 3, measure_views=True).measure(
        Objective(toy, StageAlignment()), torch.device("cpu")
    )
    assert figures["views"] == reference["views"]
    pairs = [
        f"{pair}_{name}"
        for pair in ("image_answer", "image_extended", "answer_extended")
        for name in ("accuracy", "unrelated")
    ]
    assert [figures[name] for name in pairs] == [reference[name] for name in pairs]
    assert figures["num_nodes"] == 12
    assert ("matching_unrelated" in figures) == (alignment is not None)
    assert ("alignment_loss" in figures) == (alignment is not None)
    views = figures["views"]
    assert views["num_nodes"] == 12
    assert views["chance"] == pytest.approx(0.25)
    own = views["histograms"]["image_extended"]
    assert sum(own["own"]) == 12
    assert sum(own["other"]) == 3 * 4 * 3


def test_unrelated_views_find_each_other_in_a_barycenter_and_not_in_pairs() -> None:
    """The floor beside each figure: what the same ruler gives to views of different records."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(16, 64, generator=generator) for _ in range(3)]
    one, two, three = unrelated(*views)
    assert torch.equal(one, views[0])
    assert torch.equal(two[1], views[1][0]) and torch.equal(three[2], views[2][0])
    through = MultiGraphAlignment(64, num_layers=0)
    assert through.matching_accuracy(one, two, three) > 0.75
    assert max(pair_accuracies(*views).values()) < 0.2
    tied = pair_accuracies(views[0], views[0] + 0.1 * views[1])
    assert tied == {"image_answer/accuracy": 1.0, "image_answer/unrelated": 0.0}


def test_nothing_more_is_measured_unless_it_is_asked_for(toy: Bundle, sample: Prepared) -> None:
    data = dataset(toy, sample, records=sample.records("train")[:20])
    figures = HeldOut(data, 4, 2).measure(Objective(toy, None), torch.device("cpu"))
    assert set(figures) == {"language_loss", "num_records"}


def test_stage_one_alignment_moves_the_connector_and_nothing_of_the_language_model(
    toy: Bundle, sample: Prepared
) -> None:
    set_trainable(toy, ["connector"])
    own = Objective(toy, StageAlignment()).train()
    own(whole(dataset(toy, sample, aligned=True)), [0])["alignment_loss"].backward()
    reached = {name for name, each in own.named_parameters() if each.grad is not None}
    assert any("multi_modal_projector" in name for name in reached)
    assert all("multi_modal_projector" in n or n.startswith("alignment.") for n in reached)
