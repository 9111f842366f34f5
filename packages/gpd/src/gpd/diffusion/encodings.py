"""Positions of tokens and steps of diffusion as vectors (Vaswani et al. 2017, with the original's own base)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BASE, _STEP_BASE = 1000.0, 10_000.0


def positions(tokens: int, width: int) -> Float[Tensor, "token width"]:
    """Return the encoding of each position: sin(p / 1000^(j / D)) for even j, the cosine for odd j.

    Unlike Vaswani's, an odd column has a frequency of its own.
    """
    columns = torch.arange(width)
    angles = torch.arange(tokens)[:, None] / torch.pow(_BASE, columns / width)
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos())


def periodic_positions(tokens: int, width: int, period: int) -> Float[Tensor, "token width"]:
    """Return the encoding of each position within a period, the same in all columns (of the original; not used by it).

    >>> periodic_positions(7, 1, 12)[:, 0].round(decimals=3).tolist()[::3]
    [0.0, 1.0, 0.0]
    """
    angles = 2.0 * math.pi * torch.arange(tokens, dtype=torch.float64)[:, None] / period
    return angles.sin().float().expand(tokens, width)


def step_vectors(t: Int[Tensor, " row"], width: int) -> Float[Tensor, "row width"]:
    """Return the encoding of steps: sines of all frequencies, then their cosines."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=t.device) * -(math.log(_STEP_BASE) / (half - 1)))
    angles = t[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
