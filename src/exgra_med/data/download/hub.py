"""`data prepare --download`: a dataset's hub repository into a folder, resumed where it stopped."""

import json
from pathlib import Path
from typing import Any

from exgra_med.data.download.archives import is_archive, unpack
from exgra_med.data.sources.source import Source
from exgra_med.errors import DataError, ServiceError
from exgra_med.files import scratch_folder, write_text

DOWNLOAD_FILE = "download.json"


def download_dataset(
    source: Source, folder: Path, revision: str | None = None, num_workers: int = 8
) -> dict[str, Any]:
    """Fetch a dataset's files and unpack its archives.

    Files that are already there are not fetched again; what arrived stays when it fails.

    Args:
        revision: commit or tag of the repository; where absent, the one that the source names,
            else the newest.

    Returns:
        What `download.json` says too: repository, commit, files with their sizes.

    Raises:
        DataError: the dataset has no public repository.
        ServiceError: the hub cannot be reached or refuses.
    """
    if source.hub is None:
        raise DataError(
            f"{source.name} has no public repository to download.",
            "Get its files from the publisher and give their folder as --source.",
        )
    from huggingface_hub import HfApi, snapshot_download

    try:
        commit = HfApi().dataset_info(source.hub, revision=revision or source.revision).sha
        snapshot_download(
            source.hub,
            repo_type="dataset",
            revision=commit,
            local_dir=folder,
            max_workers=num_workers,
        )
    # The hub client has a tree of network errors of several libraries; each means the same here.
    except Exception as error:
        raise ServiceError(
            f"{source.hub} could not be downloaded ({type(error).__name__}).",
            "Run the same command again: what arrived is kept.",
        ) from error
    for archive in sorted(path for path in folder.iterdir() if is_archive(path)):
        _unpack_beside(archive)
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
        if path != folder / DOWNLOAD_FILE
    }
    downloaded = {"repository": source.hub, "commit": commit, "files": files}
    write_text(folder / DOWNLOAD_FILE, json.dumps(downloaded, indent=2, sort_keys=True) + "\n")
    return downloaded


def _unpack_beside(archive: Path) -> None:
    """Unpack `x.zip` atomically as the folder `x`, unless it is there."""
    target = archive.with_name(archive.name.partition(".")[0])
    if target.exists():
        return
    with scratch_folder(target) as temporary:
        outer = temporary / "unpacked"
        unpack(archive, outer)
        inner = outer / target.name
        # Most archives hold one folder of their own name.
        (inner if inner.is_dir() and len(list(outer.iterdir())) == 1 else outer).replace(target)
