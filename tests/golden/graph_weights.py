"""The graph layers of an original checkpoint under the names that ours have."""

import torch

PREFIX = "model.message_pass_node_features."


def rename_original(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `MultiGraphAlignment.load_state_dict` takes; all other tensors are left out."""
    return {
        "message_passing." + name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(PREFIX)
    }
