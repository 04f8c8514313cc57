"""The batches that break other training code: one record, equal images, no image, several, a cut.

Each must leave loss and gradients finite, and no record may see what its neighbours are.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch

from exgra_med.data.records import Prepared, Record, Turn
from exgra_med.errors import DataError
from exgra_med.model.batch import IGNORED, Layout, StageDataset, TrainingExample, num_supervised
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import StageAlignment, TextSettings
from exgra_med.training.objective import Objective, pool_views
from exgra_med.training.trainable import set_trainable

LAYOUTS = [Layout(packed=False), Layout(tokens_per_row=128)]
# Nothing may hide what equal nodes do: no dropout, no noise.
QUIET = StageAlignment(dropout=0.0, noise_scale=0.0)


@pytest.fixture
def records(sample: Prepared) -> dict[str, Record]:
    first, second, third, fourth = sample.records("train")[:40:10]
    return {
        "plain": first,
        "text only": second.model_copy(update={"image": None}),
        "two images": third.model_copy(update={"image": [third.images[0], first.images[0]]}),
        "last": fourth,
    }


def dataset(
    toy: Bundle, sample: Prepared, records: Sequence[Record], layout: Layout, max_length: int = 2048
) -> StageDataset:
    images = sample.image_folder(10**8)
    text = TextSettings(max_length=max_length)
    return StageDataset(list(records), images, toy, text, True, layout)


def backward(toy: Bundle, data: StageDataset) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Both losses of all records as one batch, and every gradient."""
    set_trainable(toy, ["connector", "language"])
    objective = Objective(toy, QUIET).train()
    objective.zero_grad()
    losses = objective(data.collate([data[number] for number in range(len(data))]), [0])
    language = losses["language_loss_sum"] / losses["num_supervised"]
    alignment = losses.get("alignment_loss", torch.zeros(()))
    (language + alignment).backward()
    gradients = {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}
    return float(language.detach()), float(alignment.detach()), gradients


def assert_sound(figures: tuple[float, float, dict[str, torch.Tensor]]) -> None:
    language, alignment, gradients = figures
    assert torch.isfinite(torch.tensor([language, alignment])).all() and language > 0
    for name, gradient in gradients.items():
        # The original reaches 1e10 on equal nodes (A8).
        assert torch.isfinite(gradient).all() and gradient.abs().max() < 1e3, name
    assert any("language_model" in name for name in gradients)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["plain", "text only", "two images"])
def test_a_batch_of_one(
    toy: Bundle, sample: Prepared, records: dict[str, Record], layout: Layout, kind: str
) -> None:
    figures = backward(toy, dataset(toy, sample, [records[kind]], layout))
    assert_sound(figures)
    assert figures[1] == 0.0
    reached = any("multi_modal_projector" in name for name in figures[2])
    assert reached == (kind != "text only")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_copies", [2, 4])
def test_equal_records_have_edges_of_length_zero_and_bounded_gradients(
    toy: Bundle, sample: Prepared, records: dict[str, Record], layout: Layout, num_copies: int
) -> None:
    copies = [
        records["plain"].model_copy(update={"id": f"copy{number}"}) for number in range(num_copies)
    ]
    data = dataset(toy, sample, [*copies, records["last"]], layout)
    objective = Objective(toy, QUIET)
    batch = data.collate([data[number] for number in range(len(data))])
    with torch.no_grad():
        views = pool_views(batch, *objective.bundle.encode(batch))
    for view in views:
        assert (view[0] - view[1]).norm() < 1e-5 * (view[0] - view[-1]).norm()
    assert_sound(backward(toy, data))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_records_without_an_image_and_with_several_together(
    toy: Bundle, sample: Prepared, records: dict[str, Record], layout: Layout
) -> None:
    figures = backward(toy, dataset(toy, sample, list(records.values()), layout))
    assert_sound(figures)
    assert figures[1] > 0
    blind = [each.model_copy(update={"image": None}) for each in records.values()]
    language, alignment, gradients = backward(toy, dataset(toy, sample, blind, layout))
    assert (language > 0, alignment) == (True, 0.0)
    assert not any("multi_modal_projector" in name for name in gradients)


def told(example: TrainingExample, **changes: Any) -> TrainingExample:
    """The example with another conversation."""
    return replace(example, conversations=[replace(example.conversations[0], **changes)])


def own_loss(
    objective: Objective, data: StageDataset, examples: list[TrainingExample], own: int
) -> float:
    """Loss of one record in a batch: nothing else is supervised."""
    others = [
        each if n == own else told(each, labels=[IGNORED] * len(each.conversations[0].labels))
        for n, each in enumerate(examples)
    ]
    with torch.no_grad():
        return float(objective(data.collate(others), [0])["language_loss_sum"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_records_loss_and_node_do_not_depend_on_its_neighbours(
    toy: Bundle, sample: Prepared, records: dict[str, Record], layout: Layout
) -> None:
    """The original shifts images past a text-only record (A3) and loses all but the last (A5)."""
    toy.model.double()
    data = dataset(toy, sample, list(records.values()), layout)
    examples = [
        told(each, pixels=pixels.double())
        if (pixels := each.conversations[0].pixels) is not None
        else each
        for each in (data[number] for number in range(len(data)))
    ]
    objective = Objective(toy, None).eval()
    alone = [own_loss(objective, data, [each], 0) for each in examples]
    assert len({round(loss, 3) for loss in alone}) == len(examples)
    for order in list(permutations(range(len(examples))))[::5]:
        together = [examples[number] for number in order]
        found = [own_loss(objective, data, together, order.index(n)) for n in range(len(order))]
        assert found == pytest.approx(alone, rel=1e-6)
    # The measure notices a shift: the next record's image instead of its own.
    shifted = [told(examples[0], pixels=examples[3].conversations[0].pixels), *examples[1:]]
    assert own_loss(objective, data, shifted, 0) != pytest.approx(alone[0], rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cut_conversation_keeps_its_image_and_loses_supervision_at_the_end(
    toy: Bundle, sample: Prepared, records: dict[str, Record], layout: Layout
) -> None:
    record = records["plain"].model_copy(
        update={"turns": [records["plain"].turns[0], _longer(records["plain"].turns[1])]}
    )
    whole = dataset(toy, sample, [record, records["last"]], layout)
    full, other = whole[0].conversations[0], whole[1].conversations[0]
    first = next(place for place, label in enumerate(full.labels) if label != IGNORED)
    length = max(first + 8, len(other.input_ids))
    assert length < len(full.input_ids)
    data = dataset(toy, sample, [record, records["last"]], layout, max_length=length)
    cut = data[0].conversations[0]
    assert (cut.input_ids, cut.labels) == (full.input_ids[:length], full.labels[:length])
    assert cut.input_ids.count(toy.image_token_id) == toy.num_image_tokens
    batch = data.collate([data[0], data[1]])
    supervised = sum(label != IGNORED for each in (cut, other) for label in each.labels)
    assert num_supervised(batch) == supervised
    assert_sound(backward(toy, data))

    image_end = full.input_ids.index(toy.marker_ids[1])
    with pytest.raises(DataError, match=record.id):
        dataset(toy, sample, [record], layout, max_length=image_end - 1)[0]


def _longer(turn: Turn) -> Turn:
    return turn.model_copy(update={"text": f"{turn.text} and so on" * 20})


def test_a_batch_without_images_leaves_a_lone_connector_where_it_is(
    toy: Bundle, sample: Prepared, records: dict[str, Record]
) -> None:
    set_trainable(toy, ["connector"])
    objective = Objective(toy, None).train()
    data = dataset(toy, sample, [records["text only"]], LAYOUTS[1])
    losses = objective(data.collate([data[0]]), [0])
    losses["language_loss_sum"].backward()
    learning = [each for each in objective.parameters() if each.requires_grad]
    assert learning and all(each.grad is not None and not each.grad.any() for each in learning)
    objective.drop_unused_gradients(images=0, nodes=0)
    assert all(each.grad is None for each in learning)
