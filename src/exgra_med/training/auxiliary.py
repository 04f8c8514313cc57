"""Losses without graphs that others put beside the language-model loss: rivals of the alignment.

They take what a step computes anyway, token by token, where the alignment takes one vector a
record. None adds anything to the trained model.

    vista           the state of the last image token is drawn to the embeddings of the answer
    token-contrast  every image token has to be nearer to the words of its own answer than to others
    viral           the states of the middle layer, at image tokens, keep what the tower saw

Shapes: R rows of L tokens in a call, K image tokens and W answer tokens of a batch, D width of the
language model, C width of the tower.

Sources: VISTA, arXiv 2505.10917, by its public code (github.com/zzjweb/digitalhuman, VISTA, commit
8bb90e8); SEA, arXiv 2408.11813; VIRAL, arXiv 2509.07979, by its public code
(github.com/cvlab-kaist/VIRAL, commit ae1a872).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from exgra_med.alignment.image_nodes import decoder_inputs
from exgra_med.data.records import Record, Turn
from exgra_med.errors import TrainingError
from exgra_med.model.batch import IGNORED, Layout, Rows, TrainingExample, to_device
from exgra_med.model.bundle import Bundle
from exgra_med.model.lora import connector_modules
from exgra_med.recipe.schema import AuxiliarySettings, TextSettings

TEMPERATURE = 0.07
PROJECTOR_WIDTH = 2048
"""Of VIRAL's projector, as in its code."""


def vista(states_KD: Tensor, image_owner_K: Tensor, words_WD: Tensor, owner_W: Tensor) -> Tensor:
    """Mean over records of mean_t (t / T) mean_d (h - e_t)^2: `h` is the state of the record's last
    image token, `e_t` the embedding of the t-th of the T tokens of its answers.

    Owners are numbers of records; one without image or answer does not count.
    """
    losses = []
    for record in sorted(set(image_owner_K.tolist()) & set(owner_W.tolist())):
        state = states_KD[image_owner_K == record][-1]
        words = words_WD[owner_W == record]
        weights = torch.arange(1, len(words) + 1, device=words.device) / len(words)
        losses.append((weights * (state - words).square().mean(1)).mean())
    return torch.stack(losses).mean() if losses else 0.0 * states_KD.sum()


def token_contrast(
    images_KD: Tensor, image_owner_K: Tensor, words_WD: Tensor, ids_W: Tensor, owner_W: Tensor
) -> Tensor:
    """Mean over image tokens of -log of the share that the words of their own answers have in
    exp(cos / 0.07) over all words of the batch.

    Each word counts once however often it stands there, and never as a word of others where it is
    an own one. In the manner of SEA, which asks CLIP what is to be seen at each token; here that is
    any of the words, and the tokens find out which.
    """
    known = torch.isin(image_owner_K, owner_W)
    if not known.any():
        return 0.0 * images_KD.sum()
    images_KD, image_owner_K = images_KD[known], image_owner_K[known]
    ids_U, place_W = torch.unique(ids_W, return_inverse=True)
    vectors_UD = words_WD.new_zeros(len(ids_U), words_WD.shape[1])
    vectors_UD[place_W] = words_WD.detach()
    logits_KU = F.normalize(images_KD, dim=1) @ F.normalize(vectors_UD, dim=1).T / TEMPERATURE
    own_KW = image_owner_K.unsqueeze(1) == owner_W
    own_KU = torch.zeros_like(logits_KU).index_add(1, place_W, own_KW.to(logits_KU.dtype)) > 0
    own_K = logits_KU.masked_fill(~own_KU, -torch.inf).logsumexp(1)
    return (logits_KU.logsumexp(1) - own_K).mean()


def viral(projected_KC: Tensor, features_KC: Tensor) -> Tensor:
    """Mean over image tokens of -cos(projected state, feature of the tower)."""
    return -F.cosine_similarity(projected_KC, features_KC, dim=1).mean()


def token_of_patch(num_patches: int, num_tokens: int) -> Tensor | None:
    """Which image token each patch of a square image belongs to, [num_patches], where tokens stand
    for squares of patches in reading order; None where they cannot."""
    side, step = math.isqrt(num_patches), math.isqrt(num_patches // num_tokens)
    if side * side != num_patches or step * step * num_tokens != num_patches or side % step:
        return None
    row, column = torch.arange(num_patches) // side, torch.arange(num_patches) % side
    return row // step * (side // step) + column // step


def pooled_patches(features_NPC: Tensor, num_tokens: int) -> Tensor:
    """What the tower saw at each image token, [N * num_tokens, C]: the mean of the patches that it
    stands for, of N images.

    Raises:
        TrainingError: tokens do not stand for squares of patches.
    """
    num_images, num_patches, width = features_NPC.shape
    token = token_of_patch(num_patches, num_tokens)
    if token is None:
        raise _unknown_place(f"{num_patches} patches and {num_tokens} tokens")
    sums = features_NPC.new_zeros(num_images, num_tokens, width)
    sums.index_add_(1, token.to(features_NPC.device), features_NPC)
    return (sums * num_tokens / num_patches).flatten(0, 1)


def _unknown_place(why: str) -> TrainingError:
    return TrainingError(
        f"It is not known what the tower saw at an image token ({why}).",
        "`auxiliary.loss: viral` is for models whose image tokens are squares of patches, as they "
        "are behind the connectors `mlp` and `pixel-shuffle`.",
    )


def width_of_features(bundle: Bundle) -> int:
    """Width of what enters the connector, where each image token is seen to come from the patches
    of its own square and from no others.

    Raises:
        TrainingError: it is not, so there is nothing that a token could be held to.
    """
    model: Any = bundle.model
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    turns = [Turn(role="user", text="?"), Turn(role="assistant", text=".")]
    record = Record(id="probe", image=["probe"], turns=turns)
    told = bundle.conversation(record, [Image.fromarray(pixels)], TextSettings())
    batch = bundle.collate([TrainingExample("probe", [told], True, [], [])], Layout(packed=False))
    leaves: list[Tensor] = []

    def as_leaf(_: Any, given: tuple[Tensor, ...], named: dict[str, Any]) -> Any:
        if given:
            leaves.append(given[0].detach().requires_grad_())
            return (leaves[-1], *given[1:]), named
        name = next(iter(named))
        leaves.append(named[name].detach().requires_grad_())
        return given, named | {name: leaves[-1]}

    was_training = model.training
    model.eval()
    handle = connector(bundle).register_forward_pre_hook(as_leaf, with_kwargs=True)
    try:
        with torch.enable_grad(), decoder_inputs(model) as entered:
            bundle.encode(to_device(batch, model.device))
    finally:
        handle.remove()
        model.train(was_training)
    ids = batch["calls"][0]["input_ids"].flatten()
    tokens = _joined(entered[:1])[ids == bundle.image_token_id]
    if len(leaves) != 1 or leaves[0].ndim != 3 or len(tokens) % len(leaves[0]):
        raise _unknown_place("an image is no square of patches where it enters the connector")
    # A family may cut the image into several, each of which is a square of its own.
    num_images, num_patches, width = leaves[0].shape
    own = token_of_patch(num_patches, len(tokens) // num_images)
    if own is None:
        raise _unknown_place(f"{num_patches} patches and {len(tokens) // num_images} tokens")
    expected = own + torch.arange(num_images).unsqueeze(1) * (len(tokens) // num_images)
    # Not the plain sum, which a normalisation holds constant.
    uneven = torch.linspace(1, 2, tokens.shape[1], device=tokens.device)
    for number in sorted({0, 1, len(tokens) // 2, len(tokens) - 1} & {*range(len(tokens))}):
        (found,) = torch.autograd.grad(tokens[number] @ uneven, leaves, retain_graph=True)
        if not torch.equal(found.ne(0).any(2).cpu(), expected == number):
            raise _unknown_place(f"token {number} comes from other patches than its own")
    return width


def connector(bundle: Bundle) -> nn.Module:
    """What stands between tower and language model.

    Raises:
        TrainingError: it is no module of its own.
    """
    names = connector_modules(bundle)
    if len(names) != 1:
        raise _unknown_place(f"{len(names)} modules stand between tower and language model")
    return bundle.model.get_submodule(names[0])


@dataclass
class Watched:
    """What was seen of the calls of a batch, one entry a call."""

    entered: list[Tensor] = field(default_factory=list)
    """What entered the language model, [R, L, D]."""
    middle: list[Tensor] = field(default_factory=list)
    """States behind its middle layer, [R, L, D]; for `viral` alone."""
    features: list[Tensor] = field(default_factory=list)
    """What entered the connector, [N, P, C], of a call with images; for `viral` alone."""


class AuxiliaryLoss(nn.Module):
    """One of the losses, with what it trains beside the model: the projector of `viral`."""

    def __init__(self, bundle: Bundle, settings: AuxiliarySettings) -> None:
        super().__init__()
        # Not a child: the model is trained and saved as the objective's.
        self._bundle, self.settings = [bundle], settings
        self.projector = nn.Sequential()
        if settings.loss == "viral":
            sizes = [bundle.width, PROJECTOR_WIDTH, PROJECTOR_WIDTH, width_of_features(bundle)]
            layers: list[nn.Module] = []
            for size, larger in pairwise(sizes):
                layers += [nn.Linear(size, larger), nn.SiLU()]
            self.projector = nn.Sequential(*layers[:-1])

    @property
    def bundle(self) -> Bundle:
        """Whose training it joins."""
        return self._bundle[0]

    @contextmanager
    def watching(self) -> Iterator[Watched]:
        """Look at what passes through the model meanwhile."""
        model: Any = self.bundle.model
        watched, handles = Watched(), []
        if self.settings.loss == "viral":
            layers = model.get_decoder().layers
            # hidden_states[n / 2] of n layers: layer 16 of 32 in VIRAL.
            middle = layers[max(0, len(layers) // 2 - 1)]

            def behind(_: Any, __: Any, output: Any) -> None:
                watched.middle.append(output[0] if isinstance(output, tuple) else output)

            def before(_: Any, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
                watched.features.append((*given, *named.values())[0].detach())

            handles.append(middle.register_forward_hook(behind))
            own = connector(self.bundle)
            handles.append(own.register_forward_pre_hook(before, with_kwargs=True))
        try:
            with decoder_inputs(model) as entered:
                watched.entered = entered
                yield watched
        finally:
            for handle in handles:
                handle.remove()

    def forward(self, watched: Watched, calls: Sequence[Rows], states: Sequence[Tensor]) -> Tensor:
        """The loss of a batch: float32, 0 where it has no image."""
        ids = torch.cat([rows["input_ids"].flatten() for rows in calls])
        is_image = ids == self.bundle.image_token_id
        if not is_image.any():
            # Processes that train together wait for a gradient of every weight.
            return 0.0 * sum((each.sum() for each in self.parameters()), states[0].float().sum())
        with torch.autocast(ids.device.type, enabled=False):
            if self.settings.loss == "viral":
                if len({each.shape[1:] for each in watched.features}) != 1:
                    raise _unknown_place("images of unequal sizes")
                features = torch.cat(watched.features).float()
                # Recomputed layers are seen again, behind these.
                seen = _joined(watched.middle[: len(calls)])[is_image]
                goals = pooled_patches(features, len(seen) // len(features))
                weight: Any = self.projector[0].weight
                return viral(self.projector(seen.to(weight.dtype)), goals.to(weight.dtype))
            owner = owners_of(calls)
            targets = torch.cat([rows["targets"].flatten() for rows in calls])
            answered = targets != IGNORED
            words = self.bundle.model.get_input_embeddings()(targets[answered]).float()
            own, asked = owner[is_image], owner[answered]
            if self.settings.loss == "vista":
                return vista(_joined(states)[is_image], own, words, asked)
            entered = _joined(watched.entered)[is_image]
            return token_contrast(entered, own, words, targets[answered], asked)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Vectors [R, L, D] of all calls as [N, D] float32."""
    return torch.cat([each.flatten(0, 1) for each in parts]).float()


def owners_of(calls: Sequence[Rows]) -> Tensor:
    """The number of the sequence that each position belongs to, [N] over all calls. Packed ones
    are told apart by their positions, which begin at 0 in each."""
    begins = []
    for rows in calls:
        own, positions = torch.zeros_like(rows["input_ids"], dtype=torch.bool), rows["position_ids"]
        if positions is not None:
            own = (positions if positions.ndim == 2 else positions[0]).expand_as(own) == 0
        # A row of its own, or the beginning of a packed one.
        begins.append(torch.cat([torch.ones_like(own[:, :1]), own[:, 1:]], 1).flatten())
    return torch.cat(begins).cumsum(0)
