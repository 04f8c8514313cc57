"""Compiled layers beside plain ones: losses, gradients, names, and one compilation for all."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from test_training_estimate import SIZES
from test_training_objective import make_batch

from exgra_med.data.records import Prepared
from exgra_med.errors import RecipeError
from exgra_med.model.batch import Layout
from exgra_med.model.build import build_model
from exgra_med.model.bundle import Bundle
from exgra_med.recipe.schema import Architecture, StageAlignment
from exgra_med.training.objective import Objective
from exgra_med.training.trainable import (
    check_compiling_possible,
    compile_layers,
    recompute_activations,
    set_trainable,
)

PACKED, PADDED = Layout(tokens_per_row=512), Layout(packed=False)
CASES = [(PACKED, 3), (PACKED, 5), (PADDED, 3), (PADDED, 5)]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def layers(sample: Prepared) -> Bundle:
    """Six layers, of which one graph is expected."""
    texts = [record.question for record in sample.records("train")[:40]]
    return build_model(Architecture.model_validate(SIZES), texts, seed=0)


def losses_and_gradients(
    toy: Bundle, sample: Prepared, layout: Layout, num_records: int
) -> dict[str, torch.Tensor]:
    objective = Objective(toy, StageAlignment()).train()
    torch.manual_seed(0)
    for weight in objective.alignment.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    losses = objective(make_batch(toy, sample, layout, num_records), [0])
    objective.zero_grad()
    total = losses["language_loss_sum"] + losses["alignment_loss"]
    total.backward()
    found = {n: p.grad.clone() for n, p in objective.named_parameters() if p.grad is not None}
    return found | {name: losses[name].detach() for name in ("language_loss_sum", "alignment_loss")}


def compare(
    toy: Bundle,
    sample: Prepared,
    backend: Any,
    recompute: bool,
    cases: Sequence[tuple[Layout, int]] = CASES,
) -> None:
    set_trainable(toy, ["connector", "language"])
    if recompute:
        recompute_activations(toy)
    plain = [losses_and_gradients(toy, sample, *case) for case in cases]
    names = list(toy.model.state_dict())
    compile_layers(toy, backend)
    assert list(toy.model.state_dict()) == names
    with torch.compiler.set_stance("default"):
        compiled = [losses_and_gradients(toy, sample, *case) for case in cases]
    for one, other in zip(plain, compiled, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            scale = float(one[name].abs().max())
            # Measured with inductor: 7.6e-6.
            assert (one[name] - other[name]).abs().max() <= 5e-5 * scale + 1e-9, name


@pytest.mark.parametrize("recompute", [pytest.param(False, marks=pytest.mark.slow), True])
def test_traced_layers_give_the_same_losses_and_gradients(
    layers: Bundle, sample: Prepared, recompute: bool
) -> None:
    """Without a C++ compiler: what is traced runs as it was traced."""
    graphs = []

    def keep(graph: Any, inputs: list[Any]) -> Any:
        graphs.append(graph)
        return graph.forward

    compare(layers, sample, keep, recompute, CASES[:2])
    # One for all layers and numbers of rows.
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_layers_give_the_same_losses_and_gradients(
    layers: Bundle, sample: Prepared, recompute: bool
) -> None:
    try:
        check_compiling_possible()
    except RecipeError as error:
        pytest.skip(str(error))
    compare(layers, sample, "inductor", recompute)


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("exgra_med.training.trainable.on_cpu", lambda: True)
    with pytest.raises(RecipeError, match=r"C\+\+ compiler"):
        check_compiling_possible()
    monkeypatch.setattr("exgra_med.training.trainable.on_cpu", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="triton"):
        check_compiling_possible()
