"""The head: queries for each future frame read the tokens, and are decoded to cells beside the fused map.

Source: VLM4ST, `PredictionHead`. Differs in: the last stage may correct what came before instead of replacing it, and
the forecast may be what is added to the last known frame; features of the fused map that are the same for all future
frames are computed once.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vlm4st.models.configs import HEADS, ModelConfig
from vlm4st.models.encoder import channel_norm, recomputed

Map = Float[Tensor, "batch time height width dim"]
Volume = Float[Tensor, "batch channel horizon height width"]
PACE = 10.0
"""How much faster than other weights the shares of the last frame are learnt (`residual` damped)."""


class PredictionHead(nn.Module):
    """Frames of the future.

    Args:
        config: sizes and forms.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        form, tokens, width = config.prediction_head, config.format_transformer.vlm_hidden_dim, config.d_model
        hidden, channels, rate, norm = form.hidden_dim, form.output_channels, config.dix_attention.dropout, config.norm
        self.horizon, self.height, self.width, self.form = config.T_out, config.H, config.W, form
        self.recompute = False
        self.horizon_queries = nn.Parameter(0.02 * torch.randn(1, config.T_out, tokens))
        weights_rate = config.dix_attention.weights_dropout
        self.cross_attention = nn.MultiheadAttention(tokens, HEADS, weights_rate, batch_first=True)
        self.attn_norm = nn.LayerNorm(tokens)
        self.ffn = nn.Sequential(
            nn.Linear(tokens, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(rate),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(rate),
        )
        self.ffn_norm = nn.LayerNorm(hidden)
        self.spatial_decode = nn.Sequential(
            nn.Linear(hidden, config.H * config.W * hidden // 4), nn.GELU(), nn.Dropout(rate)
        )
        self.dix_proj = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            channel_norm(norm, width // 2, 2),
            nn.GELU(),
            nn.Dropout(rate),
            nn.Conv2d(width // 2, width // 4, 3, padding=1),
            channel_norm(norm, width // 4, 2),
            nn.GELU(),
        )
        self.fusion_conv = nn.Sequential(
            nn.Conv3d(hidden // 4 + width // 4, hidden // 2, 3, padding=1),
            channel_norm(norm, hidden // 2, 3),
            nn.GELU(),
            nn.Dropout(rate),
            nn.Conv3d(hidden // 2, hidden // 4, 3, padding=1),
            channel_norm(norm, hidden // 4, 3),
            nn.GELU(),
            nn.Dropout(rate),
            nn.Conv3d(hidden // 4, channels, 1),
        )
        self.output_refine = None if form.output_refine == "none" else nn.Sequential(
            nn.Conv3d(channels, 2 * channels, 3, padding=1),
            channel_norm(norm, 2 * channels, 3),
            nn.GELU(),
            nn.Conv3d(2 * channels, channels, 1),
        )  # fmt: skip
        self.shares: nn.Parameter | None = None
        if form.residual == "damped":
            self.shares = nn.Parameter(torch.zeros(config.T_out))  # what is lacking to the whole, by the pace
        self.carry: nn.Parameter | None = None
        if form.residual == "linear":
            self.carry = nn.Parameter(torch.eye(config.T)[-1:].repeat(config.T_out, 1))
        self._start_calm()

    def _start_calm(self) -> None:
        """Let a correction start at 0, and a forecast of changes as no change."""
        refine, changes = self.form.output_refine, self.form.residual != "none"
        last: list[nn.Module] = []
        if self.output_refine is not None and (refine == "residual" or changes):
            last.append(self.output_refine[-1])
        if changes and refine != "reference":
            last.append(self.fusion_conv[-1])
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        embeddings: Float[Tensor, "batch token vlm"],
        fused: Map,
        history: Float[Tensor, "batch time height width"] | None = None,
    ) -> Float[Tensor, "batch horizon height width channel"]:
        """Return the forecast.

        Args:
            embeddings: of the backbone.
            fused: the fused map.
            history: known frames, which `residual` adds to.
        """
        latent = torch.cat([self._decoded(embeddings), self._features(fused)], dim=1)
        keep = not (self.recompute and self.training)
        field = self.fusion_conv(latent) if keep else recomputed(self.fusion_conv, latent)
        if self.output_refine is not None:
            refined = self.output_refine(field)
            field = refined if self.form.output_refine == "reference" else field + refined
        if history is not None and (carried := self.carried(history)) is not None:
            field = field + carried[:, None]
        return rearrange(field, "batch channel horizon h w -> batch horizon h w channel")

    def carried(
        self, history: Float[Tensor, "batch time row column"]
    ) -> Float[Tensor, "batch #horizon row column"] | None:
        """Return what forecasts hold of known frames (`residual`), or of a part of them; None for nothing."""
        if self.form.residual == "none":
            return None
        if self.carry is not None:
            return torch.einsum("ht,btrc->bhrc", self.carry, history)
        if self.shares is None:
            return history[:, -1:]
        return (1.0 - PACE * self.shares[:, None, None]) * history[:, -1:]

    @property
    def fits(self) -> int:
        """Last known frames whose weights can be fitted before training (`residual` damped or linear); 0 for none."""
        if self.carry is not None:
            return self.carry.shape[1]
        return int(self.shares is not None)

    def start_from(self, weights: Float[Tensor, "horizon known"]) -> None:
        """Let forecasts hold these weights of the last known frames, `fits` of them."""
        with torch.no_grad():
            if self.carry is not None:
                self.carry.copy_(weights)
            elif self.shares is not None:
                self.shares.copy_((1.0 - weights[:, -1]) / PACE)

    def started(self) -> Float[Tensor, "horizon known"]:
        """Return the weights of the last known frames that forecasts hold, `fits` of them."""
        if self.carry is not None:
            return self.carry.detach()
        if self.shares is None:
            return self.horizon_queries.new_zeros(self.horizon, 0)
        return 1.0 - PACE * self.shares.detach()[:, None]

    def _decoded(self, embeddings: Float[Tensor, "batch token vlm"]) -> Volume:
        """Return features of each future frame's cells out of the tokens."""
        queries = repeat(self.horizon_queries, "1 horizon dim -> batch horizon dim", batch=embeddings.shape[0])
        found = self.cross_attention(queries, embeddings, embeddings, need_weights=False)[0]
        hidden = self.ffn_norm(self.ffn(self.attn_norm(queries + found)))
        return rearrange(self.spatial_decode(hidden), "batch horizon (h w channel) -> batch channel horizon h w",
                         h=self.height, w=self.width)  # fmt: skip

    def _features(self, fused: Map) -> Volume:
        """Return features of the fused map for each future frame; of its mean, if there are more or fewer frames."""
        same = fused.shape[1] == self.horizon
        frames = fused if same else fused.mean(1, keepdim=True)
        found = self.dix_proj(rearrange(frames, "batch time h w dim -> (batch time) dim h w"))
        found = rearrange(found, "(batch time) channel h w -> batch channel time h w", batch=fused.shape[0])
        return found if same else found.expand(-1, -1, self.horizon, -1, -1)


def forecast_loss(
    prediction: Float[Tensor, "batch horizon height width channel"],
    target: Float[Tensor, "batch horizon height width *channel"],
    *,
    mse_weight: float = 1.0,
    mae_weight: float = 0.5,
    mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of squared and absolute error, and its parts, as tensors.

    Args:
        prediction: forecast.
        target: truth, with or without the axis of channels where there is one channel.
        mse_weight: weight of the mean squared error.
        mae_weight: weight of the mean absolute error.
        mask: true where a cell counts, of a shape that spreads over that of the target; None where all do.
    """
    truth = target[..., None] if target.ndim == prediction.ndim - 1 else target
    if truth.shape != prediction.shape:
        raise ValueError(f"target of shape {tuple(target.shape)}; expected {tuple(prediction.shape)}")
    error = prediction.float() - truth.float()
    if mask is None:
        mse, mae = F.mse_loss(error, torch.zeros_like(error)), error.abs().mean()
    else:
        counted = (mask[..., None] if mask.ndim == error.ndim - 1 else mask).expand_as(error).to(error.dtype)
        count = counted.sum().clamp(min=1)
        mse, mae = (error.square() * counted).sum() / count, (error.abs() * counted).sum() / count
    total = mse_weight * mse + mae_weight * mae
    return total, {"total_loss": total, "mse_loss": mse, "mae_loss": mae}
