"""MetaFormer blocks with large-kernel gates: gSTA, TAU and VAN, which differ in how the gate is put together.

Sources: SimVPv2 (Tan et al., arXiv 2211.12509, gSTA), TAU (Tan et al., CVPR 2023), VAN (Guo et al., 2022), in the form
of OpenSTL (Apache-2.0), `openstl/modules/simvp_modules.py::GASubBlock, TAUSubBlock` and `modules/layers/van.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from stcore.torchvision_ops import prepare_timm
from stcore.training.batch_norm import BatchNorm2d
from svq.models.depthwise import depthwise

prepare_timm()  # timm imports torchvision, which a CPU-only torch cannot load unprepared

from timm.layers import DropPath  # noqa: E402  # pyright: ignore[reportPrivateImportUsage]

LAYER_SCALE = 1e-2
"""First value of the scale of a block's branches."""


class _Wide(nn.Module):
    """Depthwise convolutions that together see 23 × 23 cells, then a mix of the channels."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.near = depthwise(width, 5)
        self.far = depthwise(width, 7, dilation=3)
        self.mix = nn.Conv2d(width, outputs, 1)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch filter rows columns"]:
        return self.mix(self.far(self.near(u)))


class SpatiotemporalGate(nn.Module):
    """gSTA: one half of the channels gates the other (paper, equation 6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = _Wide(width, 2 * width)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the gated maps."""
        value, gate = self.wide(u).chunk(2, dim=1)
        return torch.sigmoid(gate) * value


class TemporalGate(nn.Module):
    """TAU: attention within frames times attention between channels, both on the input itself (paper, section 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        middle = width // max(width // 16, 4)
        self.wide = _Wide(width, width)
        self.squeeze = nn.Linear(width, middle, bias=False)
        self.excite = nn.Linear(middle, width, bias=False)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the gated maps."""
        between = torch.sigmoid(self.excite(torch.relu(self.squeeze(u.mean((2, 3))))))
        return rearrange(between, "batch channel -> batch channel 1 1") * self.wide(u) * u


class LargeKernelGate(nn.Module):
    """VAN: the wide view weighs the input (paper, equation 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = _Wide(width, width)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the weighed maps."""
        return u * self.wide(u)


GATES: dict[str, Callable[[int], nn.Module]] = {
    "gsta": SpatiotemporalGate,
    "tau": TemporalGate,
    "van": LargeKernelGate,
}


class _Attention(nn.Module):
    """A gate between two mixes of the channels, beside the input."""

    def __init__(self, width: int, gate: nn.Module) -> None:
        super().__init__()
        self.enter = nn.Conv2d(width, width, 1)
        self.act = nn.GELU()
        self.gate = gate
        self.leave = nn.Conv2d(width, width, 1)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        return u + self.leave(self.gate(self.act(self.enter(u))))


class MixMlp(nn.Module):
    """Perceptron on the channels of each cell, with a 3×3 depthwise convolution in its middle."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.depthwise = depthwise(hidden, 3)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, u: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        return self.drop(self.fc2(self.drop(self.act(self.depthwise(self.fc1(u))))))


class GatedBlock(nn.Module):
    """Attention by a gate, then a perceptron, each beside its input.

    Args:
        width: channels.
        hidden: hidden width of the perceptron.
        gate: name of the gate.
        dropout: share of values dropped in the perceptron.
        drop_path: share of samples that skip a branch.
    """

    def __init__(self, width: int, hidden: int, *, gate: str, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = BatchNorm2d(width)
        self.attention = _Attention(width, GATES[gate](width))
        self.scale1 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.norm2 = BatchNorm2d(width)
        self.mlp = MixMlp(width, hidden, dropout)
        self.scale2 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        x = x + self.drop_path(self.scale1[:, None, None] * self.attention(self.norm1(x)))
        return x + self.drop_path(self.scale2[:, None, None] * self.mlp(self.norm2(x)))
