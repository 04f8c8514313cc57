"""The output of a vision tower inside a model of any family: watched, and given.

What a tower returns has many tensors (each hidden state), of which a family uses one or two, and
some put the patches of all pictures into one row. Both are measured: a tensor is used where a
gradient comes back to it from the language model, and counts its pictures along the dimension that
is twice as long for two pictures.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn

from exgra_med.errors import RecipeError

Pass = Callable[[], tuple[Tensor, Tensor]]
"""Runs a model on pictures; returns tensors that follow from them."""


class TowerOutput:
    """The form of a tower's output, learnt from a pass with a picture and one with it twice.

    Raises:
        RecipeError: the tower does not run once in a pass, nothing of it is used, or what is used
            does not grow with the pictures.
    """

    form: Any
    """An output, whose tensors are replaced."""

    def __init__(self, tower: Any, one: Pass, two: Pass) -> None:
        used = self._used(tower, one)
        first, second = (_tensors(_output(tower, each)) for each in (one, two))
        self.axes: list[int | None] = [
            _doubled(short, long) if is_used else None
            for short, long, is_used in zip(first, second, used, strict=True)
        ]
        """Of its tensors in their order, the dimension of the pictures; none where not used."""

    def of(self, tower: Any, run: Pass) -> list[Tensor]:
        """The used tensors of what the tower returns in a pass, the pictures first."""
        pairs = zip(_tensors(_output(tower, run)), self.axes, strict=True)
        return [each.movedim(axis, 0) for each, axis in pairs if axis is not None]

    @torch.enable_grad()
    def _used(self, tower: Any, run: Pass) -> list[bool]:
        calls: list[list[Tensor]] = []

        def forward(*args: Any, original: Any = tower.forward, **kwargs: Any) -> Any:
            self.form = original(*args, **kwargs)
            output = recursively_apply(_leaf, self.form)
            # Listed here, because some families write into what the tower has returned.
            calls.append(_tensors(output))
            return output

        with _replaced(tower, forward):
            follows = run()
        if len(calls) != 1:
            raise _not_kept(f"runs its tower {len(calls)} times for a picture")
        leaves = [each for each in calls[0] if each.requires_grad]
        total = torch.stack([each.float().sum() for each in follows]).sum()
        found = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else ()
        used = {id(leaf) for leaf, g in zip(leaves, found, strict=False) if g is not None}
        if not used:
            raise _not_kept("does not use what its tower returns")
        return [id(each) in used for each in calls[0]]

    @contextmanager
    def given(self, tower: Any, features: Sequence[Tensor]) -> Iterator[None]:
        """Let the tower return features instead of running."""
        left, axes = iter(features), iter(self.axes)

        def filled(tensor: Tensor) -> Tensor:
            axis = next(axes)
            # What the model does not use has a shape and nothing else.
            empty = features[0].new_zeros(1).expand_as(tensor)
            return empty if axis is None else next(left).movedim(0, axis)

        # Anew for each pass, because some families write into it.
        output = recursively_apply(filled, self.form)
        with _replaced(tower, lambda *args, **kwargs: output):
            yield


class _Enough(BaseException):
    """Ends a pass when the tower has run; the language model is not needed."""


def _output(tower: Any, run: Pass) -> Any:
    """What a tower returns in a pass."""
    found: list[Any] = []

    def forward(*args: Any, original: Any = tower.forward, **kwargs: Any) -> Any:
        found.append(original(*args, **kwargs))
        raise _Enough

    with _replaced(tower, forward):
        try:
            run()
        except _Enough:
            return found[0]
    raise _not_kept("does not run its tower on a picture")


def _doubled(short: Tensor, long: Tensor) -> int:
    pairs = zip(short.shape, long.shape, strict=True) if short.ndim == long.ndim else ()
    grown = [axis for axis, (one, two) in enumerate(pairs) if one != two]
    if len(grown) != 1 or long.shape[grown[0]] != 2 * short.shape[grown[0]]:
        raise _not_kept("has a tower whose output does not grow with the pictures")
    return grown[0]


@contextmanager
def _replaced(tower: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    tower.forward = forward
    try:
        yield
    finally:
        del tower.forward


def _tensors(output: Any) -> list[Tensor]:
    found: list[Tensor] = []
    recursively_apply(lambda each: found.append(each) or each, output)
    return found


def _leaf(tensor: Tensor) -> Tensor:
    alone = tensor.detach()
    return alone.requires_grad_() if alone.is_floating_point() else alone


def _not_kept(what: str) -> RecipeError:
    return RecipeError(
        f"`cache_features`: this model {what}, so features cannot be kept.",
        "Leave `cache_features` out.",
    )
