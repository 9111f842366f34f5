"""The fused map as an image and as a sequence of tokens, which is what a vision-language model reads.

Source: VLM4ST, `FormatTransformer` with `ImageProjector`, `SequenceProjector`, `PerceiverResampler`. Differs in: one
known frame has a deviation of 0 (NaN in the original), and the gradient of a deviation of 0 is finite.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vlm4st.models.configs import HEADS, FormatTransformerConfig, ModelConfig
from vlm4st.models.encoder import channel_norm, recomputed

Map = Float[Tensor, "batch time height width dim"]

WEIGHTED, PROJECTED, STATISTICS = 0.5, 0.3, 0.2
"""Shares of the three ways to make an image of a series."""
LAYERS = 2
"""Of the perceiver."""
SMALL = 1e-12
"""Variances below this count as this, where a gradient is taken."""


class Image(NamedTuple):
    """An image, and the weights of the frames in it."""

    values: Float[Tensor, "batch 3 rows columns"]
    weights: Float[Tensor, "batch 3 time height width"]


class ImageProjector(nn.Module):
    """Three channels from a series of frames: a weighted mean over time, a projection, and statistics over time.

    Args:
        config: sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, steps, norm = config.d_model, config.T, config.norm
        self.size = config.vlm.image_res
        self.feature_reduction = nn.Sequential(
            nn.Conv2d(width, width // 2, 1), channel_norm(norm, width // 2, 2), nn.GELU(), nn.Conv2d(width // 2, 1, 1)
        )
        self.temporal_pos_encoding = nn.Parameter(0.02 * torch.randn(1, steps, 1, 1))
        self.temporal_attention = nn.Sequential(
            nn.Conv2d(steps, steps, 3, padding=1, groups=steps),
            channel_norm(norm, steps, 2),
            nn.GELU(),
            nn.Conv2d(steps, 3 * steps, 1),
        )
        self.channel_projection = nn.Conv2d(steps, 3, 1)
        nn.init.constant_(self.channel_projection.weight, 1 / steps)
        nn.init.zeros_(self.channel_projection.bias)  # pyright: ignore[reportArgumentType]
        self.stat_fusion = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), channel_norm(norm, 8, 2), nn.GELU(), nn.Conv2d(8, 3, 1)
        )
        self.output_norm = channel_norm(norm, 3, 2)

    def forward(self, fused: Map) -> Image:
        """Return the image at the resolution of the image encoder."""
        image = self.small(fused)
        if image.values.shape[-2:] == (self.size, self.size):
            return image
        # Bicubic interpolation is defined for whole and half numbers of cells alike, without smoothing before.
        size = (self.size, self.size)
        return Image(F.interpolate(image.values, size, mode="bicubic", align_corners=False), image.weights)

    def small(self, fused: Map) -> Image:
        """Return the image with a pixel for each cell."""
        batch = fused.shape[0]
        frames = rearrange(fused, "batch time h w dim -> (batch time) dim h w")
        series = rearrange(self.feature_reduction(frames), "(batch time) 1 h w -> batch time h w", batch=batch)
        series = series + self.temporal_pos_encoding
        weights = rearrange(self.temporal_attention(series), "batch (channel time) h w -> batch channel time h w",
                            channel=3).softmax(2)  # fmt: skip
        weighted = (series[:, None] * weights).sum(2)
        statistics = torch.stack([series.mean(1), deviation(series), series[:, -1] - series[:, 0]], dim=1)
        image = (
            WEIGHTED * weighted
            + PROJECTED * self.channel_projection(series)
            + STATISTICS * self.stat_fusion(statistics)
        )
        return Image(self.output_norm(image), weights)


def deviation(series: Float[Tensor, "batch time height width"]) -> Float[Tensor, "batch height width"]:
    """Return the standard deviation over time (with n - 1); 0 for one frame.

    >>> round(deviation(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).item(), 4)
    1.4142
    """
    if series.shape[1] == 1:
        return torch.zeros_like(series[:, 0])
    return series.var(1).clamp(min=SMALL).sqrt()


class Perceiver(nn.Module):
    """Latent tokens that attend to many others, and not to one another.

    Args:
        width: of the tokens.
        config: number of latents, dropout.
        attention_dropout: share of attention weights dropped.
    """

    def __init__(self, width: int, config: FormatTransformerConfig, attention_dropout: float) -> None:
        super().__init__()
        rate = config.dropout
        self.latent_queries = nn.Parameter(0.02 * torch.randn(1, config.num_latents, width))
        self.cross_attn_layers = nn.ModuleList(
            nn.MultiheadAttention(width, HEADS, attention_dropout, batch_first=True) for _ in range(LAYERS)
        )
        self.ffns = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(rate), nn.Linear(4 * width, width), nn.Dropout(rate)
            )
            for _ in range(LAYERS)
        )
        self.layer_norms1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(LAYERS))
        self.layer_norms2 = nn.ModuleList(nn.LayerNorm(width) for _ in range(LAYERS))

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch latent dim"]:
        """Return the latents after all layers."""
        latents = repeat(self.latent_queries, "1 latent dim -> batch latent dim", batch=tokens.shape[0])
        for attention, ffn, norm1, norm2 in zip(
            self.cross_attn_layers, self.ffns, self.layer_norms1, self.layer_norms2, strict=True
        ):
            latents = norm1(latents + attention(latents, tokens, tokens, need_weights=False)[0])
            latents = norm2(latents + ffn(latents))
        return latents


class SequenceProjector(nn.Module):
    """A few tokens from a series of frames.

    Args:
        config: sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, form = config.d_model, config.format_transformer
        self.pool = form.spatial_pool_size
        self.spatiotemporal_pos_embed = nn.Parameter(0.02 * torch.randn(1, config.T * self.pool**2, width))
        self.feature_enhance = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(form.dropout)
        )
        weights_rate = config.dix_attention.attention_dropout
        self.perceiver = Perceiver(width, form, form.dropout if weights_rate is None else weights_rate)
        self.proj_to_vlm = nn.Sequential(
            nn.Linear(width, form.vlm_hidden_dim),
            nn.LayerNorm(form.vlm_hidden_dim),
            nn.GELU(),
            nn.Dropout(form.dropout),
        )
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, form.vlm_hidden_dim))

    def forward(self, fused: Map) -> Float[Tensor, "batch latent vlm"]:
        """Return the latents as the text encoder reads them."""
        batch = fused.shape[0]
        frames = rearrange(fused, "batch time h w dim -> (batch time) dim h w")
        pooled = F.adaptive_avg_pool2d(frames, self.pool)
        tokens = rearrange(pooled, "(batch time) dim h w -> batch (time h w) dim", batch=batch)
        return self.proj_to_vlm(self.perceiver(self.feature_enhance(tokens + self.spatiotemporal_pos_embed)))


class FormatTransformer(nn.Module):
    """Image and sequence of a fused map and a prompt.

    Args:
        config: sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.image_projector = ImageProjector(config)
        self.sequence_projector = SequenceProjector(config)
        self.prompt_proj = nn.Linear(3 * config.prompt_forge.d_prompt, config.format_transformer.vlm_hidden_dim)
        self.recompute = False

    def image(self, fused: Map) -> Image:
        """Return the image."""
        return recomputed(self.image_projector, fused) if self.recompute and self.training else (
            self.image_projector(fused))  # fmt: skip

    def sequence(self, fused: Map, prompt: Float[Tensor, "batch three_prompts"]) -> Float[Tensor, "batch token vlm"]:
        """Return the tokens: class, prompt, latents."""
        latents = self.sequence_projector(fused)
        first = repeat(self.sequence_projector.cls_token, "1 1 dim -> batch 1 dim", batch=fused.shape[0])
        return torch.cat([first.to(latents.dtype), self.prompt_proj(prompt)[:, None].to(latents.dtype), latents], dim=1)
