"""IncepU, the translator of the first SimVP: inception blocks in the shape of a U.

Source: SimVP (Gao et al., CVPR 2022, section 3), OpenSTL (Apache-2.0), `openstl/models/simvp_model.py::MidIncepNet` and
`openstl/modules/simvp_modules.py::gInception_ST, GroupConv2d`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stcore.errors import UserError

KERNELS = (3, 5, 7, 11)
GROUPS = 8


class _Branch(nn.Module):
    """Grouped convolution, normalisation of the same groups, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        groups = 1 if inputs % GROUPS else GROUPS
        if outputs % groups:
            raise UserError(f"model: incepu with {groups} groups on {outputs} channels; expected multiples of {groups} "
                            "for frames × hid-spatial and for hid-temporal")  # fmt: skip
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
        self.norm = nn.GroupNorm(groups, outputs)
        self.act = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch filter rows columns"]:
        return self.act(self.norm(self.conv(x)))


class Inception(nn.Module):
    """A 1×1 convolution, then the sum of branches with different kernels.

    Args:
        inputs: channels in.
        middle: channels between.
        outputs: channels out.
    """

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, middle, 1)
        self.branches = nn.ModuleList(_Branch(middle, outputs, kernel) for kernel in KERNELS)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch filter rows columns"]:
        """Return the sum."""
        x = self.enter(x)
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return total


class IncepU(nn.Module):
    """Blocks down and blocks up, each of the latter beside the output of its counterpart.

    Args:
        channels: frames × channels of a latent frame.
        width: channels inside.
        depth: blocks on either side.
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        half = width // 2
        self.down = nn.ModuleList(Inception(width if i else channels, half, width) for i in range(depth))
        self.up = nn.ModuleList(
            Inception(2 * width if i else width, half, width if i < depth - 1 else channels) for i in range(depth)
        )

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the latent frames of the future, all channels of all frames side by side."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = self.up[0](skips.pop())
        for block in self.up[1:]:
            x = block(torch.cat([x, skips.pop()], dim=1))
        return x
