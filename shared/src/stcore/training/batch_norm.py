"""Batch normalisation whose statistics are those of the batches of all processes together.

torch's `SyncBatchNorm` needs a GPU; this one runs wherever `torch.distributed` does, and with one process, or in
evaluation mode, it is torch's `BatchNorm2d`.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn


def sum_over_ranks(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Add up a tensor over all processes; the gradient is added up over them as well."""
    return _SumOverRanks.apply(values)  # pyright: ignore[reportReturnType]


def in_company() -> bool:
    """Tell whether there are other processes to exchange with."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class BatchNorm2d(nn.BatchNorm2d):
    """Normalise each channel by its mean and variance over the samples of all processes.

    Gradients are right for a loss that is averaged over the processes, as data-parallel training does: the two
    statistics carry gradients from process to process. Parameters and buffers are named as torch names them.
    """

    def forward(
        self, input: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Return the normalised channels."""
        if not (self.training and in_company()):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
            mean, variance, count = _statistics(x)
            self._follow(mean.detach(), variance.detach() * count / (count - 1.0).clamp_min(1.0))
            scale = (variance + self.eps).rsqrt().to(x.dtype)
            # Subtracting first keeps the digits of channels far from zero.
            normal = (x - mean.to(x.dtype)[:, None, None]) * scale[:, None, None]
            if self.affine:
                normal = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return normal.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of this batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _statistics(x: Float[Tensor, "batch channel height width"]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and (biased) variance of each channel, and the number of values, over all processes, in one exchange.

    The variance is put together from those of the processes and their means, in float64, so that nothing cancels.
    """
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    mean, variance = mean.double(), variance.double()
    own = float(x.numel() // x.shape[1])
    sums = torch.stack([torch.full_like(mean, own), own * mean, own * (variance + mean.square())])
    count, first, second = sum_over_ranks(sums).unbind()
    common = first / count
    return common, (second / count - common.square()).clamp_min(0.0), count


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
