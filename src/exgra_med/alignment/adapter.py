"""Alignment for any image-text-to-text model, in a few lines of anyone's training loop.

    adapter = AlignmentAdapter(model)                       # next to the model, in the optimizer
    with adapter.reuse_image_features(model):               # the vision tower runs once
        lm_loss = model(**batch).loss
    aligned = adapter(model, vision_inputs, images_per_sample, answer, extended)
    (lm_loss + aligned.loss).backward()

The model needs `get_image_features`, `get_decoder` and `get_input_embeddings`, as most
image-text-to-text models of transformers have them. Nothing here imports transformers.

Shapes: S samples, G of them with an image, T tokens, D features of the language model.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from exgra_med.alignment.loss import AlignmentOutput, Generator, MultiGraphAlignment
from exgra_med.alignment.settings import AlignmentSettings
from exgra_med.errors import MatchingError

POOLINGS = ("tokens", "padded", "attention")


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str = "tokens") -> torch.Tensor:
    """Mean over a row's own tokens, or over the padded row as in the original; [B, D] float32.

    `hidden` is [B, T, D], `mask` [B, T], nonzero at a row's own tokens. The pooling is `tokens` or
    `padded`, which depends on the longest row of the batch.

    Raises:
        MatchingError: a row has no token, or `pooling` is neither.
    """
    if pooling == "padded":
        return hidden.float().mean(1)
    if pooling != "tokens":
        raise MatchingError(f"No mean is called {pooling!r}; there are `tokens` and `padded`.")
    own = _own_tokens(hidden, mask)
    kept = torch.where(own[..., None], hidden.float(), 0.0)
    return kept.sum(1) / own.sum(1, keepdim=True)


def _own_tokens(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    own = mask.to(hidden.device) != 0
    if not bool(own.any(1).all()):
        raise MatchingError("A text of the batch has no token to pool.")
    return own


class AttentionPooling(nn.Module):
    """sum_t softmax_t(<q, h_t> / sqrt(D)) h_t with one learned query q [D]; starts as the mean."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool [B, T, D] under a mask [B, T]; returns [B, D] float32.

        Raises:
            MatchingError: a row has no token.
        """
        own, hidden = _own_tokens(hidden, mask), hidden.float()
        scores = hidden @ self.query.float() / hidden.shape[-1] ** 0.5
        scores = scores.masked_fill(~own, float("-inf"))
        return (scores.softmax(1)[..., None] * hidden).sum(1)


NEEDED = ("get_image_features", "get_decoder", "get_input_embeddings")
TEXT_KEYS = ("input_ids", "attention_mask")


def image_nodes(
    features: Any,
    images_per_sample: Sequence[int],
    rows_per_image: Sequence[int] | None = None,
) -> torch.Tensor:
    """Mean over an image's tokens and tiles, then over a sample's images: [G, D] float32.

    Args:
        features: what `get_image_features` returned: a tensor [images, T, D], a list of [T_i, D],
            or an output that holds one of them as `pooler_output`. A list may have an entry per
            sample instead, with the tokens of all its images (Idefics 3, SmolVLM): a sample's
            tokens then weigh equally.
        images_per_sample: [S]; samples without an image have no node.
        rows_per_image: [images]; how much of the features' first axis, a list laid end to end, is
            each image's: tiles of [tiles, T, D], tokens of [tokens, D]. Needed where that axis has
            neither one row for each image nor belongs to one image alone: features do not show
            where an image ends.

    Raises:
        MatchingError: it cannot be known which features belong to which image.
    """
    features = getattr(features, "pooler_output", features)
    parts = features if isinstance(features, list | tuple) else [features]
    if not all(isinstance(part, torch.Tensor) for part in parts):
        raise MatchingError(
            f"Image features are {type(features).__name__}, neither a tensor nor a list of them "
            "nor an output that has one as `pooler_output`."
        )
    counts = [int(count) for count in images_per_sample]
    total = sum(counts)
    if total == 0:
        raise MatchingError("No sample of the batch has an image.")
    if rows_per_image is not None:
        rows = _divided(features, [int(rows) for rows in rows_per_image], total)
    elif isinstance(features, torch.Tensor):
        rows = [features] if total == 1 else [] if features.ndim == 2 else list(features)
    else:
        rows = list(features)
        if [len(row) > 0 for row in rows] == [count > 0 for count in counts]:
            # An entry of each sample, text-only ones empty: as if it had one image.
            rows, counts = [row for row in rows if len(row)], [min(count, 1) for count in counts]
        elif total == 1:
            rows = [torch.cat(rows)]
    if len(rows) != sum(counts) or any(row.numel() == 0 for row in rows):
        raise MatchingError(
            f"Image features of {_shapes(features)} do not belong to {total} images one by one; "
            "say with `rows_per_image` how many tiles or tokens each image has."
        )
    means = torch.stack([row.float().flatten(0, -2).mean(0) for row in rows])
    return torch.stack([part.mean(0) for part in means.split(counts) if len(part)])


def _divided(features: Any, sizes: list[int], total: int) -> list[torch.Tensor]:
    """The features of each image, by the sizes that the caller gave."""
    joined = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
    if len(sizes) != total or sum(sizes) != len(joined) or min(sizes) < 1:
        raise MatchingError(
            f"`rows_per_image` is {sizes}, which does not divide the {len(joined)} rows of "
            f"{_shapes(features)} among {total} images."
        )
    return list(joined.split(sizes))


def _shapes(features: Any) -> str:
    if isinstance(features, torch.Tensor):
        return f"shape {tuple(features.shape)}"
    return f"shapes {[tuple(row.shape) for row in features]}"


class AlignmentAdapter(nn.Module):
    """The objective, and the little that lies between a model and its three views.

    Args:
        model: an image-text-to-text model; only its sizes are read, it is not kept.
        pooling: `tokens`, `padded` or `attention`, for the two texts.
        settings: of the alignment; defaults where absent.
        changes: settings by name, as for `MultiGraphAlignment`.

    Raises:
        MatchingError: the model lacks one of `NEEDED`, or a setting has no meaning.
    """

    def __init__(
        self,
        model: nn.Module,
        pooling: str = "tokens",
        settings: AlignmentSettings | None = None,
        **changes: Any,
    ) -> None:
        super().__init__()
        _check_model(model)
        if pooling not in POOLINGS:
            raise MatchingError(
                f"No pooling is called {pooling!r}; there are {', '.join(POOLINGS)}."
            )
        dim = model.get_input_embeddings().weight.shape[1]  # pyrefly: ignore
        self.pooling = pooling
        self.attention = AttentionPooling(dim) if pooling == "attention" else None
        self.align = MultiGraphAlignment(dim, settings, **changes)
        self._kept: tuple[dict[str, Any], Any] | None = None

    def forward(
        self,
        model: Any,
        vision_inputs: Mapping[str, Any],
        images_per_sample: Sequence[int],
        answer: Mapping[str, torch.Tensor],
        extended: Mapping[str, torch.Tensor] | None = None,
        *,
        rows_per_image: Sequence[int] | None = None,
        generator: Generator = None,
    ) -> AlignmentOutput:
        """Loss of one batch; samples without an image leave the graphs.

        Args:
            model: the model, not a wrapper such as DDP's; under the same forward as its main pass
                where it is sharded.
            vision_inputs: the processor's output for images (`pixel_values`, `image_grid_thw`,
                `image_sizes`, ...), as `get_image_features` takes it.
            images_per_sample: [S].
            answer: `input_ids` and `attention_mask` [S, T] of the answers alone.
            extended: the same of the extended answers; none where the views are `image-answer`.
            rows_per_image: tiles or tokens of each image, as for `image_nodes`.
            generator: source of everything random in the step.

        Raises:
            MatchingError: model, texts and images do not fit together.
        """
        _check_model(model)
        texts = {"answer": answer, "extended": extended}
        if self.align.num_views == 2:
            del texts["extended"]
        samples = len(images_per_sample)
        checked = [_checked_text(name, text, samples) for name, text in texts.items()]
        (given, features), self._kept = self._kept or ({}, None), None
        if not _same_images(given, vision_inputs):
            features = model.get_image_features(**vision_inputs)
        image = image_nodes(features, images_per_sample, rows_per_image)
        present = torch.tensor([int(count) > 0 for count in images_per_sample])
        pooled = [self.text_nodes(model, text, present) for text in checked]
        return self.align(image, pooled[0], *(pooled[1:] or [None]), generator=generator)

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

        Every `get_image_features` inside `model` is watched for the time of the `with` block, also
        behind a wrapper (peft, DDP). What is kept serves one call: the next one, and only if it
        gets the same images; otherwise that call computes its own. Passes without gradients, as in
        an evaluation, leave nothing.
        """
        self._kept = None
        modules = [part for part in model.modules() if hasattr(type(part), NEEDED[0])]
        own = [vars(part).get(NEEDED[0]) for part in modules]
        for part in modules:
            part.get_image_features = self._watched(part)
        try:
            yield
        finally:
            for part, before in zip(modules, own, strict=True):
                del part.get_image_features
                if before is not None:
                    part.get_image_features = before

    def _watched(self, part: Any) -> Any:
        original = part.get_image_features
        names = list(inspect.signature(type(part).get_image_features).parameters)[1:]

        def watched(*args: Any, **kwargs: Any) -> Any:
            features = original(*args, **kwargs)
            if torch.is_grad_enabled():
                # A call inside a call returns first: the outermost, which the model uses, stays.
                self._kept = dict(zip(names, args, strict=False)) | kwargs, features
            return features

        return watched


def _check_model(model: Any) -> None:
    missing = [name for name in NEEDED if not hasattr(model, name)]
    if missing:
        inside = "; give the model inside the wrapper (`accelerator.unwrap_model(model)`)"
        hint = inside if hasattr(model, "module") else ""
        raise MatchingError(
            f"{type(model).__name__} has no {' and no '.join(missing)}; alignment needs image "
            f"features in the space of the language model{hint}."
        )


def _checked_text(name: str, text: Any, samples: int) -> Mapping[str, torch.Tensor]:
    if text is None:
        raise MatchingError(f"`{name}` is missing; only views='image-answer' does without.")
    if not isinstance(text, Mapping):
        raise MatchingError(
            f"`{name}` is a {type(text).__name__}, not a batch of {' and '.join(TEXT_KEYS)}."
        )
    missing = [key for key in TEXT_KEYS if key not in text]
    if missing:
        raise MatchingError(f"`{name}` has no {' and no '.join(missing)}.")
    shapes = [tuple(text[key].shape) for key in TEXT_KEYS]
    if len(shapes[0]) != 2 or shapes[0] != shapes[1] or shapes[0][0] != samples:
        raise MatchingError(
            f"`{name}` has {' and '.join(TEXT_KEYS)} of shapes {shapes[0]} and {shapes[1]}, not "
            f"[S, T] with the S = {samples} samples of `images_per_sample`."
        )
    return text


def _same_images(kept: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether all tensors that both have are equal, and there are some."""
    both: list[Any] = [(kept.get(name), value) for name, value in given.items()]
    both = [pair for pair in both if all(isinstance(each, torch.Tensor) for each in pair)]
    # A mixed-precision wrapper may have cast what the model saw.
    return bool(both) and all(
        ours is theirs or (ours.shape == theirs.shape and torch.equal(ours, theirs.to(ours)))
        for ours, theirs in both
    )
