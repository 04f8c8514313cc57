"""The rivals of the alignment: their formulas by hand, packed batches against single records."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training_objective import PADDED, make_batch

from any_models import PACKED, bundle_of, examples, families
from exgra_med.data.records import Prepared, Record
from exgra_med.errors import RecipeError, TrainingError
from exgra_med.model.batch import Batch, Layout, StageDataset
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.load import load_recipe
from exgra_med.recipe.schema import AuxiliarySettings, TextSettings
from exgra_med.terminal import Silent
from exgra_med.training.auxiliary import pooled_patches, token_contrast, viral, vista
from exgra_med.training.log import read_log
from exgra_med.training.objective import Objective
from exgra_med.training.stages import begin_run, train_run
from exgra_med.training.trainable import recompute_activations, set_trainable

LOSSES = ["vista", "token-contrast", "viral"]
RECORDS = 4


def objective_of(toy: Bundle, loss: str) -> Objective:
    torch.manual_seed(0)
    settings = AuxiliarySettings.model_validate({"loss": loss})
    return Objective(toy, None, settings).double()


def test_vista_by_hand() -> None:
    states = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 0.0]])
    words = torch.tensor([[1.0, 2.0], [3.0, 0.0], [1.0, 1.0], [7.0, 7.0]])
    loss = vista(states, torch.tensor([4, 4, 6]), words, torch.tensor([4, 4, 6, 8]))
    first = (0.5 * (0 + 4) / 2 + 1.0 * (4 + 0) / 2) / 2  # the last image token of record 4
    second = (1 + 1) / 2
    # Record 8 has words and no image.
    assert float(loss) == pytest.approx((first + second) / 2)


def test_token_contrast_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]])
    words = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    ids = torch.tensor([7, 3, 7])  # the word 7 stands in both records
    loss = token_contrast(images, torch.tensor([0, 1, 5]), words, ids, torch.tensor([0, 1, 1]))
    near, far = math.exp(1 / 0.07), math.exp(0)
    # Record 0 has the word 7 of the two words, record 1 has both; record 5 has no answer.
    assert float(loss) == pytest.approx(-math.log(near / (near + far)) / 2, abs=1e-6)


def test_viral_by_hand_and_patches_of_a_token() -> None:
    states = torch.tensor([[3.0, 0.0], [0.0, -2.0]])
    goals = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert float(viral(states, goals)) == pytest.approx((-1 + 1) / 2)
    # Two images of 4 x 4 patches; a token stands for 2 x 2 of them.
    grid = torch.arange(32.0).view(2, 4, 4)
    pooled = pooled_patches(grid.reshape(2, 16, 1), 4).flatten()
    own = [grid[n, y : y + 2, x : x + 2].mean() for n in (0, 1) for y in (0, 2) for x in (0, 2)]
    assert torch.equal(pooled, torch.stack(own))
    with pytest.raises(TrainingError, match="16 patches and 3 tokens"):
        pooled_patches(torch.zeros(1, 16, 1), 3)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layout", [Layout(tokens_per_row=199), Layout(tokens_per_row=4000)])
def test_packed_equals_padded_in_value_and_gradient(
    toy: Bundle, sample: Prepared, loss: str, layout: Layout
) -> None:
    set_trainable(toy, ["connector", "language"])
    found = []
    for own in (layout, PADDED):
        objective = objective_of(toy, loss)
        batch = make_batch(toy, sample, own, RECORDS)
        batch["pixel_values"] = batch["pixel_values"].double()
        objective.zero_grad()
        value = objective.train()(batch, [0])["auxiliary_loss"]
        value.backward()
        gradients = {
            n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None
        }
        found.append((value.detach(), gradients))
    (one, first), (other, second) = found
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert first.keys() == second.keys() and any("projector" in name for name in first)
    for name in first:
        scale = float(second[name].abs().max())
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-5 * scale + 1e-12)


@pytest.mark.parametrize("loss", ["vista", "viral"])
def test_a_batch_is_the_mean_of_its_records(toy: Bundle, sample: Prepared, loss: str) -> None:
    objective = objective_of(toy, loss).eval()
    batches = [make_batch(toy, sample, PADDED, RECORDS)]
    for number in range(RECORDS):
        records = sample.records("train")[: 5 * RECORDS : 5][number : number + 1]
        batches.append(_batch_of(toy, sample, records))
    values = []
    for batch in batches:
        batch["pixel_values"] = batch["pixel_values"].double()
        values.append(float(objective(batch, [0])["auxiliary_loss"]))
    assert values[0] == pytest.approx(sum(values[1:]) / RECORDS, rel=1e-6)


def _batch_of(toy: Bundle, sample: Prepared, records: list[Record]) -> Batch:
    data = StageDataset(records, sample.image_folder(10**8), toy, TextSettings(), True, PADDED)
    return data.collate([data[number] for number in range(len(records))])


@pytest.mark.parametrize("loss", LOSSES)
def test_a_model_of_any_family_packs_as_it_pads(loss: str) -> None:
    values = []
    for pads in (True, False):
        bundle = bundle_of("llava")
        if pads:
            bundle.facts = replace(bundle.facts, text_packing=None, image_packing=None)
        torch.manual_seed(0)
        settings = AuxiliarySettings.model_validate({"loss": loss})
        objective = Objective(bundle, None, settings).train()
        found = objective(bundle.collate(examples(bundle), PACKED), [0])["auxiliary_loss"]
        found.backward()
        (weight, *_) = bundle.part("connector")
        values.append([float(found.detach()), float(weight.grad.norm())])
    assert values[0] == pytest.approx(values[1], rel=1e-4) and min(map(abs, values[0])) > 0


@families()
def test_every_family_is_held_to_its_own_patches_or_refused(name: str) -> None:
    settings = AuxiliarySettings(loss="viral")
    bundle = bundle_of(name)
    if name in ("llava", "gemma3", "idefics3", "smolvlm", "internvl"):
        objective = Objective(bundle, None, settings).train()
        found = objective(bundle.collate(examples(bundle), PACKED), [0])["auxiliary_loss"]
        assert -1 <= float(found.detach()) <= 1
        return
    with pytest.raises(TrainingError, match="not known what the tower saw"):
        Objective(bundle, None, settings)


def test_recomputed_layers_are_not_counted_twice(toy: Bundle, sample: Prepared) -> None:
    set_trainable(toy, ["connector", "language"])
    values = []
    for recompute in (False, True):
        if recompute:
            recompute_activations(toy)
        objective = objective_of(toy, "viral")
        batch = make_batch(toy, sample, PADDED, RECORDS)
        batch["pixel_values"] = batch["pixel_values"].double()
        objective.zero_grad()
        value = objective.train()(batch, [0])["auxiliary_loss"]
        value.backward()
        values.append([float(value), float(objective.auxiliary.projector[0].weight.grad.sum())])
    assert values[0] == pytest.approx(values[1])


def test_viral_holds_what_the_tower_saw(toy: Bundle, sample: Prepared) -> None:
    """Drawn to the tower alone, the middle layer comes near to it."""
    set_trainable(toy, ["connector", "language"])
    objective = objective_of(toy, "viral").train()
    batch = make_batch(toy, sample, PADDED, RECORDS)
    batch["pixel_values"] = batch["pixel_values"].double()
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 1e-3)
    values = []
    for _ in range(12):
        value = objective(batch, [0])["auxiliary_loss"]
        values.append(float(value))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert values[-1] < values[0] - 0.3


@pytest.mark.parametrize("loss", LOSSES)
def test_a_stage_trains_with_it_and_logs_it(tmp_path: Path, loss: str) -> None:
    changes = ["stages.aligned.alignment=null", "stages.aligned.max_steps=2"]
    changes += [f"stages.aligned.auxiliary.loss={loss}", "stages.aligned.auxiliary.weight=0.5"]
    loaded = load_recipe("debug/tiny", changes)
    run = begin_run(tmp_path / "run", loaded.recipe, False)
    train_run(run, Silent())
    steps = [e for e in read_log(run.log) if e["kind"] == "train" and e["stage"] == "aligned"]
    assert len(steps) == 2
    for each in steps:
        expected = each["language_loss"] + 0.5 * each["auxiliary_loss"]
        assert each["loss"] == pytest.approx(expected, rel=1e-5)


def test_it_does_not_go_with_shards() -> None:
    changes = ["stages.aligned.auxiliary.loss=vista", "stages.aligned.sharding=full"]
    with pytest.raises(RecipeError, match="auxiliary"):
        load_recipe("debug/tiny", changes)
