"""Adaptive gated fusion: a sum of four maps with weights that each cell chooses.

Source: VLM4ST, `AdaptiveGatedFusion`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vlm4st.models.configs import GateFusionConfig

Map = Float[Tensor, "batch time height width dim"]


class Fused(NamedTuple):
    """The fused map, and the weights of the four branches: temporal, spatial, cross, input."""

    values: Map
    gates: Float[Tensor, "batch time height width branch"]


class GateFusion(nn.Module):
    """Projects four maps and adds them up with a softmax of weights.

    Args:
        width: of the maps (D).
        config: number of branches.
        dropout: share of values dropped.
    """

    def __init__(self, width: int, config: GateFusionConfig, dropout: float) -> None:
        super().__init__()
        branches = config.num_branches
        self.branch_projs = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()) for _ in range(branches)
        )
        self.gate_network = nn.Sequential(
            nn.Linear(branches * width, 2 * width),
            nn.LayerNorm(2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, branches),
        )
        self.output_proj = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, temporal: Map, spatial: Map, cross: Map, given: Map) -> Fused:
        """Return the fused map."""
        maps = (temporal, spatial, cross, given)
        branches = torch.stack([project(each) for project, each in zip(self.branch_projs, maps, strict=True)], dim=-2)
        gates = F.softmax(self.gate_network(branches.flatten(-2)).float(), dim=-1)
        # The weighted sum as a product of matrices, so that no weighted copy of the branches is held.
        total = gates[..., None, :].to(branches.dtype) @ branches
        return Fused(self.output_proj(total.squeeze(-2)), gates)
