"""Layers that several parts share: a transformer layer, normalisation of channels, and recomputation."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from vlm4st.models.configs import Norm
from vlm4st.models.linear import linear

Tokens = Float[Tensor, "sequence token dim"]

FEW = 16
"""Tokens up to which attention on a processor is faster written out than in blocks."""


class EncoderLayer(nn.Module):
    """Attention, then a perceptron four times as wide, each behind a normalisation and added to what it was given.

    The parameters are those of `torch.nn.TransformerEncoderLayer`. Attention is one fused operation in training as in
    evaluation, and has a dropout of its own: with one above 0, the weights of all pairs of tokens are held.

    Args:
        width: of the tokens.
        heads: of the attention.
        dropout: share of values dropped.
        attention_dropout: share of attention weights dropped.
    """

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.inner_dropout = nn.Dropout(dropout, inplace=True)  # nobody else reads what it is given

    def forward(self, x: Tokens) -> Tokens:
        """Return the tokens after the layer."""
        x = x + self.dropout(self.attend(self.norm1(x)))
        inner = self.inner_dropout(F.gelu(self.linear1(self.norm2(x))))
        return x + self.dropout(self.linear2(inner))

    def attend(self, x: Tokens) -> Tokens:
        """Let every token attend to all of its sequence."""
        joint = linear(x, self.self_attn.in_proj_weight, self.self_attn.in_proj_bias)
        query, key, value = rearrange(joint, "sequence token (part head dim) -> part sequence head token dim",
                                      part=3, head=self.heads)  # fmt: skip
        rate = self.attention_dropout if self.training else 0.0
        with fast_attention(query):
            found = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        joint = rearrange(found, "sequence head token dim -> sequence token (head dim)")
        return linear(joint, self.self_attn.out_proj.weight, self.self_attn.out_proj.bias)


def fast_attention(queries: Tensor) -> AbstractContextManager[object]:
    """Let torch write attention out where that is faster; elsewhere its choice, or the caller's, stays.

    Args:
        queries: of shape (..., token, dim).
    """
    few = queries.shape[-2] <= FEW and queries.device.type == "cpu"
    return sdpa_kernel(SDPBackend.MATH) if few else nullcontext()


class Encoder(nn.Module):
    """Layers one after the other, without a normalisation at the end.

    Args:
        width: of the tokens.
        heads: of the attention.
        layers: how many.
        dropout: share of values dropped.
        attention_dropout: share of attention weights dropped.
    """

    def __init__(self, width: int, heads: int, layers: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        # Each layer is drawn for itself; the original starts with copies of one.
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout, attention_dropout) for _ in range(layers))
        self.recompute = False

    def forward(self, x: Tokens) -> Tokens:
        """Return the tokens after all layers."""
        for layer in self.layers:
            x = recomputed(layer, x) if self.recompute and self.training else layer(x)
        return x


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function whose inner values are not kept but computed again in the backward pass."""
    return checkpoint(function, *arguments, use_reentrant=False)


def channel_norm(kind: Norm, channels: int, axes: int) -> nn.Module:
    """Make a normalisation of channels.

    Args:
        kind: over the batch, whose statistics all data sets then share, or over groups of channels of each sample.
        channels: how many.
        axes: axes behind that of the channels, 2 or 3.
    """
    if kind == "group":
        return nn.GroupNorm(math.gcd(channels, 8), channels)
    return nn.BatchNorm2d(channels) if axes == 2 else nn.BatchNorm3d(channels)
