"""Attention of short rows written out, against the fused kernel."""

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from any_models import PACKED, TEXT, bundle_of, families, pictures, record
from exgra_med.model import short_attention
from exgra_med.model.batch import TrainingExample
from exgra_med.model.short_attention import LONGEST, NAME, attention
from exgra_med.training.objective import Objective


def _inputs(length=20, heads=4, of_keys=2, dtype=torch.float64):
    shapes = (heads, of_keys, of_keys)
    torch.manual_seed(0)
    return [torch.randn(3, n, length, 8, dtype=dtype, requires_grad=True) for n in shapes]


def _with_gradients(way, module, inputs, *args, **kwargs):
    out, _ = way(module, *inputs, *args, **kwargs)
    torch.manual_seed(1)
    towards = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, towards)]


@pytest.mark.parametrize("heads, of_keys", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("mask", ["none", "everything", "packed", "added"])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_values_and_gradients_are_those_of_the_fused_kernel(heads, of_keys, mask, scaling):
    inputs = _inputs(heads=heads, of_keys=of_keys)
    module = SimpleNamespace(num_key_value_groups=heads // of_keys, is_causal=mask != "everything")
    back = torch.ones(20, 20, dtype=torch.bool).tril()
    back[9:, :9] = False
    masks = {"packed": back.expand(3, 1, 20, 20), "none": None, "everything": None}
    masks["added"] = torch.zeros(3, 1, 20, 20, dtype=torch.float64).masked_fill(~back, -1e9)
    ways = (sdpa_attention_forward, attention)
    slow, fast = (_with_gradients(w, module, inputs, masks[mask], scaling=scaling) for w in ways)
    for one, other in zip(slow, fast, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("sizes", [(5, 9, 1, 7), (22,), (LONGEST + 3, 4)], ids=str)
def test_sequences_in_one_row_are_those_apart(monkeypatch, sizes, learns):
    """Blocks of every kind of mask: causal, with a shared beginning, seen in both directions."""
    pairs = []
    real = short_attention.written_out
    monkeypatch.setattr(
        short_attention,
        "written_out",
        lambda q, *rest: pairs.append(q.shape[2] ** 2) or real(q, *rest),
    )
    monkeypatch.setattr(
        short_attention,
        "sdpa_attention_forward",
        lambda module, q, *rest, **more: (
            pairs.append(q.shape[2] ** 2) or sdpa_attention_forward(module, q, *rest, **more)
        ),
    )
    length, module = sum(sizes), SimpleNamespace(num_key_value_groups=2, is_causal=True)
    inputs = [x[:1].detach().requires_grad_(learns) for x in _inputs(length)]
    mask = torch.block_diag(*(torch.ones(n, n).tril() for n in sizes)).bool()
    mask[3:5, 2] = False  # the second sequence behind a beginning does not see the first
    mask[0, 1] = True  # one looks ahead
    mask = mask.view(1, 1, length, length)
    ways = [lambda *a, **k: sdpa_attention_forward(*a, **k), attention]
    if learns:
        slow, fast = (_with_gradients(way, module, inputs, mask) for way in ways)
    else:
        slow, fast = ([way(module, *inputs, mask)[0]] for way in ways)
    for one, other in zip(slow, fast, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert sum(pairs) == sum(n * n for n in sizes)  # nothing that is hidden was computed


def test_half_precision_differs_by_its_rounding():
    exact = _inputs()
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    exact = [x.detach().double().requires_grad_() for x in half]
    wanted = _with_gradients(sdpa_attention_forward, module, exact, None)
    got = _with_gradients(attention, module, half, None)
    for one, other in zip(wanted, got, strict=True):
        assert (one - other).norm() < 2e-2 * one.norm()


def test_a_position_that_sees_nothing_gives_no_nan():
    inputs = _inputs(dtype=torch.float32)
    module = SimpleNamespace(num_key_value_groups=2, is_causal=True)
    mask = torch.ones(3, 1, 20, 20, dtype=torch.bool).tril()
    mask[0, :, 5] = False
    assert all(x.isfinite().all() for x in _with_gradients(attention, module, inputs, mask))


@pytest.mark.parametrize("why", ["no gradient", "long", "dropout", "a soft cap", "a cache"])
def test_what_it_is_not_for_goes_the_fused_way(monkeypatch, why):
    taken = []
    monkeypatch.setattr(short_attention, "sdpa_attention_forward", lambda *a, **k: taken.append(k))
    inputs = _inputs(length=LONGEST if why == "long" else 20)
    if why == "no gradient":
        inputs = [x.detach() for x in inputs]
    if why == "a cache":
        inputs[1:] = [torch.cat([x, x], dim=2) for x in inputs[1:]]
    more = {"a soft cap": {"softcap": 30.0}, "dropout": {"dropout": 0.1}}.get(why, {})
    attention(SimpleNamespace(num_key_value_groups=2), *inputs, None, **more)
    assert len(taken) == 1


@families(["llava", "qwen3_vl"], slow=())
def test_a_model_learns_the_same_either_way(name: str) -> None:
    found = []
    for way in ("sdpa", NAME):
        bundle = bundle_of(name)
        assert bundle.model.config.get_text_config()._attn_implementation == NAME
        bundle.model.set_attn_implementation({"text_config": way})
        told = bundle.conversation(record("a", 1, "Which side?", "Left."), pictures(1), TEXT)
        batch = bundle.collate([TrainingExample("a", [told], True, [], [])], PACKED)
        Objective(bundle, None).train()(batch, [0])["language_loss_sum"].backward()
        found.append([w.grad for w in bundle.model.parameters() if w.grad is not None])
    for one, other in zip(*found, strict=True):
        assert float((one - other).abs().max()) < 1e-5 * max(float(x.abs().max()) for x in found[0])
