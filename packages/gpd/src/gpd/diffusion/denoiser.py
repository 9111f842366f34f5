"""The denoiser: a transformer over the tokens of a row, with prompts brought in by one of five strategies.

Trans1 to Trans5 of the original (paper, section 4.3 and figure 3); see `gpd.diffusion.configs` for their names here.
Trans2 and Trans3 attend over the rows of a batch in the original, by an axis that was mistaken; here they attend over
tokens unless the configuration asks for the mistake.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gpd.diffusion.attention import PromptAttention
from gpd.diffusion.blocks import ModulatedBlock, NormAfterBlock, PromptBlock
from gpd.diffusion.configs import MIXED, DenoiserConfig
from gpd.diffusion.encodings import positions, step_vectors
from gpd.diffusion.tokens import TokenLayout

TokenRows = Float[Tensor, "row token channel"]
Wide = Float[Tensor, "row token width"]
Spatial = Float[Tensor, "row spatial"]
Temporal = Float[Tensor, "row temporal"]


class TokenTable(NamedTuple):
    """What a denoiser knows of the tokens."""

    tokens: int
    channels: int
    on_graph: Bool[Tensor, " token"]
    """Tokens that the spatial prompt is added to (pre-inductive)."""
    kind: Int[Tensor, " token"] | None = None
    """Kind of layer of each token; None where tokens are of no kind."""
    layer: Int[Tensor, " token"] | None = None
    """Depth of each token's layer."""

    @classmethod
    def of(cls, layout: TokenLayout, config: DenoiserConfig) -> TokenTable:
        """Return what the denoiser of a configuration needs to know of a layout."""
        on_graph = layout.on_graph if config.spatial_on == "graph" else torch.zeros_like(layout.on_graph)
        known = config.token_embeddings and config.layout == "layerwise"
        return cls(layout.tokens, layout.channels, on_graph, layout.kind if known else None,
                   layout.layer if known else None)  # fmt: skip


class Denoiser(nn.Module):
    """Maps noised tokens, their step and the node's prompts to what the objective asks for.

    Args:
        config: strategy and sizes.
        table: of the tokens.
        spatial_dim: width of the spatial prompts.
        temporal_dim: width of the temporal prompts.
    """

    on_graph: Tensor
    places: Tensor

    def __init__(self, config: DenoiserConfig, table: TokenTable, spatial_dim: int, temporal_dim: int) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.enter = nn.Linear(table.channels, width)
        self.leave = nn.Linear(width, table.channels)
        self.step = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.register_buffer("places", positions(table.tokens, width), persistent=False)
        self.register_buffer("on_graph", table.on_graph.float()[:, None], persistent=False)
        self.kinds = None if table.kind is None else _Labels(table.kind, width)
        self.depths = None if table.layer is None else _Labels(table.layer, width)
        if config.strategy == "pre-inductive":
            self.spatial: nn.Module = nn.Sequential(nn.Linear(spatial_dim, width), nn.ReLU(), nn.Linear(width, width))
            self.temporal: nn.Module = nn.Linear(temporal_dim, width)
        elif config.strategy != "adaptive-norm":
            self.spatial, self.temporal = nn.Linear(spatial_dim, width), nn.Linear(temporal_dim, width)
        self.mixture = PromptAttention(width) if config.strategy == "pre-adaptive" else None
        self.blocks = nn.ModuleList(_block(config, spatial_dim + temporal_dim) for _ in range(config.blocks))
        normalised = config.final_norm and config.strategy in ("post-adaptive", "adaptive-norm")
        self.norm = nn.LayerNorm(width) if normalised else nn.Identity()

    def forward(self, x: TokenRows, t: Int[Tensor, " row"], spatial: Spatial, temporal: Temporal) -> TokenRows:
        """Return the denoiser's word on noised tokens.

        Args:
            x: tokens after step `t`.
            t: step of each row.
            spatial: prompt of each row's node.
            temporal: the other one.
        """
        entered = self.enter(x)
        h = entered + self.step(step_vectors(t, self.config.width).to(entered.dtype))[:, None] + self._places()
        strategy = self.config.strategy
        if strategy == "pre-inductive":
            h = h + self.temporal(temporal)[:, None] + self.spatial(spatial)[:, None] * self.on_graph
            for block in self.blocks:
                h = block(h)
        elif strategy == "adaptive-norm":
            prompt = torch.cat([spatial, temporal], dim=1)
            for block in self.blocks:
                h = block(h, prompt)
        elif strategy == "post-adaptive":
            prompts = self._prompts(spatial, temporal)
            for block in self.blocks:
                h = block(h, prompts)
        else:
            h = self._mixed(h, self._condition(entered, spatial, temporal))
        return self.leave(self.norm(h))

    def _places(self) -> Float[Tensor, "token width"]:
        places = self.places
        for labels in (self.kinds, self.depths):
            if labels is not None:
                places = places + labels()
        return places

    def _prompts(self, spatial: Spatial, temporal: Temporal) -> Float[Tensor, "row 2 width"]:
        return torch.stack([self.spatial(spatial), self.temporal(temporal)], dim=1)

    def _condition(self, entered: Wide, spatial: Spatial, temporal: Temporal) -> Float[Tensor, "row _ width"]:
        """Return what is added before each block: the same for all tokens, or weighted by what a token holds."""
        prompts = self._prompts(spatial, temporal)
        return prompts.sum(1, keepdim=True) if self.mixture is None else self.mixture(entered, prompts)

    def _mixed(self, h: Wide, condition: Float[Tensor, "row _ width"]) -> Wide:
        for block in self.blocks:
            h = block(h + condition)
        return h


class _Labels(nn.Module):
    """A learned vector for each label, looked up for each token."""

    labels: Tensor

    def __init__(self, labels: Int[Tensor, " token"], width: int) -> None:
        super().__init__()
        self.register_buffer("labels", labels, persistent=False)
        self.vectors = nn.Parameter(0.02 * torch.randn(int(labels.max()) + 1, width))

    def forward(self) -> Float[Tensor, "token width"]:
        return F.embedding(self.labels, self.vectors)


def _block(config: DenoiserConfig, prompt_dim: int) -> nn.Module:
    if config.strategy in MIXED:
        # Without `batch_first`, rows of the batch take the place of tokens.
        return nn.TransformerEncoderLayer(
            config.width, config.heads, config.feedforward, config.dropout,
            batch_first=not config.legacy_batch_attention,
        )  # fmt: skip
    if config.strategy == "pre-inductive":
        return NormAfterBlock(config)
    return PromptBlock(config) if config.strategy == "post-adaptive" else ModulatedBlock(config, prompt_dim)
