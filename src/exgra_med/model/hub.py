"""Checkpoints from the hub, by name."""

from pathlib import Path

from exgra_med.errors import CheckpointError

FILES = ["*.json", "*.jinja", "*.safetensors", "*.model", "*.bin", "*.txt"]
"""What a checkpoint consists of; code is never downloaded."""


def download(name: str, revision: str | None = None) -> Path:
    """Download a checkpoint, or find it in the cache.

    Args:
        name: `owner/name` on the hub that `HF_ENDPOINT` names.
        revision: a commit, tag or branch.

    Raises:
        CheckpointError: the hub cannot be reached, or has no such checkpoint.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"There is no folder {name}, and the hub does not give a checkpoint of that name "
            f"({type(error).__name__}).",
            "Check the name and the network, or give a local folder.",
        ) from error
