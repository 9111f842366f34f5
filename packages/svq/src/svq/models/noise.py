"""Noise on the input while training, against which the paper tests how robust a forecaster is."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

SPREAD = 2.0
"""Factors lie between minus and plus this."""


def multiply(
    x: Float[Tensor, "*shape"], noise: Float[Tensor, "disturbed"], permutation: Int64[Tensor, "element"]
) -> Float[Tensor, "*shape"]:
    """Multiply some elements by noise and leave the rest.

    Args:
        x: values.
        noise: factors of the disturbed elements.
        permutation: for each element of `x` its place in a row of ones that ends in the noise.
    """
    factors = torch.cat([noise.new_ones(x.numel() - noise.numel()), noise])
    return x * factors[permutation].view(x.shape)


def inject_noise(
    x: Float[Tensor, "*shape"], ratio: float, generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """Multiply a share of the elements, drawn without repetition, by uniform numbers between -2 and 2.

    Args:
        x: values of a batch.
        ratio: share that is disturbed.
        generator: source of the draw, on the device of `x`; by default torch's own.

    Source: SVQ (Chen et al.), noise injection of the appendix.
    """
    disturbed = int(ratio * x.numel())
    noise = torch.empty(disturbed, dtype=x.dtype, device=x.device).uniform_(-SPREAD, SPREAD, generator=generator)
    return multiply(x, noise, torch.randperm(x.numel(), generator=generator, device=x.device))
