"""Random draws of the samplers: one generator per event, so that no result depends on how events are grouped."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Draws(Protocol):
    """Where a sampler gets its randomness from. Tests put recorded draws in its place."""

    def normal(self, samples: int, width: int) -> Float[Tensor, "event sample width"]:
        """Standard normal draws."""
        ...

    def uniform(self, samples: int) -> Float[Tensor, "event sample"]:
        """Draws from [0, 1)."""
        ...

    def marks(self, probability: Float[Tensor, "event sample mark"]) -> Int[Tensor, "event sample"]:
        """One mark for each distribution."""
        ...


class SeededDraws:
    """Draws that are a function of each event's seed and of the order of the calls.

    They are made on the CPU, so that they are the same on every device.

    Args:
        seeds: one seed per event.
        like: dtype and device of the draws.
    """

    def __init__(self, seeds: Int[Tensor, "event"], like: Tensor) -> None:
        self.generators = [torch.Generator().manual_seed(_fold(seed)) for seed in seeds.tolist()]
        self.dtype, self.device = like.dtype, like.device

    def normal(self, samples: int, width: int) -> Float[Tensor, "event sample width"]:
        draws = torch.empty(len(self.generators), samples, width, dtype=self.dtype)
        for row, generator in zip(draws, self.generators, strict=True):
            row.normal_(generator=generator)
        return draws.to(self.device)

    def uniform(self, samples: int) -> Float[Tensor, "event sample"]:
        draws = torch.empty(len(self.generators), samples, dtype=self.dtype)
        for row, generator in zip(draws, self.generators, strict=True):
            row.uniform_(generator=generator)
        return draws.to(self.device)

    def marks(self, probability: Float[Tensor, "event sample mark"]) -> Int[Tensor, "event sample"]:
        below = probability.cumsum(-1)
        level = self.uniform(probability.shape[1]) * below[..., -1]
        return (below[..., :-1] <= level[..., None]).sum(-1)


def _fold(seed: int) -> int:
    """Mix the upper half of a 64-bit seed into the lower: the CPU generator looks at 32 bits only."""
    return (seed ^ (seed >> 32)) & 0xFFFFFFFF
