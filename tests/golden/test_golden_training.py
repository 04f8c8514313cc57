"""Whole training steps of the original: losses and the gradient of every parameter.

Settings of parity: pooling over padding, exhaustive search, the original's own noise and dropout.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_weights import rename_original
from safetensors.torch import load_file

from exgra_med.alignment import loss as alignment_loss
from exgra_med.model.batch import IGNORED, Batch, Rows
from exgra_med.model.bundle import Bundle
from exgra_med.model.convert.original import import_original, rename
from exgra_med.recipe.schema import StageAlignment
from exgra_med.training import objective as training_objective
from exgra_med.training.objective import Objective
from exgra_med.training.trainable import set_trainable

DIRECTIONS = [
    f"{first}_to_{second}"
    for view in ("img", "txt", "long")
    for first, second in ((view, "bary"), ("bary", view))
]
# Relative to the largest entry of each tensor. Measured worst: 1.7e-6.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def stored(shared: Path) -> Path:
    return shared / "golden" / "d_alignment"


@pytest.fixture
def bundle(golden: Path) -> Iterator[Bundle]:
    folder = golden / "model"
    yield import_original(folder / "checkpoint_none", folder / "clip_tiny").bundle


def load_weights(bundle: Bundle, weights: dict[str, torch.Tensor]) -> None:
    renamed, _ = rename(weights, "mlp2x_gelu", bundle.model.config)
    missing, unexpected = bundle.model.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert all(name.startswith("model.vision_tower") for name in missing)


def rows_of(ids: torch.Tensor, mask: torch.Tensor, labels: Any, first_segment: int) -> Rows:
    count, length = ids.shape
    targets = torch.full_like(ids, IGNORED)
    segment = torch.full_like(ids, -1)
    if labels is not None:
        targets[:, :-1] = labels[:, 1:]
    else:
        segment = torch.arange(first_segment, first_segment + count).unsqueeze(1).expand_as(ids)
    return {
        "input_ids": ids,
        "position_ids": torch.arange(length).expand(count, -1),
        "targets": targets,
        "segment": segment,
        "attention_mask": mask.long(),
    }


def batch_of(case: dict[str, torch.Tensor], images: torch.Tensor) -> Batch:
    count = len(case["batch.input_ids"])
    names = ("input_ids", "attention_mask", "labels")
    texts = [("merge_sentence_id", "attention_mask_F", 0)]
    texts.append(("merge_sentence_id_long", "attention_mask_F_long", count))
    calls = [rows_of(*(case[f"batch.{name}"] for name in names), 0)]
    calls += [rows_of(case[f"batch.{i}"], case[f"batch.{m}"], None, at) for i, m, at in texts]
    return {
        "ids": [str(number) for number in range(count)],
        "calls": calls,
        "pixel_values": images,
        "num_nodes": count,
        "node_of_image": torch.arange(count),
        "has_extended": True,
    }


def expect_gradients(objective: Objective, case: dict[str, torch.Tensor], skip: str = "-") -> None:
    stored = {
        name.removeprefix("paramgrad."): value
        for name, value in case.items()
        if name.startswith("paramgrad.") and skip not in name
    }
    renamed, graph = rename(stored, "mlp2x_gelu", objective.model.config)
    wanted = {f"model.{name}": value for name, value in renamed.items()}
    if objective.alignment is not None:
        wanted |= {f"alignment.{name}": value for name, value in rename_original(graph).items()}
    found = {name: each.grad for name, each in objective.named_parameters()}
    for name, value in wanted.items():
        assert found[name] is not None, name
        if "embed_tokens" in name:
            # The padding token's row learns in the original, whose pooling reads it; ours is fixed.
            value = value.clone()
            value[objective.model.config.text_config.pad_token_id] = 0.0
        error = float((found[name] - value).abs().max()) / max(float(value.abs().max()), 1e-9)
        assert error <= TOLERANCE, f"{name}: off by {error:.1e} of its largest entry"
    assert len(wanted) >= 4


def idle_call(bundle: Bundle) -> Rows:
    """A call that takes one image and is read by nothing."""
    ids = torch.full((1, bundle.num_image_tokens), bundle.image_token_id)
    return rows_of(ids, torch.ones_like(ids), torch.full_like(ids, IGNORED), 0)


@pytest.mark.parametrize(
    "name",
    [
        "full_after_de_eval",
        "full_after_de_batch2_eval",
        "full_after_de_train_dropout",
        "full_after_de_mixed_text_only_eval",
        "full_embed_level_eval",
    ],
)
def test_a_stage_2_step_equals_the_original(
    name: str, stored: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the mixed step the second record has no image and a zero one in its place, and the
    original gives every later record the image before its own, the last image to none (defect A3):
    this batch is built so."""
    case = load_file(stored / f"{name}.safetensors")
    weights = load_file(stored / "weights_none.safetensors")
    load_weights(bundle, weights)
    set_trainable(bundle, ["connector", "language"])
    settings = StageAlignment(pooling="padded", solver="exhaustive")
    objective = Objective(bundle, settings)
    assert objective.alignment is not None
    graph = {key: value for key, value in weights.items() if "message_pass" in key}
    objective.alignment.load_state_dict(rename_original(graph))

    if "embed_level" in name:
        # The original without `--after_de`: texts are pooled before the language model.
        embed, pool = bundle.model.get_input_embeddings(), training_objective.pool_views

        def pool_embeddings(batch: Batch, features: Any, states: Any) -> list[torch.Tensor]:
            return pool(batch, features, [embed(rows["input_ids"]) for rows in batch["calls"]])

        monkeypatch.setattr(training_objective, "pool_views", pool_embeddings)
    noise = [torch.stack([case[f"{way}.gumbel_edges"] for way in DIRECTIONS])[None]]
    noise.append(case["gumbel_nodes"][None, None])
    monkeypatch.setattr(alignment_loss, "gumbel", lambda *_: noise.pop().float())
    with_dropout = f"{DIRECTIONS[0]}.dropout_mask" in case
    if with_dropout:
        masks = torch.stack([case[f"{way}.dropout_mask"] for way in DIRECTIONS])
        kept = torch.stack(masks.split(masks.shape[1] // 2, dim=1)).float()
        monkeypatch.setattr(alignment_loss.torch, "rand", lambda *_, **__: kept)
    objective.train(with_dropout)

    monkeypatch.setattr(
        alignment_loss.MultiGraphAlignment, "matching_accuracy", lambda *_: float("nan")
    )
    batch = batch_of(case, case["batch.images"])
    if "text_only" in name:
        batch["calls"].append(idle_call(bundle))
    losses = objective(batch, [0])
    language = losses["language_loss_sum"] / losses["num_supervised"]
    total = language + losses["alignment_loss"]
    assert float(language.detach()) == pytest.approx(float(case["loss.lm"]), abs=5e-6)
    assert float(losses["alignment_loss"].detach()) == pytest.approx(
        float(case["loss.align"]), abs=1e-6
    )
    total.backward()
    expect_gradients(objective, case)


@pytest.mark.parametrize(
    ("name", "order"), [("stage1_images", [0, 1, 2, 3]), ("stage1_mixed", [0, 1])]
)
def test_a_stage_1_step_equals_the_original(
    name: str, order: list[int], stored: Path, bundle: Bundle
) -> None:
    """In `stage1_mixed` the original gives the third record the zero image of the second, which
    has none (defect A3), and trains the embeddings of its text (A14): here the batch is built
    with that wrong image, and only the two rows that we train are compared."""
    case = load_file(stored / f"{name}.safetensors")
    weights = {
        key.removeprefix("weights."): value
        for key, value in case.items()
        if key.startswith("weights.")
    }
    load_weights(bundle, weights)
    set_trainable(bundle, ["connector", "image_tokens"])
    objective = Objective(bundle, None)
    objective.train()
    batch = batch_of(case, case["batch.images"][order])
    batch["calls"] = batch["calls"][:1]
    losses = objective(batch, [0])
    loss = losses["language_loss_sum"] / losses["num_supervised"]
    assert float(loss.detach()) == pytest.approx(float(case["loss"]), abs=5e-6)
    loss.backward()
    expect_gradients(objective, case, skip="embed_tokens")
    rows = [*bundle.marker_ids]
    found = bundle.model.get_input_embeddings().weight.grad
    wanted = case["paramgrad.model.embed_tokens.weight"]
    torch.testing.assert_close(found[rows], wanted[rows], atol=1e-6, rtol=1e-4)
    assert not found[[row for row in range(len(found)) if row not in rows]].any()
