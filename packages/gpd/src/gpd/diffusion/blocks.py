"""Blocks of the denoisers: what stands around attention and perceptron in each strategy.

Source: the original's `Encoder` classes of Trans1, Trans4 and Trans5; Trans2 and Trans3 are built of torch's own
encoder layer. Written anew.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gpd.diffusion.attention import PromptAttention, WindowAttention
from gpd.diffusion.configs import DenoiserConfig

Wide = Float[Tensor, "row token width"]
Prompt = Float[Tensor, "row dim"]


class Perceptron(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, hidden)
        self.leave = nn.Linear(hidden, width)

    def forward(self, x: Wide) -> Wide:
        return self.leave(F.relu(self.enter(x)))


class NormAfterBlock(nn.Module):
    """Window attention and perceptron, each added and then normalised (Trans1)."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.attention = _attention(config)
        self.perceptron = Perceptron(config.width, config.feedforward)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Wide) -> Wide:
        x = self.norm1(x + self.dropout(self.attention(x)))
        return self.norm2(x + self.dropout(self.perceptron(x)))


class PromptBlock(nn.Module):
    """Normalised first, with an attention to the prompts between the two branches (Trans4)."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.attention = _attention(config)
        self.prompts = PromptAttention(config.width)
        self.perceptron = Perceptron(config.width, config.feedforward)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Wide, prompts: Float[Tensor, "row 2 width"]) -> Wide:
        x = x + self.dropout(self.attention(self.norm1(x)))
        inner = self.norm2(x)
        # The normalised tokens are added beside what the prompts bring, as in the original.
        x = x + self.dropout(inner + self.prompts(inner, prompts))
        return x + self.dropout(self.perceptron(self.norm3(x)))


class ModulatedBlock(nn.Module):
    """Normalised first; the prompts shift, scale and gate both branches (Trans5; Peebles and Xie 2023)."""

    def __init__(self, config: DenoiserConfig, prompt_dim: int) -> None:
        super().__init__()
        self.attention = _attention(config)
        self.perceptron = Perceptron(config.width, config.feedforward)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.modulation = nn.Linear(prompt_dim, 6 * config.width)
        self.dropout = nn.Dropout(config.dropout)
        if config.zero_gates:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Wide, prompt: Prompt) -> Wide:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(prompt))[:, None].chunk(6, dim=-1)
        x = x + self.dropout(gate1 * self.attention(self.norm1(x) * (1.0 + scale1) + shift1))
        return x + self.dropout(gate2 * self.perceptron(self.norm2(x) * (1.0 + scale2) + shift2))


def _attention(config: DenoiserConfig) -> WindowAttention:
    return WindowAttention(config.width, heads=config.heads, key_dim=config.head_dim, value_dim=config.value_dim,
                           window=config.window, scale=config.scale)  # fmt: skip
