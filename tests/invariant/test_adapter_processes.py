"""The adapter on two processes gives the gradients of one process with the whole batch."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from exgra_med.alignment.adapter import AlignmentAdapter
from families import make

SAMPLES, RANKS = 6, 2


def parts(samples: slice) -> tuple[Any, dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """A model with its adapter, the samples' pass and their two texts; the last has no image."""
    model, _ = make("llava")
    # Layers of the tower that its features do not use have no gradient, which DDP waits for.
    model.model.vision_tower.requires_grad_(False)
    torch.manual_seed(0)
    model.alignment_adapter = AlignmentAdapter(model.train(), scope="global", dropout=0.0)
    image = torch.full((SAMPLES, 16), model.config.image_token_id)
    image[-1] = 7
    words = [torch.randint(10, 90, (SAMPLES, length)) for length in (3, 4, 6)]
    ids = torch.cat([image, words[0]], 1)[samples]
    pixels = torch.randn(SAMPLES, 3, 56, 56)[: SAMPLES - 1][samples]
    masked = [{"input_ids": w[samples], "attention_mask": w[samples] * 0 + 1} for w in words[1:]]
    batch = {"input_ids": ids, "attention_mask": ids * 0 + 1, "labels": ids}
    return model, batch | {"pixel_values": pixels}, masked


def gradients(model: Any, wrapped: Any, batch: dict, texts: list) -> dict[str, torch.Tensor]:
    adapter = model.alignment_adapter
    with adapter.watch(wrapped):
        lm_loss = wrapped(**batch).loss
    aligned = adapter(*texts, generator=7)
    assert aligned.num_nodes == SAMPLES - 1
    (0.0 * lm_loss + aligned.loss).backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    return {
        name: grad.full_tensor() if hasattr(grad, "full_tensor") else grad
        for name, grad in found.items()
        if grad is not None
    }


def work(rank: int, port: int, folder: str, way: str) -> None:
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=RANKS)
    each = SAMPLES // RANKS
    model, batch, texts = parts(slice(rank * each, (rank + 1) * each))
    wrapped = model
    if way == "ddp":
        wrapped = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (RANKS,))
        for layer in model.get_decoder().layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    found = gradients(model, wrapped, batch, texts)
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_two_processes_have_the_gradients_of_one(tmp_path: Path, way: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(tmp_path), way), nprocs=RANKS)
    found = torch.load(tmp_path / "found.pt")
    model, batch, texts = parts(slice(None))
    expected = gradients(model, model, batch, texts)
    assert found.keys() == expected.keys()
    assert float(found["model.multi_modal_projector.linear_1.weight"].abs().max()) > 0
    for name, gradient in expected.items():
        # By another order of additions; a bias of keys has no gradient but rounding.
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name
