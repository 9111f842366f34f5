"""Causal self-attention that keeps no attention maps, also on a CPU and with dropout on the weights."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

BLOCK_ROWS = 64
"""Queries of one block; a block sees only the keys up to its last query, which halves the work."""
BLOCK_ELEMENTS = 2**20
"""Attention weights of one block, so that they stay in cache."""
KEPT_ELEMENTS = 2**22
"""Attention weights above which the backward pass computes them again rather than keeping them."""


def attend_causally(
    query: Float[Tensor, "sequence head event key"],
    key: Float[Tensor, "sequence head event key"],
    value: Float[Tensor, "sequence head event value"],
    *,
    dropout: float = 0.0,
) -> Float[Tensor, "sequence head event value"]:
    """Attend to the event itself and those before it, with softmax weights scaled by 1 / sqrt(key width).

    A CPU has no fused kernel with dropout, and its fallback keeps whole maps and draws Bernoulli numbers at five
    nanoseconds each; here dropout takes 16 random bits per weight, and works block by block.

    Args:
        query: queries.
        key: keys.
        value: values.
        dropout: share of weights set to zero, in [0, 1); 0 outside training.
    """
    if dropout == 0.0 or not query.is_cpu:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
    _, heads, count, width = query.shape
    query = query / math.sqrt(width)
    future = torch.full((count, count), -math.inf, dtype=query.dtype).triu_(1)
    keep = query.shape[0] * heads * count * count <= KEPT_ELEMENTS
    group = max(1, BLOCK_ELEMENTS // (heads * min(count, BLOCK_ROWS) * count))
    groups = zip(*(part.split(group) for part in (query, key, value)), strict=True)
    return torch.cat([_attend_in_blocks(*part, future=future, dropout=dropout, keep=keep) for part in groups])


def _attend_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, *, future: Float[Tensor, "event event"], dropout: float, keep: bool
) -> Tensor:
    blocks: list[Tensor] = []
    for start in range(0, query.shape[2], BLOCK_ROWS):
        end = start + BLOCK_ROWS
        block = (query[:, :, start:end], key[:, :, :end], value[:, :, :end], future[start:end, :end], dropout)
        blocks.append(_attend(*block) if keep else checkpoint(_attend, *block, use_reentrant=False))
    return torch.cat(blocks, dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, dropout: float) -> Tensor:
    # Adding out of place: a change in place of a product's view is copied whole by autograd.
    weights = (query @ key.mT + hidden).softmax(-1)
    return (_keep(weights, dropout) @ value) / (1.0 - dropout)


class Dropout(nn.Dropout):
    """Dropout that on a CPU draws 16 random bits per element, so that its share is right to within 2^-17."""

    def forward(self, input: Tensor) -> Tensor:
        exact = input.dtype in (torch.float32, torch.float64)  # 16 bits are not in bfloat16
        if not self.training or self.p == 0.0 or not input.is_cpu or not exact:
            return super().forward(input)
        return _keep(input, self.p) / (1.0 - self.p)


def _keep(x: Tensor, dropout: float) -> Tensor:
    """Set elements to zero with this probability, without scaling the others."""
    count = x.numel()
    bits = torch.empty(math.ceil(count / 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    limit = round(dropout * 2**16) - 2**15 - 0.5
    # Passes x on where the number is above the limit. One vectorised pass; masks of booleans take several.
    return torch.ops.aten.threshold_backward(x, bits.view(x.shape).to(x.dtype), limit)
