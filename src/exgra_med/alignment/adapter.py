"""Alignment for any image-text-to-text model, in a few lines of anyone's training loop.

    adapter = AlignmentAdapter(model)                       # next to the model, in the optimizer
    with adapter.reuse_image_features(model):               # the vision tower runs once
        lm_loss = model(**batch).loss
    aligned = adapter(model, vision_inputs, images_per_sample, answer, extended)
    (lm_loss + aligned.loss).backward()

The model needs what 85 of the 96 image-text-to-text architectures of transformers have:
`get_image_features`, `get_decoder` and `get_input_embeddings`. Nothing here imports transformers.

Shapes: S samples, G of them with an image, T tokens, D features of the language model.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from exgra_med.alignment.errors import MatchingError
from exgra_med.alignment.loss import AlignmentOutput, Generator, MultiGraphAlignment
from exgra_med.alignment.pooling import AttentionPooling, mean_pool

NEEDED = ("get_image_features", "get_decoder", "get_input_embeddings")


def image_nodes(features: Any, images_per_sample: Sequence[int]) -> torch.Tensor:
    """Mean over an image's tokens, then over a sample's images: [G, D] float32.

    Args:
        features: what `get_image_features` returned: a tensor [images, T, D] or [images * T, D],
            a list of [T_i, D], or an output that holds one of them as `pooler_output`. Tiles of
            one image may count as images, if all images have as many.
        images_per_sample: [S]; samples without an image have no node.

    Raises:
        MatchingError: the features cannot be divided among the images.
    """
    features = getattr(features, "pooler_output", features)
    total = sum(images_per_sample)
    if total == 0:
        raise MatchingError("No sample of the batch has an image.")
    if isinstance(features, torch.Tensor):
        flat = features.ndim == 2
        rows = list(features.chunk(total)) if flat else list(features.flatten(1, -2))
    else:
        rows = list(features)
    if len(rows) % total:
        raise MatchingError(f"{len(rows)} image features do not belong to {total} images.")
    tiles = len(rows) // total
    means = torch.stack([row.float().flatten(0, -2).mean(0) for row in rows])
    means = means.view(total, tiles, -1).mean(1)
    return torch.stack([part.mean(0) for part in means.split(list(images_per_sample)) if len(part)])


class AlignmentAdapter(nn.Module):
    """The objective, and the little that lies between a model and its three views.

    Args:
        model: an image-text-to-text model; only its sizes are read, it is not kept.
        pooling: `tokens`, `padded` or `attention`, for the two texts.
        settings: of `MultiGraphAlignment`.

    Raises:
        MatchingError: the model lacks one of `NEEDED`.
    """

    def __init__(self, model: nn.Module, pooling: str = "tokens", **settings: Any) -> None:
        super().__init__()
        missing = [name for name in NEEDED if not hasattr(model, name)]
        if missing:
            raise MatchingError(
                f"{type(model).__name__} has no {' and no '.join(missing)}; alignment needs image "
                "features in the space of the language model."
            )
        dim = model.get_input_embeddings().weight.shape[1]  # pyrefly: ignore
        self.pooling = pooling
        self.attention = AttentionPooling(dim) if pooling == "attention" else None
        self.align = MultiGraphAlignment(dim, **settings)
        self._features: Any = None

    def forward(
        self,
        model: Any,
        vision_inputs: Mapping[str, Any],
        images_per_sample: Sequence[int],
        answer: Mapping[str, torch.Tensor],
        extended: Mapping[str, torch.Tensor],
        *,
        generator: Generator = None,
    ) -> AlignmentOutput:
        """Loss of one batch; samples without an image leave the graphs.

        Args:
            model: the model, under the same forward as its main pass where it is sharded.
            vision_inputs: the processor's output for images (`pixel_values`, `image_grid_thw`,
                `image_sizes`, ...), as `get_image_features` takes it.
            images_per_sample: [S].
            answer: `input_ids` and `attention_mask` [S, T] of the answers alone.
            extended: the same of the extended answers.
            generator: source of everything random in the step.
        """
        features, self._features = self._features, None
        if features is None:
            features = model.get_image_features(**vision_inputs)
        image = image_nodes(features, images_per_sample)
        present = torch.tensor([count > 0 for count in images_per_sample])
        texts = [self.text_nodes(model, text, present) for text in (answer, extended)]
        return self.align(image, *texts, generator=generator)

    def text_nodes(
        self, model: Any, text: Mapping[str, torch.Tensor], keep: torch.Tensor
    ) -> torch.Tensor:
        """Pooled last hidden states of the texts of the samples to `keep` [S]: [G, D] float32.

        `model` gives embeddings and decoder; `text` has token ids and mask, [S, T] each.
        """
        ids, mask = (text[name][keep.to(text[name].device)] for name in TEXT_KEYS)
        hidden = model.get_decoder()(
            inputs_embeds=model.get_input_embeddings()(ids), attention_mask=mask, use_cache=False
        )[0]
        if self.attention is not None:
            return self.attention(hidden, mask)
        return mean_pool(hidden, mask, self.pooling)

    @contextmanager
    def reuse_image_features(self, model: Any) -> Iterator[None]:
        """Keep the image features of the main pass for the next call, so that they exist once.

        The inner model's `get_image_features` is watched for the time of the `with` block.
        """
        inner = model.base_model
        original = inner.get_image_features
        own = vars(inner).get("get_image_features")

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._features = original(*args, **kwargs)
            return self._features

        inner.get_image_features = watched
        try:
            yield
        finally:
            del inner.get_image_features
            if own is not None:
                inner.get_image_features = own


TEXT_KEYS = ("input_ids", "attention_mask")
