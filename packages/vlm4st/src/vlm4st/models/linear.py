"""Linear layers whose products are oneDNN's on processors by AMD, where torch takes MKL's.

Most of a step of training is spent in such products, and on AMD's processors MKL needs a fifth to a third more time for
them than oneDNN, which is part of the same torch. Only layers' outputs and the gradients of their inputs are computed
by it: for those of weights MKL is as fast. On other processors, where nobody has measured it, at other precisions, for
small products and in compiled graphs, it is torch's own layer.

The operation is the one that torch's compiler calls for such layers. It has no public name, so a torch without it is
served by torch's own layer as well.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WORTH = 1 << 20
"""Multiplications from which the way around is worth its cost."""
PROCESSOR = Path("/proc/cpuinfo")
"""Where Linux says whose the processor is."""


class Linear(nn.Linear):
    """A linear layer, as torch's."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `x W' + b`."""
        return linear(input, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*tokens width"], weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "*tokens out"]:
    """Return `x W' + b`."""
    if not _worth_it(x, weight):
        return F.linear(x, weight, bias)
    return _Linear.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


def make_linear(module: nn.Module) -> None:
    """Let all of torch's linear layers in a module be such layers; parameters and names stay."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear


class _Linear(torch.autograd.Function):
    """The products, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.T, None) if of_input else None,
            gradient.T @ x if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _worth_it(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # first of all: sizes may be unknown there
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.shape[0] >= WORTH
        and not torch.is_autocast_enabled("cpu")
        and is_faster()
    )


@cache
def is_faster() -> bool:
    """Return whether this torch has the operation, and this processor is one of those that it was measured on."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return PROCESSOR.is_file() and "AuthenticAMD" in PROCESSOR.read_text()
