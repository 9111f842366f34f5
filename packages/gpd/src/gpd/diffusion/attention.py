"""Attention of each token to its neighbours, computed on the band alone, and to two prompts.

The original scores all pairs of tokens and then throws away those further apart than its window; here queries are cut
into blocks that meet only the keys around them, so that cost and memory grow with the tokens, not with their square.

Source: `MultiHeadAttentionWindow` and `CrossAttention` of the original; written anew. Differs in nothing but rounding
where `scale` is "tokens"; by default scores are divided by the root of the head's width, as Vaswani et al. do.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

Heads = Float[Tensor, "row head token dim"]
Wide = Float[Tensor, "row token width"]

_BLOCK = 16
"""Queries in a block; more waste scores, fewer fill a matrix product badly."""


class WindowAttention(nn.Module):
    """Multi-head attention in which a token sees at most `window` neighbours on each side, or all where that is 0.

    Args:
        width: of the tokens.
        heads: how many.
        key_dim: width of queries and keys of a head.
        value_dim: width of values of a head.
        window: neighbours on each side.
        scale: what scores are divided by the root of.
    """

    def __init__(
        self, width: int, *, heads: int, key_dim: int, value_dim: int, window: int, scale: Literal["head", "tokens"]
    ) -> None:
        super().__init__()
        self.heads, self.window, self.scale = heads, window, scale
        self.query = nn.Linear(width, heads * key_dim)
        self.key = nn.Linear(width, heads * key_dim)
        self.value = nn.Linear(width, heads * value_dim)
        self.leave = nn.Linear(heads * value_dim, width)

    def forward(self, x: Wide) -> Wide:
        query, key, value = (
            rearrange(project(x), "row token (head dim) -> row head token dim", head=self.heads)
            for project in (self.query, self.key, self.value)
        )
        divisor = math.sqrt(query.shape[-1] if self.scale == "head" else x.shape[1])
        if 0 < self.window < x.shape[1] - 1:
            found = banded_attention(query, key, value, window=self.window, divisor=divisor)
        else:
            found = F.scaled_dot_product_attention(query, key, value, scale=1.0 / divisor)
        return self.leave(rearrange(found, "row head token dim -> row token (head dim)"))


def banded_attention(
    query: Float[Tensor, "row head token key"],
    key: Float[Tensor, "row head token key"],
    value: Float[Tensor, "row head token value"],
    *,
    window: int,
    divisor: float,
) -> Float[Tensor, "row head token value"]:
    """Return attention of each token to those at most `window` away.

    Args:
        query, key, value: of each head.
        window: tokens on each side.
        divisor: of the scores.
    """
    tokens = query.shape[2]
    blocks = -(-tokens // _BLOCK)
    after = blocks * _BLOCK - tokens
    queries = F.pad(query, (0, 0, 0, after)).unflatten(2, (blocks, _BLOCK))
    keys, values = (
        F.pad(each, (0, 0, window, after + window)).unfold(2, _BLOCK + 2 * window, _BLOCK) for each in (key, value)
    )  # both (row, head, block, dim, seen)
    scores = (queries @ keys) / divisor
    weights = scores.masked_fill(~_seen(tokens, window, query.device), -math.inf).softmax(-1)
    return (weights @ values.mT).flatten(2, 3)[:, :, :tokens]


def _seen(tokens: int, window: int, device: torch.device) -> Bool[Tensor, "block query seen"]:
    """Return which of the keys around a block each of its queries sees; one beyond the end sees something, unused."""
    blocks = -(-tokens // _BLOCK)
    start = torch.arange(blocks, device=device)[:, None, None] * _BLOCK
    query = start + torch.arange(_BLOCK, device=device)[:, None]
    key = start + torch.arange(_BLOCK + 2 * window, device=device) - window
    return ((query - key).abs() <= window) & (key >= 0) & ((key < tokens) | (query >= tokens))


def dense_attention(
    query: Float[Tensor, "row head token key"],
    key: Float[Tensor, "row head token key"],
    value: Float[Tensor, "row head token value"],
    *,
    window: int,
    divisor: float,
) -> Float[Tensor, "row head token value"]:
    """Return what `banded_attention` does, with the scores of all pairs, as the original; to compare with."""
    places = torch.arange(query.shape[2], device=query.device)
    near = (places[:, None] - places).abs() <= window
    scores = (query @ key.mT) / divisor
    return scores.masked_fill(~near, -math.inf).softmax(-1) @ value


class PromptAttention(nn.Module):
    """Weigh two prompts for each token, by a query that the token makes; scores are not scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)

    def forward(self, x: Wide, prompts: Float[Tensor, "row prompt width"]) -> Wide:
        weights = (self.query(x).tanh() @ prompts.mT).softmax(-1)
        return weights @ prompts
