"""Alignment for any image-text-to-text model, in a few lines of anyone's training loop.

    adapter = AlignmentAdapter(model)            # its parameters belong in the optimizer
    with adapter.watch(model):
        lm_loss = model(**batch).loss            # the images are read off this pass
    aligned = adapter(answer, extended)          # token ids and masks of the texts alone
    (lm_loss + aligned.loss).backward()

Shapes: S samples of a batch, G of them with an image, T tokens, D width of the language model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from exgra_med.alignment.image_nodes import decoder_inputs, image_token_id, mean_over
from exgra_med.alignment.loss import AlignmentOutput, Generator, MultiGraphAlignment
from exgra_med.alignment.settings import AlignmentSettings
from exgra_med.errors import MatchingError

TEXT_KEYS = ("input_ids", "attention_mask")


class AlignmentAdapter(nn.Module):
    """The objective, and the little that lies between a model and its three views.

    Args:
        model: an image-text-to-text model of transformers, also inside peft's or DDP's wrapper;
            only its configuration is read.
        settings: of the alignment; defaults where absent.
        changes: settings by name: `AlignmentAdapter(model, neighbours=3, objective="pairwise")`.

    Raises:
        MatchingError: images of the model do not stand among its text, or a setting has no
            meaning.
    """

    def __init__(
        self, model: Any, settings: AlignmentSettings | None = None, **changes: Any
    ) -> None:
        super().__init__()
        config = _inside(model).config
        self.image_token = image_token_id(config)
        self.align = MultiGraphAlignment(config.get_text_config().hidden_size, settings, **changes)
        self._watched: tuple[Any, Tensor, Tensor] | None = None

    @contextmanager
    def watch(self, model: Any) -> Iterator[None]:
        """Keep the image nodes of the pass inside the block, for one call of the adapter.

        The node of a sample is the mean over its image placeholders of what enters the language
        model there, with gradients to connector and vision tower; samples without an image have
        none. Of several passes the last counts; one under `torch.no_grad` inside, as of an
        evaluation in between, does not.

        Raises:
            MatchingError: in a pass, where the language model is not given a vector for each of
                the `input_ids`.
        """
        inner, gradients = _inside(model), torch.is_grad_enabled()
        self._watched = None

        def keep(_: Any, args: Any, kwargs: dict[str, Any], __: Any) -> None:
            # Of this pass alone, and no longer held than needed.
            vectors, ids = seen[-1:], kwargs.get("input_ids", *args[:1])
            seen.clear()
            if torch.is_grad_enabled() != gradients:
                return
            if not vectors or ids is None or vectors[0].shape[:2] != ids.shape:
                raise MatchingError(
                    f"{type(inner).__name__} did not give its language model one vector for each "
                    "of the `input_ids`, so no image stands among them; those that a model reads "
                    "through cross-attention never do."
                )
            places = ids == self.image_token
            shown = places.any(1)
            self._watched = inner, mean_over(vectors[0][shown], places[shown]), shown

        with decoder_inputs(inner) as seen:
            handle = inner.register_forward_hook(keep, with_kwargs=True)
            try:
                yield
            finally:
                handle.remove()

    def forward(
        self,
        answer: Mapping[str, Tensor],
        extended: Mapping[str, Tensor] | None = None,
        *,
        generator: Generator = None,
    ) -> AlignmentOutput:
        """Loss of the batch of the watched pass; 0 where no sample has an image.

        Args:
            answer: `input_ids` and `attention_mask` [S, T] of the answers alone, in the order of
                the batch, padded on either side.
            extended: the same of the extended answers; none where the views are `image-answer`.
            generator: source of everything random in the step.

        Raises:
            MatchingError: no pass was watched since the last call, or texts do not fit to it.
        """
        if self._watched is None:
            raise MatchingError(
                "The adapter has seen no pass of the model: run it inside "
                "`with adapter.watch(model):` before each call of the adapter."
            )
        (model, images, shown), self._watched = self._watched, None
        texts = [_checked("answer", answer, shown)]
        if self.align.num_views == 3:
            texts.append(_checked("extended", extended, shown))
        nodes = [_text_nodes(model, *text) if len(images) else images for text in texts]
        return self.align(images, nodes[0], *(nodes[1:] or [None]), generator=generator)


def _inside(model: Any) -> Any:
    """The model itself, of a wrapper such as DDP's."""
    inner = getattr(model, "module", model)
    if not hasattr(inner, "get_decoder"):
        raise MatchingError(
            f"{type(inner).__name__} has no `get_decoder`: it is no image-text-to-text model of "
            "transformers."
        )
    return inner


def _checked(name: str, text: Any, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and mask [G, T] of the texts of samples with an image."""
    wanted = f"not a batch of {' and '.join(TEXT_KEYS)} [S, T]"
    if not isinstance(text, Mapping):
        hint = "Only views='image-answer' does without." if name == "extended" else ""
        raise MatchingError(f"`{name}` is {type(text).__name__}, {wanted}.", hint)
    shapes = {key: tuple(getattr(text.get(key), "shape", ())) for key in TEXT_KEYS}
    rows, *columns = shapes[TEXT_KEYS[0]] or [0]
    if len(columns) != 1 or len({*shapes.values()}) != 1 or rows != len(shown):
        given = " and ".join(f"{key} {shape or 'missing'}" for key, shape in shapes.items())
        raise MatchingError(
            f"`{name}` has {given}, {wanted} with the S = {len(shown)} samples of the watched pass."
        )
    ids, mask = (text[key].to(shown.device)[shown] for key in TEXT_KEYS)
    if not bool(mask.any(1).all()):
        raise MatchingError(f"A text of `{name}` has no token, so it has no node.")
    return ids, mask


def _text_nodes(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean last hidden state [G, D] of texts read alone, by the language model inside."""
    decoder = model.get_decoder()
    output = decoder(input_ids=ids, attention_mask=mask, use_cache=False, return_dict=True)
    if (hidden := getattr(output, "last_hidden_state", None)) is None:
        raise MatchingError(
            f"The language model {type(decoder).__name__} gives no hidden states without its "
            "head, so texts have no nodes."
        )
    return mean_over(hidden, mask)
