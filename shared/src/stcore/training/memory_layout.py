"""How the weights of convolutions lie in memory, which decides how the maps between layers lie."""

from __future__ import annotations

import torch
from torch import nn


def put_channels_last(model: nn.Module, wanted: bool = True) -> None:
    """Store four-dimensional weights with their channels last (or first, torch's own order).

    Convolutions then work on maps with the channels of a pixel side by side, which CPU and GPU libraries prefer: they
    need not reorder. Results differ by rounding only. Weights of more dimensions stay as they are; `nn.Module.to` with
    a memory format refuses a model that has both.
    """
    layout = torch.channels_last if wanted else torch.contiguous_format
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
