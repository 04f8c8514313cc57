"""Image vectors of any image-text-to-text model, read off what enters its language model.

At the image placeholders of a text stands what vision tower and connector made of the images,
tiles, several images and unequal sizes included; so nothing has to be known of how the model takes
its images, and the tower runs once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
        f"The configuration of {type(config).__name__} names no image token, so images do not "
        "stand among its text: a model that reads them through cross-attention gives no vectors "
        "of them."
    )


@contextmanager
def decoder_inputs(model: Any) -> Iterator[list[Tensor]]:
    """Collect the vectors [B, T, D] that enter the language model, one entry for each pass."""
    seen: list[Tensor] = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    try:
        yield seen
    finally:
        handle.remove()
