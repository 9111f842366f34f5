"""Gaussian kernel densities of samples in one and two dimensions, for many events at once.

The estimator is that of `scipy.stats.gaussian_kde` with its defaults: one Gaussian per sample, bandwidth covariance =
sample covariance (divisor S - 1) times the square of the Scott factor S^(-1 / (axes + 4)); densities in 1 / unit or
1 / unit². Everything is float64. Where scipy refuses degenerate samples (all equal, or on a line), a tiny ridge is
added to the covariance and the event is flagged in `Kernel.ridged`, to be counted by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_BLOCK_NUMBERS = 1 << 19
"""Float64 numbers in one intermediate: 4 MB stay in cache and are recycled by the allocator instead of mapped anew."""
_RIDGE = 1e-6
_MAX_EXPONENT = 650.0
"""exp(±650) is finite and normal in float64; so are the products formed below."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """Bandwidths of the kernel density of each event, and the samples they were fitted to."""

    samples: Float[Tensor, "event sample axis"]
    """Samples relative to `mean`."""
    mean: Float[Tensor, "event axis"]
    whiten: Float[Tensor, "event axis axis"]
    """Lower triangular W with WᵀW the inverse of the bandwidth covariance: |W (x - x_s)|² is the exponent's square."""
    scale: Float[Tensor, "event"]
    """Density of one normalised kernel at its centre, divided by the number of samples."""
    ridged: Bool[Tensor, "event"]
    """Whether the samples were degenerate."""


def fit_kernel(samples: Float[Tensor, "event sample axis"]) -> Kernel:
    """Fit the kernel density of each event's samples (at least two), one or two axes."""
    points = samples.double()
    size, axes = points.shape[1:]
    mean = points.mean(dim=1)
    centred = points - mean[:, None, :]
    covariance = centred.mT @ centred / max(size - 1, 1)
    covariance, ridged = _add_ridge(covariance, mean)
    factor = size ** (-1.0 / (axes + 4))
    root = torch.linalg.cholesky_ex(covariance).L * factor
    eye = torch.eye(axes, dtype=torch.float64, device=root.device).expand_as(root)
    whiten = torch.linalg.solve_triangular(root, eye, upper=False)
    determinant = root.diagonal(dim1=-2, dim2=-1).prod(-1)
    scale = 1.0 / (determinant * (2.0 * math.pi) ** (axes / 2.0) * size)
    return Kernel(samples=centred, mean=mean, whiten=whiten, scale=scale, ridged=ridged)


def _add_ridge(
    covariance: Float[Tensor, "event axis axis"], mean: Float[Tensor, "event axis"]
) -> tuple[Float[Tensor, "event axis axis"], Bool[Tensor, "event"]]:
    """Widen the covariances that are singular to rounding: by 1e-6 of the spread, or of the mean where none is left."""
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    flat = variance <= (1e-12 * mean).square().clamp_min(1e-300)
    aligned = torch.zeros_like(flat[:, 0])
    if covariance.shape[-1] == 2:
        aligned = torch.linalg.det(covariance) <= 1e-12 * variance.prod(-1)
    ridged = flat.any(-1) | aligned
    size_of_values = torch.where((variance.amax(-1) > 0.0)[:, None], variance.amax(-1, keepdim=True).sqrt(), mean.abs())
    floor = (_RIDGE * torch.where(size_of_values > 0.0, size_of_values, 1.0)).square()
    ridge = _RIDGE * variance + torch.where(flat, floor, 0.0)
    return covariance + torch.diag_embed(torch.where(ridged[:, None], ridge, 0.0)), ridged


def density_at(kernel: Kernel, points: Float[Tensor, "event point axis"]) -> Float[Tensor, "event point"]:
    """Evaluate each event's density at its own points."""
    size, axes = kernel.samples.shape[1:]
    result = points.new_empty(points.shape[:2], dtype=torch.float64)
    for part in _blocks(len(points), size * points.shape[1] * axes):
        shift = points[part, :, None, :].double() - kernel.mean[part, None, None, :] - kernel.samples[part, None, :, :]
        result[part] = _kernel_sum(shift, kernel.whiten[part]) * kernel.scale[part, None]
    return result


def _kernel_sum(
    shift: Float[Tensor, "event point sample axis"], whiten: Float[Tensor, "event axis axis"]
) -> Float[Tensor, "event point"]:
    square = torch.zeros_like(shift[..., 0])
    for row in range(shift.shape[-1]):
        whitened = sum(whiten[:, row, column, None, None] * shift[..., column] for column in range(row + 1))
        square = square + whitened * whitened
    return square.mul_(-0.5).exp_().sum(-1)


def leave_one_out(kernel: Kernel) -> Float[Tensor, "event sample"]:
    """Evaluate the density at each sample without that sample's own kernel (bandwidth of all the samples)."""
    size = kernel.samples.shape[1]
    result = torch.empty_like(kernel.samples[..., 0])
    for part in _blocks(len(result), size * size):
        white = kernel.samples[part] @ kernel.whiten[part].mT
        half = 0.5 * white.square().sum(-1)
        exponent = torch.baddbmm(half[:, :, None] + half[:, None, :], white, white.mT, beta=-1.0)
        own = exponent.diagonal(dim1=-2, dim2=-1)
        own.fill_(-math.inf)
        result[part] = exponent.exp_().sum(-1) * (kernel.scale[part, None] * size / max(size - 1, 1))
    return result


def density_on_grid(
    kernel: Kernel, x: Float[Tensor, "event column"], y: Float[Tensor, "event row"]
) -> Float[Tensor, "event column row"]:
    """Evaluate each event's two-dimensional density on its own regular grid, the product of `x` and `y`.

    With P the inverse bandwidth covariance and coordinates from the mean, a kernel at (u, v) is
    exp(-P00 (x-u)²/2 + P01 (x v - u v / 2)) · exp(-P11 (y-v)²/2 + P01 (y u - u v / 2)) · exp(-P01 x y): a term of
    column and sample, a term of row and sample, and one of column and row. The sum over samples is thus a matrix
    product, and exponentials are needed on the edges of the grid only. Strong correlation can push the factors out of
    the range of float64 although their product is in it: such events (bounded beforehand) are evaluated directly.
    """
    result = x.new_empty((len(x), x.shape[1], y.shape[1]), dtype=torch.float64)
    size = kernel.samples.shape[1]
    for part in _blocks(len(x), max(x.shape[1], y.shape[1]) * size):
        precision = kernel.whiten[part].mT @ kernel.whiten[part]
        across = x[part].double() - kernel.mean[part, :1]
        along = y[part].double() - kernel.mean[part, 1:]
        u, v = kernel.samples[part, :, 0], kernel.samples[part, :, 1]
        shear = precision[:, 0, 1, None, None]
        columns = _edge_exponent(across, u, v, precision[:, 0, 0, None, None], shear)
        rows = _edge_exponent(along, v, u, precision[:, 1, 1, None, None], shear)
        cross = -shear * across[:, :, None] * along[:, None, :]
        direct = ~_in_range(columns, rows, cross)
        grid = torch.bmm(columns.exp_(), rows.exp_().mT).mul_(cross.exp_())
        result[part] = grid.mul_(kernel.scale[part, None, None])
        for event in torch.nonzero(direct)[:, 0].tolist():
            one = slice(part.start + event, part.start + event + 1)
            result[one] = _grid_directly(kernel, one, across[event], along[event])
    return result


def _edge_exponent(
    edge: Float[Tensor, "event edge"],
    own: Float[Tensor, "event sample"],
    other: Float[Tensor, "event sample"],
    precision: Float[Tensor, "event 1 1"],
    shear: Float[Tensor, "event 1 1"],
) -> Float[Tensor, "event edge sample"]:
    shift = edge[:, :, None] - own[:, None, :]
    tilt = torch.addcmul(-0.5 * (own * other)[:, None, :], edge[:, :, None], other[:, None, :]).mul_(shear)
    return torch.addcmul(tilt, shift.square_(), precision, value=-0.5)


def _in_range(
    columns: Float[Tensor, "event column sample"],
    rows: Float[Tensor, "event row sample"],
    cross: Float[Tensor, "event column row"],
) -> Bool[Tensor, "event"]:
    """Tell the events where no factor overflows, and none underflows where the product is above exp(-40).

    The product is at most 1, so a factor can only be below exp(-650) there if the other two together exceed exp(610).
    """
    top = torch.stack([part.flatten(1).amax(1).clamp_min(0.0) for part in (columns, rows, cross)])
    return top.sum(0) - top.amin(0) < _MAX_EXPONENT - 40.0


def _grid_directly(
    kernel: Kernel, event: slice, across: Float[Tensor, "column"], along: Float[Tensor, "row"]
) -> Float[Tensor, "column row"]:
    size = kernel.samples.shape[1]
    result = across.new_empty((len(across), len(along)))
    shift_along = (along[:, None] - kernel.samples[event, :, 1])[None, None]
    for part in _blocks(len(across), 2 * size * len(along)):
        shift_across = (across[part, None] - kernel.samples[event, :, 0])[None, :, None, :]
        shift = torch.stack(torch.broadcast_tensors(shift_across, shift_along), dim=-1)
        result[part] = _kernel_sum(shift.flatten(1, 2), kernel.whiten[event]).unflatten(1, shift.shape[1:3])[0]
    return result * kernel.scale[event]


def _blocks(count: int, numbers_each: int) -> Iterator[slice]:
    """Cut `count` items into slices whose intermediates hold about `_BLOCK_NUMBERS` numbers."""
    length = max(1, _BLOCK_NUMBERS // max(numbers_each, 1))
    return (slice(start, start + length) for start in range(0, count, length))
