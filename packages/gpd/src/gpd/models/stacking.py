"""Operations on many networks at once: the networks are the first axis of every tensor.

Inside, windows have the axes (node, time, ego, batch, channel). Steps of time are then whole blocks of memory, so a
convolution along time is a product of matrices over views, and mixing over the ego graph is one product per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def time_first(x: Float[Tensor, "node batch ego time feature"]) -> Float[Tensor, "node time ego batch feature"]:
    """Bring windows into the order of axes used inside; a view where they were gathered in that order."""
    return x.permute(0, 3, 2, 1, 4)


def multiply(x: Tensor, weight: Float[Tensor, "node from to"]) -> Tensor:
    """Multiply the channels of `x` (node, …, from) by each network's own matrix."""
    return torch.bmm(x.reshape(len(x), -1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[-1])


class _Gated(torch.autograd.Function):
    """Two products with the same input, one of them let through by the sigmoid of the other.

    Values and gates lie apart in memory, and the gradient is put together from what is kept, the result among it: with
    library operations more than half of a training step goes into halves of rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gate: Tensor, tanh: bool) -> Tensor:
        shown = torch.bmm(x, value)
        shown = shown.tanh_() if tanh else shown.relu_()
        opened = torch.bmm(x, gate).sigmoid_()
        result = shown * opened if tanh else shown.mul_(opened)  # the derivative of a ReLU is read off the result
        ctx.save_for_backward(x, value, gate, opened, result, *((shown,) if tanh else ()))
        return result

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, value, gate, opened, result, *shown = ctx.saved_tensors
        to_value = outer[0] * opened
        if shown:
            torch.ops.aten.tanh_backward.grad_input(to_value, shown[0], grad_input=to_value)
        else:
            torch.ops.aten.threshold_backward.grad_input(to_value, result, 0.0, grad_input=to_value)
        to_gate = outer[0] * result
        to_gate.addcmul_(to_gate, opened, value=-1.0)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.baddbmm(torch.bmm(to_value, value.mT), to_gate, gate.mT)
        return to_x, torch.bmm(x.mT, to_value), torch.bmm(x.mT, to_gate), None


def gated(
    x: Tensor, value: Float[Tensor, "node from to"], gate: Float[Tensor, "node from to"], *, tanh: bool
) -> Tensor:
    """Return the ReLU, or tanh, of `x` times `value`, times the sigmoid of `x` times `gate`.

    A gate is positive, so the ReLU of the product is the product with the ReLU.
    """
    flat: Any = _Gated.apply(x.reshape(len(x), -1, x.shape[-1]), value, gate, tanh)
    return flat.reshape(*x.shape[:-1], value.shape[-1])


class _GatedMix(torch.autograd.Function):
    """A gate and, over the ego graph, the sum of what it lets through: each value is touched once less than in turn.

    The gradient of the sum is the same for all nodes of an ego graph but for their weight, which is put on the input
    instead, where there is little to multiply.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gate: Tensor, weights: Tensor) -> Tensor:
        nodes, time, ego, batch, _ = x.shape
        flat = x.reshape(nodes, time * ego * batch, -1)
        opened = torch.bmm(flat, gate).sigmoid_()
        result = torch.bmm(flat, value).relu_().mul_(opened)
        ctx.save_for_backward(x, value, gate, weights, opened, result)
        mixed = torch.matmul(weights[:, None, None], result.view(nodes, time, ego, -1))
        return mixed.view(nodes, time, batch, -1)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, value, gate, weights, opened, result = ctx.saved_tensors
        gradient, axes = outer[0][:, :, None], (*x.shape[:-1], -1)
        to_value = gradient * opened.view(axes)
        torch.ops.aten.threshold_backward.grad_input(to_value, result.view(axes), 0.0, grad_input=to_value)
        to_gate = torch.addcmul(result, result, opened, value=-1.0).view(axes).mul_(gradient)
        share = weights[:, None, :, None, None]
        flat, to_value, to_gate = (x * share).flatten(1, 3), to_value.flatten(1, 3), to_gate.flatten(1, 3)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.baddbmm(torch.bmm(to_value, value.mT), to_gate, gate.mT).view(x.shape) * share
        return to_x, torch.bmm(flat.mT, to_value), torch.bmm(flat.mT, to_gate), None


def gated_mix(
    x: Float[Tensor, "node time ego batch from"],
    value: Float[Tensor, "node from to"],
    gate: Float[Tensor, "node from to"],
    weights: Float[Tensor, "node ego"],
) -> Float[Tensor, "node time batch to"]:
    """Return the sum over the ego graph of `gated` with a ReLU, by weights that are not learnt."""
    mixed: Any = _GatedMix.apply(x, value, gate, weights)
    return mixed


def taps(x: Tensor, kernel: int, dilation: int = 1) -> Tensor:
    """Put the steps under a convolution beside one another: (node, time, …, channel) to (…, kernel * channel)."""
    length = x.shape[1] - (kernel - 1) * dilation
    return torch.cat([x[:, tap * dilation : tap * dilation + length] for tap in range(kernel)], dim=-1)


def kernel_matrix(weight: Float[Tensor, "node to from one kernel"]) -> Float[Tensor, "node kernelfrom to"]:
    """Turn the kernel of a convolution along time into the matrix that multiplies `taps`."""
    nodes, to, source, _, kernel = weight.shape
    return weight[:, :, :, 0].permute(0, 3, 2, 1).reshape(nodes, kernel * source, to)


def point_matrix(weight: Float[Tensor, "node to from one one"]) -> Float[Tensor, "node from to"]:
    """Turn the kernel of a convolution over single positions into a matrix."""
    return weight[..., 0, 0].transpose(1, 2)


def at_centre(x: Tensor, centre: Tensor) -> Tensor:
    """Take the centre of each ego graph from (node, time, ego, batch, channel): (node, time, batch, channel)."""
    return x[torch.arange(len(x), device=x.device), :, centre]


def last_value(x: Float[Tensor, "node time ego batch feature"], centre: Tensor) -> Float[Tensor, "node batch one"]:
    """Return the last reading of the forecast quantity at the centre."""
    return x[torch.arange(len(x), device=x.device), -1, centre, :, :1]


def drop(x: Tensor, rate: float, seeds: Sequence[int] | None, layer: int) -> Tensor:
    """Drop values of (node, time, ego, batch, channel), each network by its own seed.

    The values are drawn ego by ego, so that padding changes nothing of what comes before it.
    """
    if seeds is None or rate == 0.0:
        return x
    nodes, time, ego, batch, channels = x.shape
    keep = torch.empty(nodes, ego, time, batch, channels, device=x.device)
    generator = torch.Generator(device=x.device)
    for node, seed in enumerate(seeds):
        generator.manual_seed((seed + layer) % 2**63)
        keep[node].uniform_(generator=generator)
    return x * (keep >= rate).permute(0, 2, 1, 3, 4) / (1.0 - rate)


class _BatchNorm(torch.autograd.Function):
    """Normalisation over the rows of a batch that count, with the sums of its gradient as products of matrices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Any:
        mean = share @ x
        centred = x - mean
        variance = share @ centred.square()
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(centred, share, gain, scale)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(bias[:, None], centred, scale * gain[:, None]), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        centred, share, gain, scale = ctx.saved_tensors
        dy = gradients[0]
        to_bias = dy.sum(dim=1)
        to_gain = (dy * centred).sum(dim=1) * scale[:, 0]
        # Each row moves the mean and the variance by its share of them.
        slope = scale * to_gain[:, None]
        pull = torch.addcmul(to_bias[:, None], centred, slope) * share.transpose(1, 2)
        return (dy - pull) * (scale * gain[:, None]), None, to_gain, to_bias, None


def batch_norm(
    x: Float[Tensor, "node time ego batch channel"],
    mask: Bool[Tensor, "node ego"],
    gain: Float[Tensor, "node channel"],
    bias: Float[Tensor, "node channel"],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by mean and variance over time, ego graph and batch; return these (node, channel) too.

    The variance that is returned is the unbiased one, which running statistics keep.
    """
    nodes, time, ego, batch, channels = x.shape
    count = mask.sum(dim=1) * time * batch
    share = (mask / count[:, None])[:, None, :, None].expand(nodes, time, ego, batch).reshape(nodes, 1, -1).to(x.dtype)
    flat = x.reshape(nodes, -1, channels)
    result: Any = _BatchNorm.apply(flat, share, gain, bias, eps)
    y, mean, variance = result
    unbiased = variance[:, 0] * (count / (count - 1).clamp_min(1))[:, None]
    return y.reshape(x.shape), mean[:, 0], unbiased


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise the channels of each position, then scale by each network's own gain and bias."""
    normal = F.layer_norm(x, x.shape[-1:], eps=eps)
    over = (len(x), *(1,) * (x.ndim - 2), -1)
    return torch.addcmul(bias.reshape(over), normal, gain.reshape(over))


def uniform(generator: torch.Generator, nodes: int, shape: Sequence[int], fan_in: int) -> Tensor:
    """Draw parameters as torch's own layers do: between -1 and 1 over the root of the fan-in."""
    return (torch.rand(nodes, *shape, generator=generator) * 2.0 - 1.0) / sqrt(fan_in)
