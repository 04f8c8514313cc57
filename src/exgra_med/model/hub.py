"""Checkpoints of the hub by name: downloads are resumed, and every file is checked by its hash."""

import hashlib
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from exgra_med.data.records import file_sha256
from exgra_med.digests import DIGESTS
from exgra_med.errors import CheckpointError
from exgra_med.files import write_text
from exgra_med.model.bundle import CONFIG, read_json_object

WEIGHTS = "*.safetensors"
CHECKPOINT_FILES = ["*.json", "*.jinja", WEIGHTS, "*.model", "*.txt", "README.md"]
"""The files of a checkpoint; code is never downloaded."""
PICKLED_WEIGHTS = ["pytorch_model*.bin", "open_clip_pytorch_model.bin"]
"""Weights of older repositories, downloaded where there is no safetensors file."""
VERIFIED = "verified.txt"
"""Names of the files that were checked, one a line, so that each is checked once."""


def download_checkpoint(name: str, revision: str | None = None) -> Path:
    """Download a checkpoint `owner/name` of the hub that `HF_ENDPOINT` names, or find it in the
    cache. The revision is a commit, tag or branch.

    Raises:
        CheckpointError: the hub cannot be reached, has no such checkpoint, or sent other bytes
            than it announced; these files are deleted.
    """
    folder = _download(name, CHECKPOINT_FILES, revision)
    if not any(folder.glob("*.safetensors")):
        folder = _download(name, PICKLED_WEIGHTS, revision)
    check_hashes(folder)
    return folder


def download_settings(name: str) -> Path:
    """Download everything of a checkpoint `owner/name` but its weights, or find it in the cache.

    Raises:
        CheckpointError: as for `download_checkpoint`.
    """
    folder = _download(name, [each for each in CHECKPOINT_FILES if each != WEIGHTS], None)
    check_hashes(folder)
    return folder


def _download(name: str, patterns: list[str], revision: str | None, tries: int = 3) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns,
                # It names files that are not fetched; the hub has hashes of its own.
                ignore_patterns=[DIGESTS],
                endpoint=endpoint,
            )
        )
    except (OSError, HFValidationError, transport_error()) as error:
        if isinstance(error, transport_error()) and tries > 1:
            # The connection broke: older clients do not retry by themselves.
            return _download(name, patterns, revision, tries - 1)
        where = f"{name} at {revision}" if revision else name
        raise CheckpointError(
            f"There is no folder {name}, and the hub does not give {where} "
            f"({type(error).__name__}).",
            "Check the name and the network and start again; what was downloaded is kept.",
        ) from error


def ask_hub(name: str, revision: str) -> None:
    """Ask the hub once whether it has a checkpoint `owner/name`.

    For work that can go on without a hub: a download of a commit asks again and again, for half a
    minute.

    Raises:
        CheckpointError: the hub cannot be reached, or has no such checkpoint.
    """
    from huggingface_hub import HfApi

    try:
        HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(
            name, revision=revision, timeout=10
        )
    except (OSError, transport_error()) as error:
        raise CheckpointError(
            f"The hub does not give {name} ({type(error).__name__}).",
            "Check the network, and the hub that HF_ENDPOINT names.",
        ) from error


def transport_error() -> type[Exception]:
    """The error class of a broken connection; it depends on the version of the hub's client."""
    from huggingface_hub import get_session

    return import_module(type(get_session()).__module__.partition(".")[0]).HTTPError


def download_config(name: str, file: str = CONFIG) -> dict[str, Any]:
    """The `config.json` of a repository, or another file of settings, without its weights.

    Raises:
        CheckpointError: the hub cannot be reached, or has no such file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        path = hf_hub_download(name, file, endpoint=os.environ.get("HF_ENDPOINT"))
    except (OSError, HFValidationError) as error:
        raise CheckpointError(
            f"There is no folder {name}, and the hub does not give its {file} "
            f"({type(error).__name__}).",
            "Check the name and the network.",
        ) from error
    return read_json_object(Path(path))


def check_hashes(snapshot: Path) -> None:
    """Compare every file of a snapshot with the hash that the hub announced.

    The cache names a blob by that hash: SHA-256 for large files, git's SHA-1 for small ones.

    Raises:
        CheckpointError: names the files that differ; they are deleted from the cache.
    """
    record = snapshot.parent.parent / VERIFIED
    known = set(record.read_text(encoding="utf-8").split()) if record.is_file() else set()
    wrong = []
    for path in sorted(path for path in snapshot.rglob("*") if path.is_file()):
        blob = path.resolve()
        if not path.is_symlink() or blob.name in known:
            continue
        if blob.name == digest(blob):
            known.add(blob.name)
        else:
            wrong.append(path.name)
            path.unlink()
            blob.unlink()
    write_text(record, "\n".join(sorted(known)) + "\n")
    if wrong:
        raise CheckpointError(
            f"The hub sent other bytes than it announced for {', '.join(wrong)}.",
            "They were deleted; start again.",
        )


def digest(blob: Path) -> str:
    """The hash of a blob, of the kind that its name is."""
    if len(blob.name) == 64:
        return file_sha256(blob)
    content = blob.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
