"""The mean of a loss over chunks of a batch, with the gradient of each chunk taken while its values are in cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Means = Callable[[int, Tensor], Sequence[Tensor | None]]
"""Scalar means of the chunk of this number, given its condition; the first is minimised, None is left out."""


def mean_over_chunks(
    means: Means, sizes: Sequence[int], condition: Float[Tensor, "target condition"], parameters: Sequence[nn.Parameter]
) -> tuple[Float[Tensor, ""], ...]:
    """Average over all targets. Only the first mean can be differentiated.

    Args:
        means: what to average. What it returns may depend on the condition and on `parameters`, on nothing else
            that wants a gradient.
        sizes: targets of each chunk, in order.
        condition: condition of each target.
        parameters: parameters that `means` uses.
    """
    found = _MeanOverChunks.apply(means, sizes, torch.is_grad_enabled(), condition, *parameters)
    return found.unbind()


class _MeanOverChunks(torch.autograd.Function):
    """The backward pass of a chunk follows its forward pass at once.

    Otherwise the activations of all chunks would go to main memory and come back. Kept until the backward pass of the
    whole are gradients alone: of the condition, and of each parameter.
    """

    @staticmethod
    def forward(
        ctx: Any, means: Means, sizes: Sequence[int], keep: bool, condition: Tensor, *parameters: Tensor
    ) -> Float[Tensor, "mean"]:
        sums: list[Tensor] = []
        slopes = [torch.zeros_like(parameter) for parameter in parameters] if keep else []
        condition_slopes: list[Tensor] = []
        for number, part in enumerate(condition.split(list(sizes))):
            share = sizes[number] / max(1, len(condition))
            with torch.set_grad_enabled(keep):
                part = part.detach().requires_grad_(keep)
                values = [value * share for value in means(number, part) if value is not None]
                if keep:
                    first, *others = torch.autograd.grad(values[0], [part, *parameters], materialize_grads=True)
                    condition_slopes.append(first)
                    for slope, other in zip(slopes, others, strict=True):
                        slope.add_(other)
            sums.append(torch.stack([value.detach() for value in values]))
        if keep:
            ctx.save_for_backward(torch.cat(condition_slopes), *slopes)
        return torch.stack(sums).sum(0)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(slopes[0][0] * saved for saved in ctx.saved_tensors))
