"""The two losses against their plain twins."""

import pytest
import torch
import torch.nn.functional as F

from exgra_med.data.prepared import Prepared
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import AlignmentSettings, TextSettings
from exgra_med.training import objective as module
from exgra_med.training.batch import IGNORED, Batch, StageDataset, collate
from exgra_med.training.objective import Objective, mean_by_sample, seed_number
from exgra_med.training.parts import choose_parts


@pytest.fixture
def batch(toy: Bundle, sample: Prepared) -> Batch:
    records = sample.records("train")[:30:5]
    data = StageDataset(records, sample.image_folder(10**8), toy, TextSettings(), True)
    return collate([data[number] for number in range(len(records))], toy.pad_token_id)


@pytest.mark.parametrize("tokens_per_chunk", [1, 7, 10_000])
def test_the_chunked_loss_equals_that_of_all_logits_in_value_and_gradient(
    toy: Bundle, batch: Batch, tokens_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_PER_CHUNK", tokens_per_chunk)
    choose_parts(toy, ["connector", "language"])
    learning = [each for each in toy.model.parameters() if each.requires_grad]
    losses = Objective(toy.model, None)(batch, [0])
    mean = losses["language_loss_sum"] / losses["num_supervised"]
    ours = torch.autograd.grad(mean, learning, allow_unused=True)
    output = toy.model(
        input_ids=batch["input_ids"],
        pixel_values=batch["pixel_values"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
    )
    plain = F.cross_entropy(
        output.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED
    )
    theirs = torch.autograd.grad(plain, learning, allow_unused=True)
    assert float(mean) == pytest.approx(float(plain), abs=1e-6)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_padding_does_not_reach_the_pooled_tokens_but_the_original_lets_it(
    toy: Bundle, batch: Batch
) -> None:
    longer = dict(batch)
    extra = torch.full((len(batch["ids"]), 5), toy.pad_token_id)
    longer["answer_ids"] = torch.cat([batch["answer_ids"], extra], 1)
    longer["answer_mask"] = torch.cat([batch["answer_mask"], torch.zeros_like(extra)], 1)

    def pooled(pooling: str, rows: Batch) -> torch.Tensor:
        settings = AlignmentSettings.model_validate({"pooling": pooling})
        own = Objective(toy.model, settings)
        with torch.no_grad():
            return own._pool_text(rows["answer_ids"], rows["answer_mask"])

    torch.testing.assert_close(pooled("tokens", batch), pooled("tokens", longer))
    assert (pooled("padded", batch) - pooled("padded", longer)).abs().max() > 0.01


def test_records_without_an_image_leave_the_graph(toy: Bundle, batch: Batch) -> None:
    kept = [0, 2, 3, 4, 5]
    without = dict(batch)
    without["sample_of_image"] = torch.tensor(kept)
    without["pixel_values"] = batch["pixel_values"][kept]
    without["input_ids"] = batch["input_ids"].clone()
    row = without["input_ids"][1]
    row[row == toy.image_token_id] = toy.tokenizer.unk_token_id
    own = Objective(toy.model, AlignmentSettings())
    assert int(own(without, [0])["num_nodes"]) == 5


def test_alignment_reaches_connector_language_model_and_its_own_layers(
    toy: Bundle, batch: Batch
) -> None:
    choose_parts(toy, ["connector", "language"])
    own = Objective(toy.model, AlignmentSettings())
    own.train()
    own(batch, [0])["alignment_loss"].backward()
    reached = {name for name, each in own.named_parameters() if each.grad is not None}
    assert any("multi_modal_projector" in name for name in reached)
    assert any("language_model.layers" in name for name in reached)
    assert any(name.startswith("alignment.") for name in reached)
    assert not any("vision_tower" in name for name in reached)


def test_stage_one_moves_the_connector_and_two_embedding_rows(toy: Bundle, batch: Batch) -> None:
    choose_parts(toy, ["connector", "image_tokens"])
    before = {name: value.clone() for name, value in toy.model.state_dict().items()}
    learning = [each for each in toy.model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.1, weight_decay=0.0)
    Objective(toy.model, None)(batch, [0])["language_loss_sum"].backward()
    optimizer.step()
    after = toy.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    embedding = "model.language_model.embed_tokens.weight"
    assert all("multi_modal_projector" in name or name == embedding for name in moved)
    rows = (before[embedding] != after[embedding]).any(1).nonzero().flatten().tolist()
    assert rows == sorted([toy.image_start_id, toy.image_end_id])


def test_the_mean_by_sample_and_the_seed() -> None:
    values = torch.tensor([[1.0], [3.0], [10.0]])
    assert mean_by_sample(values, torch.tensor([0, 0, 1]), 2).tolist() == [[2.0], [10.0]]
    seeds = {seed_number([0, 1, step, 0, rank]) for step in range(50) for rank in range(2)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**62 for seed in seeds)
