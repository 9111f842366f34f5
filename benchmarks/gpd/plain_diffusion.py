"""The first denoiser of GPD written down plainly, in library operations, with the scores of all pairs of tokens.

This is what the package's attention is timed against, and a second opinion on the recordings. Modules carry the names
of the original's state, so its weights load without translation.

Source: Yuan et al., "Spatio-Temporal Few-Shot Learning via Diffusive Neural Network Generation" (ICLR 2024) and the
behaviour of github.com/tsinghua-fib-lab/GPD (`Trans1`); written anew.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainWindowAttention(nn.Module):
    """Attention in which scores of tokens more than `window` apart are computed and then thrown away.

    Args:
        width: of the tokens.
        key: width of queries and keys of a head.
        value: width of values of a head.
        heads: how many.
        window: tokens on each side that are seen.
    """

    def __init__(self, width: int, key: int, value: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self._W_q, self._W_k = nn.Linear(width, key * heads), nn.Linear(width, key * heads)
        self._W_v, self._W_o = nn.Linear(width, value * heads), nn.Linear(value * heads, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        queries, keys, values = (
            torch.cat(project(x).chunk(self.heads, dim=-1)) for project in (self._W_q, self._W_k, self._W_v)
        )
        scores = torch.bmm(queries, keys.transpose(1, 2)) / math.sqrt(tokens)
        places = torch.arange(tokens, device=x.device)
        far = (places[:, None] - places).abs() > self.window
        weights = scores.masked_fill(far, -math.inf).softmax(dim=-1)
        return self._W_o(torch.cat(torch.bmm(weights, values).chunk(self.heads), dim=-1))


class PlainFeedForward(nn.Module):
    def __init__(self, width: int, hidden: int = 2048) -> None:
        super().__init__()
        self._linear1, self._linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self._linear2(F.relu(self._linear1(x)))


class PlainBlock(nn.Module):
    """Attention and perceptron, each added and then normalised."""

    def __init__(self, width: int, key: int, value: int, heads: int, window: int) -> None:
        super().__init__()
        self._selfAttention = PlainWindowAttention(width, key, value, heads, window)
        self._feedForward = PlainFeedForward(width)
        self._layerNorm1, self._layerNorm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self._layerNorm1(x + self._selfAttention(x))
        return self._layerNorm2(x + self._feedForward(x))


class PlainDenoiser(nn.Module):
    """Trans1, without dropout: maps (row, channel, token), steps and prompts to (row, channel, token).

    Args:
        channels: numbers in a token.
        width: of the tokens inside.
        spatial: width of the spatial prompt.
        temporal: width of the temporal prompt.
        blocks: how many.
        key, value, heads, window: of the attention.
        span: first and last but one token that the spatial prompt is added to; None adds it to none.
    """

    def __init__(
        self, channels: int, width: int, *, spatial: int, temporal: int, blocks: int = 3, key: int = 10,
        value: int = 10, heads: int = 10, window: int = 5, span: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width, self.span = width, span
        self._embedding, self._linear = nn.Linear(channels, width), nn.Linear(width, channels)
        self.step_mlp = nn.Sequential(nn.Identity(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.timelinear = nn.Linear(temporal, width)
        self.kgEmb_mlp = nn.Sequential(nn.Linear(spatial, width), nn.ReLU(), nn.Linear(width, width))
        self.layers_encoding = nn.ModuleList(PlainBlock(width, key, value, heads, window) for _ in range(blocks))

    def forward(self, x: Tensor, t: Tensor, spatial: Tensor, temporal: Tensor) -> Tensor:
        h = self._embedding(x.transpose(1, 2))
        h = h + self.step_mlp(self._steps(t))[:, None] + self.timelinear(temporal)[:, None] + self._places(h.shape[1])
        if self.span is not None:
            first, last = self.span
            added = torch.zeros_like(h)
            added[:, first:last] = self.kgEmb_mlp(spatial)[:, None]
            h = h + added
        for block in self.layers_encoding:
            h = block(h)
        return self._linear(h).transpose(1, 2)

    def _steps(self, t: Tensor) -> Tensor:
        half = self.width // 2
        rates = torch.exp(torch.arange(half, device=t.device) * -(math.log(10_000) / (half - 1)))
        return torch.cat([(t[:, None] * rates).sin(), (t[:, None] * rates).cos()], dim=-1)

    def _places(self, tokens: int) -> Tensor:
        place = torch.arange(tokens, device=self._linear.weight.device)[:, None]
        found = torch.zeros(tokens, self.width, device=place.device)
        even, odd = (torch.arange(first, self.width, 2, device=place.device) for first in (0, 1))
        found[:, 0::2] = torch.sin(place / torch.pow(1000, even / self.width))
        found[:, 1::2] = torch.cos(place / torch.pow(1000, odd / self.width))
        return found
