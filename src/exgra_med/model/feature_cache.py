"""Features of pictures from a frozen vision tower: computed once, kept in the user's cache.

    ~/.cache/exgra-med/features/TOWER/PICTURE.safetensors

TOWER is a hash of all that the features depend on beside the picture: the weights of the tower,
configuration, image processor, precision, kind of device and versions. PICTURE is a hash of the
file and of what its name selects in it. A file is written whole or not at all, so a killed run
goes on where it was, and several processes may fill one folder.

In training a picture is not even decoded: a blank stand-in of its size carries the features.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL
import torch
import transformers
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

import exgra_med
from exgra_med.data.images import ImageFolder
from exgra_med.data.selection import split_name
from exgra_med.errors import DamagedFileError
from exgra_med.files import cache_folder, write_bytes
from exgra_med.model.batch import FEATURES, stand_in
from exgra_med.model.bundle import Bundle

VERSION = 2
"""Of the files; another one computes anew."""
_SIZE = "size"
_DIGEST_BYTES = 32
"""Of the SHA-256 at the end of a file."""


@dataclass(eq=False)
class FeatureCache:
    """The features of the pictures of one folder, from one tower."""

    folder: Path
    """Where they are kept; see `tower_folder`."""
    images: ImageFolder
    paths: dict[str, Path] = field(default_factory=dict)
    """File of each picture that is known to be kept."""

    def keep(self, bundle: Bundle, name: str, where: str = "") -> bool:
        """See that a picture is kept; says whether it had to be computed.

        Raises:
            DataError: as for `ImageFolder.open`.
            DiskFullError, WriteError: the cache cannot be written.
        """
        picture = hashlib.sha256(self.images.locate(name, where).read_bytes())
        picture.update(repr(split_name(name)[1]).encode())
        path = self.folder / f"{picture.hexdigest()[:40]}.safetensors"
        is_new = not path.is_file()
        if is_new:
            image = self.images.open(name, where)
            features = bundle.image_features(image)
            kept = {str(n): each.cpu().contiguous() for n, each in enumerate(features)}
            content = save(kept | {_SIZE: torch.tensor(image.size)})
            write_bytes(path, content + hashlib.sha256(content).digest())
        self.paths[name] = path
        return is_new

    def open(self, name: str, where: str = "") -> Image.Image:
        """The stand-in of a picture that is kept.

        Raises:
            DamagedFileError: its file was removed, or is not what was written.
        """
        path = self.paths[name]
        try:
            raw = path.read_bytes()
            content = raw[:-_DIGEST_BYTES]
            if hashlib.sha256(content).digest() != raw[-_DIGEST_BYTES:]:
                raise ValueError("not what was written there: its SHA-256 differs")
            tensors = load(content)
        except (OSError, ValueError) as error:
            raise DamagedFileError(
                f"{where}: the features of {name!r} in {path} cannot be read ({error}).",
                "Delete that file and go on with --resume; it is computed anew.",
            ) from error
        size = tensors.pop(_SIZE).tolist()
        return stand_in((size[0], size[1]), [tensors[str(n)] for n in range(len(tensors))])


def tower_folder(bundle: Bundle, precision: str) -> Path:
    """Where the features from a bundle's tower are kept; the folder is made."""
    tower, config = bundle.tower, bundle.model.config
    about = {
        "versions": [VERSION, exgra_med.__version__, torch.__version__, transformers.__version__],
        "pillow": PIL.__version__,
        "device": bundle.model.device.type,
        "precision": precision,
        "config": _without_text(config.to_dict()),
        "attention": config._attn_implementation,
        "processor": bundle.processor.image_processor.to_dict(),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, tensor in tower.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    folder = cache_folder() / FEATURES / digest.hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _without_text(config: dict[Any, Any]) -> dict[str, Any]:
    """What of a configuration is about pictures: neither the language model nor a path."""
    kept = {n: v for n, v in config.items() if n != "text_config" and not str(n).startswith("_")}
    return {n: _without_text(v) if isinstance(v, dict) else v for n, v in kept.items()}


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
