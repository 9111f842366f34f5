"""DiX attention: features of every cell by its own past, by its own frame, and by each in the light of the other.

Source: VLM4ST, `DiXAttention` with `TemporalEncoder`, `SpatialEncoder`, `CrossEncoder`. Differs in: class tokens are
returned, not kept on the module; layers of an encoder start apart; where a feature is the same for all cells of a
frame, or for all frames of a cell, the first layer of the fusion is computed once and broadcast.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from vlm4st.models.configs import DixConfig
from vlm4st.models.encoder import Encoder, fast_attention

Map = Float[Tensor, "batch time height width dim"]
Token = Float[Tensor, "batch dim"]

DAYS, SLOTS = 7, 48
"""Days of a week; half hours of a day."""


class Encoded(NamedTuple):
    """A map of features and its class token."""

    values: Map
    cls: Token


class DixMaps(NamedTuple):
    """Four maps of features; three class tokens."""

    temporal: Map
    spatial: Map
    cross: Map
    given: Map
    temporal_cls: Token
    spatial_cls: Token
    cross_cls: Token


class TemporalEncoder(nn.Module):
    """Lets each cell attend to its own past, with the time of the week added to it."""

    def __init__(self, width: int, config: DixConfig) -> None:
        super().__init__()
        self.weekday_embed = nn.Embedding(DAYS, width // 2)
        self.timeofday_embed = nn.Embedding(SLOTS, width // 2)
        self.timestamp_proj = nn.Linear(width, width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.temporal_encoder = make_encoder(width, config)
        self.norm = nn.LayerNorm(width)

    def forward(self, given: Map, timestamps: Int[Tensor, "batch time 2"] | None) -> Encoded:
        """Return the features; their residual is the input with the time of the week."""
        if timestamps is not None:
            stamp = [self.weekday_embed(timestamps[..., 0]), self.timeofday_embed(timestamps[..., 1])]
            given = given + rearrange(self.timestamp_proj(torch.cat(stamp, -1)), "batch time dim -> batch time 1 1 dim")
        batch, _, height, width, _ = given.shape
        tokens = with_first(self.cls_token, rearrange(given, "batch time h w dim -> (batch h w) time dim"))
        tokens = self.temporal_encoder(tokens)
        back = rearrange(tokens, "(batch h w) token dim -> batch token h w dim", batch=batch, h=height, w=width)
        return Encoded(self.norm(back[:, 1:] + given), back[:, 0].mean((1, 2)))


class SpatialEncoder(nn.Module):
    """Lets the cells of each frame attend to one another."""

    def __init__(self, width: int, config: DixConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.spatial_encoder = make_encoder(width, config)
        self.norm = nn.LayerNorm(width)

    def forward(self, given: Map) -> Encoded:
        """Return the features."""
        batch, _, height, _, _ = given.shape
        tokens = with_first(self.cls_token, rearrange(given, "batch time h w dim -> (batch time) (h w) dim"))
        tokens = self.spatial_encoder(tokens)
        values = rearrange(tokens[:, 1:], "(batch time) (h w) dim -> batch time h w dim", batch=batch, h=height)
        cls = rearrange(tokens[:, 0], "(batch time) dim -> batch time dim", batch=batch)
        return Encoded(self.norm(values + given), cls.mean(1))


class CrossEncoder(nn.Module):
    """Lets the mean over cells attend to space, and the mean over time attend to time."""

    def __init__(self, width: int, config: DixConfig) -> None:
        super().__init__()
        self.pool_size = config.pool_size
        self.t2s_cross_attn, self.s2t_cross_attn = (
            nn.MultiheadAttention(width, config.num_heads, config.weights_dropout, batch_first=True) for _ in range(2)
        )
        self.t2s_cls_token, self.s2t_cls_token = (nn.Parameter(torch.randn(1, 1, width)) for _ in range(2))
        self.fusion = nn.Sequential(
            nn.Linear(2 * width, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, temporal: Map, spatial: Map) -> Encoded:
        """Return the features and the mean of both class tokens."""
        batch, _, height, width, _ = temporal.shape
        frames = rearrange(spatial, "batch time h w dim -> (batch time) dim h w")
        pooled = rearrange(F.adaptive_avg_pool2d(frames, self.pool_size), "frame dim h w -> frame (h w) dim")
        query = rearrange(temporal.mean((2, 3)), "batch time dim -> (batch time) 1 dim")
        to_space = self._ask(self.t2s_cross_attn, self.t2s_cls_token, query, pooled)
        to_space = rearrange(to_space, "(batch time) token dim -> token batch time 1 1 dim", batch=batch)
        query = rearrange(spatial.mean(1), "batch h w dim -> (batch h w) 1 dim")
        cells = rearrange(temporal, "batch time h w dim -> (batch h w) time dim")
        to_time = self._ask(self.s2t_cross_attn, self.s2t_cls_token, query, cells)
        to_time = rearrange(to_time, "(batch h w) token dim -> token batch 1 h w dim", batch=batch, h=height, w=width)
        cls = (to_space[0].mean((1, 2, 3)) + to_time[0].mean((1, 2, 3))) / 2
        return Encoded(self.norm(self._fuse(to_space[1], to_time[1]) + temporal + spatial), cls)

    def _ask(self, attention: nn.MultiheadAttention, cls: Tensor, query: Tensor, memory: Tensor) -> Tensor:
        query = with_first(cls, query)
        with fast_attention(query):
            return attention(query, memory, memory, need_weights=False)[0]

    def _fuse(self, to_space: Tensor, to_time: Tensor) -> Map:
        """Apply the fusion to both features side by side, without spreading either over the other's axes first."""
        first = self.fusion[0]
        assert isinstance(first, nn.Linear)
        of_space, of_time = first.weight.chunk(2, dim=1)
        joint = F.linear(to_space, of_space, first.bias) + F.linear(to_time, of_time)
        return self.fusion[1:](joint)


class DixAttention(nn.Module):
    """Four maps of features of a series of frames.

    Args:
        width: of the features (D).
        config: heads, layers, dropout.
        encoders: false where an ablation leaves all but the input's features out.
    """

    def __init__(self, width: int, config: DixConfig, *, encoders: bool = True) -> None:
        super().__init__()
        self.input_proj = nn.Linear(1, width)
        self.norm = nn.LayerNorm(width)
        if encoders:
            self.temporal_encoder = TemporalEncoder(width, config)
            self.spatial_encoder = SpatialEncoder(width, config)
            self.cross_encoder = CrossEncoder(width, config)
        self.encoders = encoders

    def forward(
        self, x: Float[Tensor, "batch time height width"], timestamps: Int[Tensor, "batch time 2"] | None = None
    ) -> DixMaps:
        """Return the maps; without encoders all are the input's, and class tokens are 0.

        Args:
            x: known frames, normalised.
            timestamps: day of the week (0 is Monday) and half hour of the day of each.
        """
        given = self.norm(self.input_proj(x[..., None]))
        if not self.encoders:
            zero = given.new_zeros(x.shape[0], given.shape[-1])
            return DixMaps(given, given, given, given, zero, zero, zero)
        temporal = self.temporal_encoder(given, timestamps)
        spatial = self.spatial_encoder(given)
        cross = self.cross_encoder(temporal.values, spatial.values)
        return DixMaps(temporal.values, spatial.values, cross.values, given, temporal.cls, spatial.cls, cross.cls)


def make_encoder(width: int, config: DixConfig) -> Encoder:
    """Make the encoder of one axis."""
    return Encoder(width, config.num_heads, config.num_layers, config.dropout, config.weights_dropout)


def with_first(
    token: Float[Tensor, "1 1 dim"], sequences: Float[Tensor, "sequence token dim"]
) -> Float[Tensor, "sequence token_and_one dim"]:
    """Put a token before every sequence."""
    return torch.cat([repeat(token, "1 1 dim -> s 1 dim", s=sequences.shape[0]).to(sequences.dtype), sequences], dim=1)
