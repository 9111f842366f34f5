"""PromptForge: a prompt put together from prototypes in two levels, one pool for each view of the data.

For the class token c of a view: `q = normalise(LN(W c))`; weights of coarse prototypes
`softmax(q · normalise(C) / τ)`; of these the fewest whose sum passes 0.9 are kept; within each kept one, weights of
its fine prototypes in the same way; the prompt is the weighted sum of projected fine prototypes.

Source: VLM4ST, `PatternMemory`, `PromptForge`. Differs in: samples and prototypes at once, where the original loops
over both and waits for the device at each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vlm4st.models.configs import PromptForgeConfig

TEMPERATURE = 0.5
ENOUGH = 0.9
"""Coarse prototypes are kept until their weights sum up to more than this."""
VIEWS = ("temporal", "spatial", "cross")


class Pattern(NamedTuple):
    """A pool's prompt, and the weights behind it."""

    prompt: Float[Tensor, "batch prompt"]
    coarse: Float[Tensor, "batch coarse"]
    fine: Float[Tensor, "batch coarse fine"]
    """0 below coarse prototypes that were not kept."""


class PatternMemory(nn.Module):
    """One pool of prototypes.

    Args:
        width: of the class token.
        config: numbers of prototypes, width of the prompt.
    """

    def __init__(self, width: int, config: PromptForgeConfig) -> None:
        super().__init__()
        coarse, fine = config.num_coarse_prototypes, config.num_fine_per_coarse
        self.coarse_prototypes = nn.Parameter(_orthogonal(coarse, width))
        self.fine_prototypes = nn.Parameter(torch.stack([_orthogonal(fine, width) for _ in range(coarse)]))
        self.query_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.prompt_proj = nn.Linear(width, config.d_prompt)

    def forward(self, cls: Float[Tensor, "batch width"]) -> Pattern:
        """Return the prompt that a class token calls up."""
        # Similarities and what is chosen by them need more digits than half precision has, and cost nothing.
        with torch.autocast(cls.device.type, enabled=False):
            query = F.normalize(self.norm(self.query_proj(cls.float())), dim=-1)
            coarse = (query @ F.normalize(self.coarse_prototypes, dim=-1).T / TEMPERATURE).softmax(-1)
            likeness = torch.einsum("bd,kmd->bkm", query, F.normalize(self.fine_prototypes, dim=-1))
            fine = (likeness / TEMPERATURE).softmax(-1) * kept(coarse)[..., None]
            prompt = torch.einsum("bk,bkm,kmp->bp", coarse, fine, self.prompt_proj(self.fine_prototypes))
        return Pattern(prompt, coarse, fine)


class Prompt(NamedTuple):
    """The joint prompt, and the pattern of each view."""

    prompt: Float[Tensor, "batch three_prompts"]
    patterns: dict[str, Pattern]


class PromptForge(nn.Module):
    """Three pools, and a perceptron that joins their prompts.

    Args:
        width: of the class tokens (D).
        config: numbers of prototypes, width of a prompt.
    """

    def __init__(self, width: int, config: PromptForgeConfig) -> None:
        super().__init__()
        self.temporal_memory = PatternMemory(width, config)
        self.spatial_memory = PatternMemory(width, config)
        self.cross_memory = PatternMemory(width, config)
        joint, inner = 3 * config.d_prompt, 2 * config.d_prompt
        self.prompt_fusion = nn.Sequential(
            nn.Linear(joint, inner), nn.LayerNorm(inner), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(inner, joint)
        )
        self.norm = nn.LayerNorm(joint)

    def forward(
        self,
        temporal: Float[Tensor, "batch width"],
        spatial: Float[Tensor, "batch width"],
        cross: Float[Tensor, "batch width"],
    ) -> Prompt:
        """Return the prompt that three class tokens call up."""
        patterns = {
            "temporal": self.temporal_memory(temporal),
            "spatial": self.spatial_memory(spatial),
            "cross": self.cross_memory(cross),
        }
        joint = torch.cat([pattern.prompt for pattern in patterns.values()], dim=-1)
        return Prompt(self.norm(joint + self.prompt_fusion(joint)), patterns)


def kept(weights: Float[Tensor, "batch choice"]) -> Float[Tensor, "batch choice"]:
    """Return 1 for the largest weights, up to the one with which their sum passes 0.9, and 0 for the others.

    >>> kept(torch.tensor([[0.05, 0.7, 0.25], [0.02, 0.95, 0.03]])).tolist()
    [[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]
    """
    values, order = weights.detach().sort(dim=-1, descending=True)
    before = F.pad(values.cumsum(-1)[..., :-1], (1, 0))
    return torch.zeros_like(values).scatter(-1, order, (before <= ENOUGH).to(values.dtype))


def no_patterns(config: PromptForgeConfig, like: Tensor) -> dict[str, Pattern]:
    """Return patterns of zeros, for a model without PromptForge."""
    coarse, fine = config.num_coarse_prototypes, config.num_fine_per_coarse
    empty = Pattern(like.new_zeros(like.shape[0], config.d_prompt), like.new_zeros(like.shape[0], coarse),
                    like.new_zeros(like.shape[0], coarse, fine))  # fmt: skip
    return dict.fromkeys(VIEWS, empty)


def _orthogonal(rows: int, width: int) -> Float[Tensor, "rows width"]:
    empty = torch.empty(rows, width)
    return empty if empty.is_meta else nn.init.orthogonal_(empty)
