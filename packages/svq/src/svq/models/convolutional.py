"""Further MetaFormer blocks made of convolutions that timm does not have: ConvMixer, HorNet, MogaNet.

Sources: ConvMixer (Trockman and Kolter 2022), HorNet (Rao et al. 2022, equation 3.3), MogaNet (Li et al. 2022,
equations 4 to 8), in the form of OpenSTL (Apache-2.0), `openstl/modules/simvp_modules.py` and `modules/layers/`.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from stcore.torchvision_ops import prepare_timm
from stcore.training.batch_norm import BatchNorm2d
from svq.models.depthwise import depthwise

prepare_timm()  # before timm

from timm.layers import DropPath, LayerNorm2d, Mlp  # noqa: E402  # pyright: ignore[reportPrivateImportUsage]


class ConvMixerBlock(nn.Module):
    """A wide depthwise convolution beside its input, then a mix of the channels without.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = depthwise(width, 11)
        self.norm1 = BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.norm2 = BatchNorm2d(width)
        self.act = nn.GELU()

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        x = x + self.norm1(self.act(self.depthwise(x)))
        return self.norm2(self.act(self.pointwise(x)))


class _RecursiveGate(nn.Module):
    """Gated convolution of order 4: channels multiply with twice as many, three times (HorNet, equation 3.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widths = (width // 8, width // 4, width // 2, width)
        self.enter = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = depthwise(sum(self.widths), 7)
        self.widen = nn.ModuleList(
            nn.Conv2d(few, many, 1) for few, many in zip(self.widths[:-1], self.widths[1:], strict=True)
        )
        self.leave = nn.Conv2d(width, width, 1)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        first, rest = self.enter(u).split((self.widths[0], sum(self.widths)), dim=1)
        weights = self.depthwise(rest).split(self.widths, dim=1)
        y = first * weights[0]
        for widen, weight in zip(self.widen, weights[1:], strict=True):
            y = widen(y) * weight
        return self.leave(y)


class HorNetBlock(nn.Module):
    """Recursive gates, then a perceptron, each beside its input.

    Args:
        width: channels, a multiple of 8.
        hidden: hidden width of the perceptron.
        drop_path: share of samples that skip a branch.
    """

    LAYER_SCALE = 1e-6

    def __init__(self, width: int, hidden: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(width, eps=1e-6)
        self.gate = _RecursiveGate(width)
        self.scale1 = nn.Parameter(torch.full((width,), self.LAYER_SCALE))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)
        self.scale2 = nn.Parameter(torch.full((width,), self.LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        x = x + self.drop_path(self.scale1[:, None, None] * self.gate(self.norm1(x)))
        cells = self.norm2(rearrange(x, "batch channel rows columns -> batch rows columns channel"))
        cells = self.scale2 * self.mlp(cells)
        return x + self.drop_path(rearrange(cells, "batch rows columns channel -> batch channel rows columns"))


class _MultiOrder(nn.Module):
    """Depthwise convolutions of three reaches on 1/8, 3/8 and 4/8 of the channels (MogaNet, equation 6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        middle, far = 3 * width // 8, 4 * width // 8
        self.widths = (width - middle - far, middle, far)
        self.near = depthwise(width, 5)
        self.middle = depthwise(middle, 5, dilation=2)
        self.far = depthwise(far, 7, dilation=3)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, v: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        near, middle, far = self.near(v).split(self.widths, dim=1)
        return self.mix(torch.cat([near, self.middle(middle), self.far(far)], dim=1))


class _MogaAttention(nn.Module):
    """Features without what they have in common, gated by themselves (MogaNet, equations 4 to 7)."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, width, 1)
        self.contrast = nn.Parameter(torch.full((1, width, 1, 1), start))
        self.gate = nn.Conv2d(width, width, 1)
        self.value = _MultiOrder(width)
        self.act = nn.SiLU()
        self.leave = nn.Conv2d(width, width, 1)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        y = self.enter(u)
        v = self.act(y + self.contrast * (y - y.mean((2, 3), keepdim=True)))
        return u + self.leave(self.act(self.gate(v)) * self.act(self.value(v)))


class _MogaMlp(nn.Module):
    """Perceptron that sets each hidden channel off against what they have in common (MogaNet, equation 8)."""

    def __init__(self, width: int, hidden: int, dropout: float, start: float) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.depthwise = depthwise(hidden, 3)
        self.act = nn.GELU()
        self.common = nn.Conv2d(hidden, 1, 1)
        self.contrast = nn.Parameter(torch.full((1, hidden, 1, 1), start))
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        z = self.drop(self.act(self.depthwise(self.fc1(u))))
        z = z + self.contrast * (z - self.act(self.common(z)))
        return self.drop(self.fc2(z))


class MogaNetBlock(nn.Module):
    """Multi-order gated aggregation, then a perceptron, each beside its input.

    Args:
        width: channels, a multiple of 8.
        hidden: hidden width of the perceptron.
        dropout: share of values dropped in the perceptron.
        drop_path: share of samples that skip a branch.
    """

    LAYER_SCALE = 1e-5

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = BatchNorm2d(width)
        self.attention = _MogaAttention(width, self.LAYER_SCALE)
        self.scale1 = nn.Parameter(torch.full((1, width, 1, 1), self.LAYER_SCALE))
        self.norm2 = BatchNorm2d(width)
        self.mlp = _MogaMlp(width, hidden, dropout, self.LAYER_SCALE)
        self.scale2 = nn.Parameter(torch.full((1, width, 1, 1), self.LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        x = x + self.drop_path(self.scale1 * self.attention(self.norm1(x)))
        return x + self.drop_path(self.scale2 * self.mlp(self.norm2(x)))
