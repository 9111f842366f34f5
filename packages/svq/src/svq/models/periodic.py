"""Convolutions and pooling that go around along the width, for grids whose columns are longitudes of a whole globe."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def wrap(x: Float[Tensor, "batch channel rows columns"], margin: int) -> Float[Tensor, "batch channel rows wider"]:
    """Put `margin` columns on either side, those that follow when one goes around."""
    if margin <= x.shape[-1]:
        return F.pad(x, (margin, margin, 0, 0), mode="circular")
    around = torch.arange(-margin, x.shape[-1] + margin, device=x.device) % x.shape[-1]
    return x.index_select(-1, around)


class PeriodicConv2d(nn.Conv2d):
    """A convolution with zeros above and below, and periodic from left to right."""

    def forward(self, input: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch filter below beside"]:
        """Return the filtered maps."""
        rows, columns = self.padding
        assert isinstance(rows, int) and isinstance(columns, int)
        padded = wrap(input, columns)
        return F.conv2d(padded, self.weight, self.bias, self.stride, (rows, 0), self.dilation, self.groups)


class PeriodicAvgPool2d(nn.AvgPool2d):
    """Mean over a window of stride 1, periodic from left to right; what lies above and below does not count."""

    def forward(
        self, input: Float[Tensor, "batch channel rows columns"]
    ) -> Float[Tensor, "batch channel rows columns"]:
        """Return the means."""
        margin = self.padding if isinstance(self.padding, int) else self.padding[1]
        return super().forward(wrap(input, margin))[..., margin:-margin]


def make_periodic(module: nn.Module) -> None:
    """Let all convolutions and poolings in `module` that look sideways go around; weights and names stay."""
    for part in module.modules():
        # The layout of both classes is that of their base, so the class is all that changes.
        if isinstance(part, nn.Conv2d) and part.kernel_size[1] > 1:
            part.__class__ = PeriodicConv2d
        elif type(part) is nn.AvgPool2d:
            part.__class__ = PeriodicAvgPool2d
