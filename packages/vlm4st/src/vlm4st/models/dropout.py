"""Dropout whose random numbers cost little on a processor.

Torch draws a number of 64 bits for each value there, one after another, which took an eighth of a step of training.
Here four values share one: each gets 16 bits, so the rate is rounded to a multiple of 1/65536. The numbers come from
NumPy's SFC64, which draws them in half the time, with a seed drawn by torch; so torch's seed decides what is dropped.
Elsewhere than on a processor, and in compiled graphs, it is torch's own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 1 << 16
LANES = 4
"""Values that share a random number."""


class Dropout(nn.Dropout):
    """Sets a share of values to 0 and scales the others up, while training."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the values that are kept, scaled up, and zeros."""
        if not self.training or self.p == 0.0:
            return input
        if input.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(input, self.p, training=True, inplace=self.inplace)
        return cheap_dropout(input, self.p, inplace=self.inplace)


def cheap_dropout(values: Tensor, rate: float, *, inplace: bool = False) -> Tensor:
    """Drop values at a rate that is rounded to 1/65536, on request in the memory of the values."""
    level = min(round(rate * LEVELS), LEVELS - 1)
    scales = kept_values(values.shape, level).mul_(LEVELS / (LEVELS - level))
    scales = scales.to(values.dtype)
    return values.mul_(scales) if inplace else values * scales


def kept_values(shape: torch.Size, level: int) -> Tensor:
    """Draw which values stay: 1 with a chance of 1 - level / 65536, else 0, as float32."""
    count = shape.numel()
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-count // LANES))
    # Comparing as numbers that become the result is several times faster than as booleans.
    return torch.from_numpy(words.view(np.int16)[:count]).to(torch.float32).ge_(level - LEVELS // 2).view(shape)


def make_cheap(module: nn.Module) -> None:
    """Put such dropouts in the place of torch's in all parts of a module."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.Dropout:
                setattr(part, name, Dropout(child.p, child.inplace))
