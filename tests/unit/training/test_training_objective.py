"""The two losses against their plain twins."""

import pytest
import torch
import torch.nn.functional as F

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.data.records import Prepared
from exgra_med.model.batch import IGNORED, Batch, Layout, StageDataset
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import StageAlignment, TextSettings
from exgra_med.training import objective as module
from exgra_med.training.objective import (
    Objective,
    mean_by_group,
    pool_views,
    seed_number,
)
from exgra_med.training.trainable import recompute_activations, set_trainable

PADDED = Layout(packed=False)


def make_batch(toy: Bundle, sample: Prepared, layout: Layout, num_records: int = 6) -> Batch:
    records = sample.records("train")[: 5 * num_records : 5]
    data = StageDataset(records, sample.image_folder(10**8), toy, TextSettings(), True, layout)
    return data.collate([data[number] for number in range(len(records))])


@pytest.fixture
def batch(toy: Bundle, sample: Prepared) -> Batch:
    return make_batch(toy, sample, PADDED)


@pytest.mark.parametrize("tokens_per_chunk", [1, 7, 10_000])
def test_the_chunked_loss_equals_that_of_all_logits_in_value_and_gradient(
    toy: Bundle, batch: Batch, tokens_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_PER_CHUNK", tokens_per_chunk)
    set_trainable(toy, ["connector", "language"])
    learning = [each for each in toy.model.parameters() if each.requires_grad]
    losses = Objective(toy, None)(batch, [0])
    mean = losses["language_loss_sum"] / losses["num_supervised"]
    ours = torch.autograd.grad(mean, learning, allow_unused=True)
    rows = batch["calls"][0]
    output = toy.model(
        input_ids=rows["input_ids"],
        pixel_values=batch["pixel_values"],
        attention_mask=rows["attention_mask"],
        use_cache=False,
    )
    plain = F.cross_entropy(
        output.logits.flatten(0, 1), rows["targets"].flatten(), ignore_index=IGNORED
    )
    theirs = torch.autograd.grad(plain, learning, allow_unused=True)
    torch.testing.assert_close(mean, plain, atol=1e-6, rtol=0)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("num_records", [1, 2, 5])
@pytest.mark.parametrize("tokens_per_row", [1, 199, 4000])
def test_packed_equals_separate_in_values_and_gradients(
    toy: Bundle, sample: Prepared, num_records: int, tokens_per_row: int
) -> None:
    """In float64, so that nothing but a leak between sequences could make a difference."""
    toy.model.double()
    set_trainable(toy, ["connector", "language"])
    found = []
    for layout in (Layout(tokens_per_row=tokens_per_row), PADDED):
        batch = make_batch(toy, sample, layout, num_records)
        batch["pixel_values"] = batch["pixel_values"].double()
        if layout is PADDED:
            for rows in batch["calls"]:
                rows["segment"][rows["attention_mask"] == 0] = -1
        own = Objective(toy, None)
        features, states = own.bundle.encode(batch)
        views = pool_views(batch, features, states)
        total = own._language_loss(states, batch["calls"])["language_loss_sum"]
        total = total + sum((view * torch.arange(16.0)).sum() for view in views)
        own.zero_grad()
        total.backward()
        gradients = {n: p.grad.clone() for n, p in own.named_parameters() if p.grad is not None}
        order = batch["node_of_image"]
        found.append((total.detach(), gradients, [view.detach() for view in views], order))
    (one, first, views_one, _), (other, second, views_other, _) = found
    # float32 enters where the pooled means are taken: 1e-7 relative was measured.
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    for view, twin in zip(views_one, views_other, strict=True):
        torch.testing.assert_close(view, twin, rtol=1e-5, atol=1e-6)
    assert first.keys() == second.keys()
    for name in first:
        scale = float(second[name].abs().max())
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6 * scale + 1e-12)


def test_the_originals_pooling_counts_padding(toy: Bundle, batch: Batch) -> None:
    own = Objective(toy, None)
    with torch.no_grad():
        features, states = own.bundle.encode(batch)
        _, answer, _ = pool_views(batch, features, states)
    torch.testing.assert_close(answer, states[1].mean(1))
    mask = batch["calls"][1]["attention_mask"].unsqueeze(-1)
    masked = (states[1] * mask).sum(1) / mask.sum(1)
    assert (answer - masked).abs().max() > 0.01


def test_alignment_reaches_connector_language_model_and_its_own_layers(
    toy: Bundle, batch: Batch
) -> None:
    set_trainable(toy, ["connector", "language"])
    own = Objective(toy, StageAlignment())
    own.train()
    own(batch, [0])["alignment_loss"].backward()
    reached = {name for name, each in own.named_parameters() if each.grad is not None}
    assert any("multi_modal_projector" in name for name in reached)
    assert any("language_model.layers" in name for name in reached)
    assert any(name.startswith("alignment.") for name in reached)
    assert not any("vision_tower" in name for name in reached)


def test_a_batch_of_one_has_no_alignment_loss_and_no_fault(toy: Bundle, sample: Prepared) -> None:
    set_trainable(toy, ["connector", "language"])
    own = Objective(toy, StageAlignment())
    losses = own(make_batch(toy, sample, PADDED, num_records=1), [0])
    assert float(losses["alignment_loss"].detach()) == 0.0
    (losses["language_loss_sum"] + losses["alignment_loss"]).backward()
    assert all(torch.isfinite(p.grad).all() for p in own.parameters() if p.grad is not None)


def test_stage_one_moves_the_connector_and_two_embedding_rows(toy: Bundle, batch: Batch) -> None:
    set_trainable(toy, ["connector", "image_tokens"])
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    learning = [each for each in toy.model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.1, weight_decay=0.0)
    Objective(toy, None)(batch, [0])["language_loss_sum"].backward()
    optimizer.step()
    after = toy.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    embedding = "model.language_model.embed_tokens.weight"
    assert all("multi_modal_projector" in name or name == embedding for name in moved)
    rows = (before[embedding] != after[embedding]).any(1).nonzero().flatten().tolist()
    assert rows == sorted(toy.marker_ids)


def test_the_mean_by_group_and_the_seed() -> None:
    values = torch.tensor([[1.0], [3.0], [10.0], [99.0]])
    assert mean_by_group(values, torch.tensor([0, 0, 1, -1]), 2).tolist() == [[2.0], [10.0]]
    seeds = {seed_number([0, 1, step, 0, rank]) for step in range(50) for rank in range(2)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_recomputed_activations_give_the_same_losses_and_gradients(
    toy: Bundle, sample: Prepared
) -> None:
    set_trainable(toy, ["connector", "language"])
    objective = Objective(toy, None).train()
    learning = [each for each in objective.parameters() if each.requires_grad]
    batch = make_batch(toy, sample, Layout(tokens_per_row=1024))

    def gradients() -> tuple[torch.Tensor, ...]:
        loss = objective(batch, [0])["language_loss_sum"]
        return loss, *torch.autograd.grad(loss, learning, allow_unused=True)

    kept = gradients()
    recompute_activations(toy)
    assert toy.model.get_decoder().layers[0].gradient_checkpointing
    for one, other in zip(kept, gradients(), strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize(("graph", "edges"), [("knn", 8 * 2), ("full", 8 * 7)])
def test_the_recipes_graph_reaches_the_alignment(graph: str, edges: int) -> None:
    from exgra_med.alignment.graph import build_edges

    settings = StageAlignment(graph=graph, neighbours=2, dropout=0.0)
    alignment = MultiGraphAlignment(16, settings)
    views = [torch.randn(8, 16, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    _, _, links = alignment.problem_nodes(views)
    present = links[0][:, links[0][0] >= 0]
    assert torch.equal(present, build_edges(views[0], graph, neighbours=2))
    assert present.shape[1] == edges
    assert torch.isfinite(alignment(*views, generator=0).loss)
