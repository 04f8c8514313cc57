"""The memory bank enlarges graphs and keeps gradients to the new samples."""

import torch

from exgra_med.alignment import MultiGraphAlignment
from exgra_med.alignment.memory import MemoryBank


def test_graphs_grow_to_the_limit_and_gradients_stay_with_the_new() -> None:
    bank, align = MemoryBank(2), MultiGraphAlignment(16, dropout=0.0)
    parts = [[torch.randn(4, 16, requires_grad=True) for _ in range(3)] for _ in range(4)]
    sizes = []
    for views in parts:
        output = align(*bank.extend(views), generator=0)
        sizes.append(output.num_nodes)
    assert sizes == [4, 8, 12, 12]
    whole = [torch.cat([parts[number][view] for number in (3, 2, 1)]) for view in range(3)]
    assert torch.equal(output.loss, align(*whole, generator=0).loss)
    output.loss.backward()
    assert all(view.grad is not None and view.grad.abs().max() > 0 for view in parts[3])
    assert all(view.grad is None for views in parts[:3] for view in views)
    bank.clear()
    assert bank.extend(parts[0])[0].shape[0] == 4
