"""Graphs over two processes are the graphs of one process with the whole batch."""

import socket

import pytest
import torch
import torch.distributed as dist

from exgra_med.alignment import MatchingError, MultiGraphAlignment

ROWS, DIM = (5, 3), 16


def whole() -> tuple[MultiGraphAlignment, list[torch.Tensor]]:
    torch.manual_seed(0)
    align = MultiGraphAlignment(DIM, scope="global")
    return align, [torch.randn(sum(ROWS), DIM) for _ in range(3)]


def work(rank: int, port: int, folder: str) -> None:
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    align, views = whole()
    own = [view.split(ROWS)[rank].clone().requires_grad_() for view in views]
    output = align(*own, generator=7 + 100 * rank)  # the first rank's seed counts
    output.loss.backward()
    accuracy = align.matching_accuracy(*own)
    results = {
        "loss": output.loss.detach(),
        "nodes": output.num_nodes,
        "accuracy": accuracy,
        "views": [view.grad for view in own],
        "weights": [weight.grad for weight in align.parameters()],
    }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one_with_the_whole_batch(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    align, views = whole()
    views = [view.requires_grad_() for view in views]
    output = align(*views, generator=7)
    output.loss.backward()
    for rank, found in enumerate(ranks):
        assert found["nodes"] == sum(ROWS) == output.num_nodes
        assert torch.equal(found["loss"], output.loss)
        assert found["accuracy"] == align.matching_accuracy(*views)
        for mine, expected in zip(found["weights"], align.parameters(), strict=True):
            assert torch.allclose(mine, expected.grad, atol=1e-7)
        for mine, view in zip(found["views"], views, strict=True):
            # Averaging over the two ranks, as DDP does, halves what each rank has.
            assert torch.allclose(mine / 2, view.grad.split(ROWS)[rank], atol=1e-7)


def test_without_a_group_global_is_local() -> None:
    align, views = whole()
    local = MultiGraphAlignment(DIM, scope="local")
    local.load_state_dict(align.state_dict())
    assert torch.equal(align(*views, generator=1).loss, local(*views, generator=1).loss)


def test_no_node_on_any_rank_is_no_graph() -> None:
    align, views = whole()
    output = align(*(view[:0] for view in views), generator=1)
    assert (output.num_nodes, float(output.loss.detach())) == (0, 0.0)


def test_unknown_scopes_are_refused() -> None:
    with pytest.raises(MatchingError, match="scope"):
        MultiGraphAlignment(DIM, scope="universal")
