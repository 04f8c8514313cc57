"""From the hidden states of a row of tokens to one embedding.

Shapes: B rows, T positions, D features.
"""

import torch
from torch import nn

from exgra_med.alignment.errors import MatchingError

POOLINGS = ("tokens", "padded", "attention")


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str = "tokens") -> torch.Tensor:
    """Mean over a row's own tokens, or over the padded row as in the original; [B, D] float32.

    Args:
        hidden: [B, T, D].
        mask: [B, T], nonzero at a row's own tokens.
        pooling: `tokens` or `padded`. The latter depends on the longest row of the batch.

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
    """sum_t softmax_t(<q, h_t> / sqrt(D)) h_t with one learned query q; starts as the mean.

    Args:
        dim: D.
    """

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
