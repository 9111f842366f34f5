"""Dropout whose random numbers cost little on a processor.

Torch draws a number of 64 bits for each value there, one after another, which took an eighth of a step of training.
Here four values share one: each gets 16 bits, so the rate is rounded to a multiple of 1/65536. Elsewhere, and in
compiled graphs, it is torch's own. The generator is torch's in either case: a seed decides what is dropped.
"""

from __future__ import annotations

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
            return F.dropout(input, self.p, training=True)
        return cheap_dropout(input, self.p)


def cheap_dropout(values: Tensor, rate: float) -> Tensor:
    """Drop values at a rate that is rounded to 1/65536."""
    level = min(round(rate * LEVELS), LEVELS - 1)
    kept = kept_values(values.shape, level)
    return torch.where(kept, values, values.new_zeros(())) * (LEVELS / (LEVELS - level))


def kept_values(shape: torch.Size, level: int) -> Tensor:
    """Draw which values stay: each with a chance of 1 - level / 65536."""
    count = shape.numel()
    words = torch.empty(-(-count // LANES), dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= level - LEVELS // 2).view(shape)


def make_cheap(module: nn.Module) -> None:
    """Put such dropouts in the place of torch's in all parts of a module."""
    for part in list(module.modules()):
        for name, child in part.named_children():
            if type(child) is nn.Dropout:
                setattr(part, name, Dropout(child.p))
