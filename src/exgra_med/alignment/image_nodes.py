"""Image vectors of any image-text-to-text model, read off what enters its language model.

At the image placeholders of a text stands what vision tower and connector made of the images,
tiles, several images and unequal sizes included; so nothing has to be known of how the model takes
its images, and the tower runs once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from exgra_med.errors import MatchingError

_NAMES = ("image_token_id", "image_token_index")


def image_token_id(config: Any) -> int:
    """The id of the image placeholder, by a model's configuration.

    Raises:
        MatchingError: the configuration names none, so no position is known to hold an image.
    """
    for name in _NAMES:
        if (found := getattr(config, name, None)) is not None:
            return int(found)
    raise MatchingError(
        f"{type(config).__name__} names no image token ({' or '.join(_NAMES)}), so it is not known "
        "where images stand among the text; those that a model reads through cross-attention never "
        "do."
    )


@contextmanager
def decoder_inputs(model: Any) -> Iterator[list[Tensor]]:
    """Collect the vectors [B, T, D] that enter the language model, one entry for each pass.

    A pass that is given token ids instead has no entry: of a text alone, or of a model that reads
    images through cross-attention.
    """
    seen: list[Tensor] = []

    def before(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if (vectors := kwargs.get("inputs_embeds")) is not None:
            seen.append(vectors)

    handle = model.get_decoder().register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def mean_over(vectors: Tensor, places: Tensor) -> Tensor:
    """Mean [B, D] of the vectors [B, T, D] at the places [B, T] of each row, in float32.

    Every row needs a place. What stands elsewhere, infinity and NaN included, has no effect.
    """
    own = places[..., None] != 0
    return torch.where(own, vectors.float(), 0.0).sum(1) / own.sum(1)
