"""Attention of short rows while a model learns on a CPU.

There the fused kernel of PyTorch works through its blocks however short the rows are: forwards and
backwards through a layer of 16 rows of 92 tokens, one thread, takes 50 ms fused and 17 ms written
out (docs/explanation/small-model.md). Rows of 256 and more, answers that are written, and
everything on a GPU go the fused way as before.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "exgra_short_rows"
LONGEST = 256
"""Tokens; from here on what is written out costs more memory than it saves time."""
# What is asked of attention beyond a mask, a scale and causality is left to the library.
KNOWN = {"position_ids", "is_causal", "use_cache", "output_attentions", "cache_position"}


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As `sdpa_attention_forward` of transformers: queries [B, H, L, d], keys and values
    [B, h, L, d], a mask that is true (or 0) where a position may look; out [B, L, H, d].

    A mask has one head. Scores stand in the precision of the queries.
    """
    length = query.shape[2]
    short = (
        query.device.type == "cpu"
        and query.requires_grad
        and length == key.shape[2] < LONGEST
        and dropout == 0.0
        and (attention_mask is None or attention_mask.shape[1] == 1)
        and all(kwargs[name] is None or name in KNOWN for name in kwargs)
    )
    if not short:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    (rows, heads, _, width), of_keys = query.shape, key.shape[1]
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None and causal:
        attention_mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    # Heads that share keys stand below one another, so that no key is copied.
    together = (rows, of_keys, heads // of_keys * length, width)
    scaled = query * (width**-0.5 if scaling is None else scaling)
    scores = scaled.reshape(together) @ key.transpose(2, 3)
    scores = scores.view(rows, of_keys, -1, length, length)
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            # Not -inf: a row of padding may see nothing, and its softmax must not be nan.
            attention_mask = torch.zeros_like(attention_mask, dtype=scores.dtype).masked_fill(
                ~attention_mask, torch.finfo(scores.dtype).min
            )
        scores = scores + attention_mask.unsqueeze(1)
    # In float32 inside, whatever comes in.
    weights = torch.softmax(scores, dim=-1).view(*together[:3], length)
    out = (weights @ value).view(rows, heads, length, width)
    return out.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)


def use_short_attention(model: Any) -> None:
    """Lets the language model attend this way where it uses the fused kernel now."""
    own = model.config.get_text_config()
    if own._attn_implementation != "sdpa":
        return
    for name in model.config.sub_configs:
        if getattr(model.config, name, None) is own:
            model.set_attn_implementation({name: NAME})
