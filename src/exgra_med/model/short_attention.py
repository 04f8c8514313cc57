"""Attention of short sequences on a CPU.

There the fused kernel of PyTorch works through its blocks however short the rows are: forwards and
backwards through a layer of 16 rows of 92 tokens, one thread, takes 50 ms fused and 17 ms written
out (docs/explanation/small-model.md). And of a row in which many sequences are packed it computes
all pairs of positions, though the mask hides most of them. So here:

* rows below 256 tokens that learn are written out;
* a single row whose mask falls into blocks attends block by block, so that sequences can stand in
  one row without padding, whatever their lengths.

Longer blocks, answers that are written, and everything on a GPU go the fused way as before.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
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
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not _known(query, key, attention_mask, dropout, kwargs):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    length = query.shape[2]
    blocks = [] if attention_mask is None else _blocks(attention_mask, query.dtype)
    if len(blocks) > 1:
        sizes = [len(block[0, 0]) for block in blocks]
        # In the backward pass `split` joins the pieces, where slices would add up whole rows.
        queries, keys, values = (each.split(sizes, 2) for each in (query, key, value))
        pieces = zip(queries, keys, values, blocks, strict=True)
        return torch.cat([_block(module, q, k, v, m, scale) for q, k, v, m in pieces], 1), None
    if not (query.requires_grad and length < LONGEST):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None and causal:
        attention_mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    return written_out(query, key, value, attention_mask, scale), None


def _known(
    query: Tensor, key: Tensor, mask: Tensor | None, dropout: float, kwargs: dict[str, Any]
) -> bool:
    """Whether nothing is asked that is not known here, and on a CPU."""
    return (
        query.device.type == "cpu"
        and query.shape[2] == key.shape[2]
        and dropout == 0.0
        and (mask is None or mask.shape[1] == 1)
        and all(kwargs[name] is None or name in KNOWN for name in kwargs)
    )


def _block(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """One block of a row; the mask is what is added to its scores."""
    if query.shape[2] < LONGEST:
        return written_out(query, key, value, mask, scale)
    return sdpa_attention_forward(module, query, key, value, mask, scaling=scale)[0]


def written_out(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """[B, L, H, d] by plain products; shapes as for `attention`."""
    (rows, heads, length, width), of_keys = query.shape, key.shape[1]
    # Heads that share keys stand below one another, so that no key is copied.
    together = (rows, of_keys, heads // of_keys * length, width)
    scores = (query * scale).reshape(together) @ key.transpose(2, 3)
    scores = scores.view(rows, of_keys, -1, length, length)
    if mask is not None:
        scores = scores + _added(mask, scores.dtype).unsqueeze(1)
    # In float32 inside, whatever comes in.
    weights = torch.softmax(scores, dim=-1).view(*together[:3], length)
    out = (weights @ value).view(rows, heads, length, width)
    return out.transpose(1, 2).contiguous()


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What a mask adds to scores. Not -inf: a row of padding may see nothing, and its softmax must
    not be nan."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    least = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, least)


_found: Any = WeakIdKeyDictionary()
"""Mask -> type -> its blocks. The layers of a model get the same mask, one after another."""


def _blocks(mask: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Parts [1, 1, l, l] of the mask of one row, outside of which no position sees another; as
    what is added to scores of a type. Nothing where there are several rows, or the mask is not of
    true and false."""
    if mask.shape[0] != 1 or mask.dtype != torch.bool or mask.shape[2] != mask.shape[3]:
        return []
    kept = _found.setdefault(mask, {})
    if dtype not in kept:
        seen = mask[0, 0].to(torch.uint8)
        number = torch.arange(len(seen))
        blind = ~mask[0, 0].any(1)  # it sees itself, as far as blocks are concerned
        first = torch.where(blind, number, seen.argmax(1))
        last = torch.where(blind, number, len(seen) - 1 - seen.flip(1).argmax(1))
        # A block begins where nothing from here on looks back, and nothing before looks ahead.
        back = first.flip(0).cummin(0).values.flip(0) >= number
        ahead = torch.cat([torch.full((1,), -1), last.cummax(0).values[:-1]]) < number
        starts = torch.nonzero(back & ahead).flatten().tolist()
        stops = [*starts[1:], len(seen)]
        parts = [mask[:, :, a:b, a:b] for a, b in zip(starts, stops, strict=True)]
        kept[dtype] = [_added(part, dtype) for part in parts]
    return kept[dtype]


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
