"""Errors of predicted frames, overall and per lead time, from running sums: no prediction is kept.

MSE and MAE are sums over the channels, rows and columns of a frame, averaged over frames, in the units of the data
(squared for MSE) and not clipped; the RMSE is the root of that MSE, taken once at the end. Their `spatial_norm`
variants are means over cells. PSNR, SNR and SSIM compare frames scaled from the declared range of values to [0, 1]
with predictions clipped to it; the two in decibels are taken of each frame and then averaged. All arithmetic is in
float64 and everything pooled is a sum, so how samples were batched does not matter. NaN in a prediction makes the
numbers of its lead time NaN; NaN in the truth is a cell without data, which counts in no metric.

Source: the evaluation of OpenSTL (Tan et al., NeurIPS 2023, `openstl/core/metrics.py`); SSIM: Wang et al., "Image
Quality Assessment", IEEE Transactions on Image Processing 2004, with the uniform window of scikit-image
(`skimage.metrics.structural_similarity`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypedDict

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from stcore.errors import UserError

WINDOW = 7
"""Side of the square window of SSIM, in cells; smaller frames have no SSIM."""
_K1, _K2 = 0.01, 0.03


class FrameReport(TypedDict):
    """Metrics by name, of all frames and of the frames of each lead time, and how many sequences they come from.

    Names: `mse`, `mae`, `rmse`, the same with `_spatial_norm`, `psnr`, `snr` (decibels), `ssim`, `ssim_legacy`.
    """

    overall: dict[str, float]
    per_lead_time: dict[str, list[float]]
    sequences: int


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameErrors:
    """What every frame of a batch adds to the sums."""

    squared: Float64[Tensor, "batch horizon"]
    """Sum of squared errors over the cells that count."""
    absolute: Float64[Tensor, "batch horizon"]
    cells: Float64[Tensor, "batch horizon"]
    """How many cells count: channels × height × width without a mask."""
    frames: Float64[Tensor, "batch horizon"]
    """1 for a frame with cells, else 0."""
    psnr: Float64[Tensor, "batch horizon"]
    """Decibels; infinite for a frame met exactly."""
    snr: Float64[Tensor, "batch horizon"]
    """Decibels; minus infinity where the truth is 0 everywhere, NaN where the prediction then is, too."""
    ssim: Float64[Tensor, "batch horizon"]
    """SSIM for the true range of the data, 1."""
    ssim_legacy: Float64[Tensor, "batch horizon"]
    """SSIM for twice that range, which scikit-image before 0.19 took for float images: that of published tables."""
    windowed: Float64[Tensor, "batch horizon"]
    """1 for a frame in which some window of SSIM counts, else 0."""


NAMES = tuple(field.name for field in fields(FrameErrors))


class FrameMetrics:
    """Sums over batches of predicted frames.

    Args:
        value_range: lowest and highest value of the data, which PSNR, SNR and SSIM scale to [0, 1].
        mask: True where there is data; cells elsewhere count in no metric. Any shape that broadcasts to
            (channel, height, width) or to a whole batch.

    Example:
        >>> metrics = FrameMetrics()
        >>> metrics.update(torch.zeros(2, 3, 1, 8, 8), torch.full((2, 3, 1, 8, 8), 0.5))
        >>> metrics.compute()["per_lead_time"]["mse"]
        [16.0, 16.0, 16.0]
    """

    def __init__(
        self, *, value_range: tuple[float, float] = (0.0, 1.0), mask: Bool[Tensor, "*cells"] | None = None
    ) -> None:
        low, high = value_range
        if not high > low:
            raise UserError(f"value range: {low:g} to {high:g}; expected the lowest value below the highest")
        self._range, self._mask = value_range, mask
        self._totals: Float64[Tensor, "sum horizon"] | None = None

    def update(
        self,
        prediction: Float[Tensor, "..."],
        truth: Float[Tensor, "..."],
        *,
        mask: Bool[Tensor, "*cells"] | None = None,
    ) -> None:
        """Add a batch of frames (batch, horizon, channel, height, width).

        Args:
            prediction: predicted frames.
            truth: what came.
            mask: cells of this batch that count, in place of the mask of all batches.

        Raises:
            UserError: shapes that differ from one another, a mask that does not fit them, or a horizon that differs
                from that of earlier batches.
        """
        if prediction.ndim != 5 or prediction.shape != truth.shape:
            raise UserError(f"frames: predictions of shape {tuple(prediction.shape)} for {tuple(truth.shape)}; "
                            "expected both as (batch, horizon, channel, height, width)")  # fmt: skip
        known = self._mask if mask is None else mask
        if known is not None and not _broadcasts(known.shape, prediction.shape):
            raise UserError(f"mask: shape {tuple(known.shape)}; expected (height, width) = "
                            f"{tuple(prediction.shape[-2:])}, or a shape that broadcasts to the frames")  # fmt: skip
        errors = frame_errors(prediction, truth, value_range=self._range, mask=known)
        self._add(torch.stack([getattr(errors, name).sum(0) for name in NAMES]).cpu())

    def _add(self, totals: Float64[Tensor, "sum horizon"]) -> None:
        if self._totals is not None and self._totals.shape != totals.shape:
            raise UserError(f"frames: a batch with {totals.shape[1]} lead times after batches with "
                            f"{self._totals.shape[1]}; expected one horizon")  # fmt: skip
        self._totals = totals if self._totals is None else self._totals + totals

    def sums(self) -> dict[str, float]:
        """Return the state as named sums: those of two parts of the data add up to those of the whole."""
        if self._totals is None:
            raise UserError("frames: none was given; expected at least one batch")
        return {
            f"{name}/{lead}": value
            for name, row in zip(NAMES, self._totals.tolist(), strict=True)
            for lead, value in enumerate(row)
        }

    def add_sums(self, sums: Mapping[str, float]) -> None:
        """Add the sums of other batches, such as those of another process."""
        rows = [[sums[f"{name}/{lead}"] for lead in range(len(sums) // len(NAMES))] for name in NAMES]
        self._add(torch.tensor(rows, dtype=torch.float64))

    def compute(self) -> FrameReport:
        """Return all metrics; SSIM only where frames have at least 7 × 7 cells.

        Raises:
            UserError: no frame was given.
        """
        if self._totals is None:
            raise UserError("frames: none was given; expected at least one batch")
        by_lead = _metrics(self._totals)
        return {
            "overall": {name: float(value) for name, value in _metrics(self._totals.sum(1)).items()},
            "per_lead_time": {name: value.tolist() for name, value in by_lead.items()},
            "sequences": int(self._totals[NAMES.index("frames")].max()),
        }


def _broadcasts(shape: torch.Size, onto: torch.Size) -> bool:
    return len(shape) <= len(onto) and all(
        size in (1, goal) for size, goal in zip(reversed(shape), reversed(onto), strict=False)
    )


def _metrics(totals: Float64[Tensor, "sum *horizon"]) -> dict[str, Float64[Tensor, "*horizon"]]:
    """Turn sums into metrics; 0 / 0, where nothing counts, is NaN."""
    total = dict(zip(NAMES, totals, strict=True))
    result: dict[str, Tensor] = {}
    for suffix, count in (("", total["frames"]), ("_spatial_norm", total["cells"])):
        result[f"mse{suffix}"] = total["squared"] / count
        result[f"mae{suffix}"] = total["absolute"] / count
        result[f"rmse{suffix}"] = result[f"mse{suffix}"].sqrt()
    result |= {name: total[name] / total["frames"] for name in ("psnr", "snr")}
    if bool((total["windowed"] > 0).any()):
        result |= {name: total[name] / total["windowed"] for name in ("ssim", "ssim_legacy")}
    return result


def frame_errors(
    prediction: Float[Tensor, "batch horizon channel height width"],
    truth: Float[Tensor, "batch horizon channel height width"],
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    mask: Bool[Tensor, "*cells"] | None = None,
) -> FrameErrors:
    """Compute what each frame adds to the sums.

    Args:
        prediction: predicted frames.
        truth: what came.
        value_range: lowest and highest value of the data.
        mask: True where there is data, of any shape that broadcasts to the frames.
    """
    p, y = prediction.double(), truth.double()
    counted = _counted(y, mask)
    if counted is not None:
        p, y = p.where(counted, 0.0), y.where(counted, 0.0)
    error = p - y
    cells = (torch.ones_like(p) if counted is None else counted.double()).sum((-3, -2, -1))
    low, high = value_range
    seen, real = ((p - low) / (high - low)).clamp(0.0, 1.0), (y - low) / (high - low)
    if counted is not None:
        seen, real = seen.where(counted, 0.0), real.where(counted, 0.0)
    noise, signal = (seen - real).square().sum((-3, -2, -1)), real.square().sum((-3, -2, -1))
    ssim, legacy, windowed = _frame_ssim(seen, real, counted)
    some = cells > 0
    return FrameErrors(
        squared=error.square().sum((-3, -2, -1)),
        absolute=error.abs().sum((-3, -2, -1)),
        cells=cells,
        frames=some.double(),
        psnr=(10.0 * (cells / noise).log10()).where(some, 0.0),
        snr=(10.0 * (signal / noise).log10()).where(some, 0.0),
        ssim=ssim,
        ssim_legacy=legacy,
        windowed=windowed,
    )


def _counted(
    truth: Float64[Tensor, "batch horizon channel height width"], mask: Bool[Tensor, "*cells"] | None
) -> Bool[Tensor, "batch horizon channel height width"] | None:
    """Tell which cells hold data; None for all of them."""
    missing = truth.isnan()
    if mask is None:
        return ~missing if bool(missing.any()) else None
    return mask.to(truth.device).broadcast_to(truth.shape) & ~missing


def _frame_ssim(
    seen: Float64[Tensor, "batch horizon channel height width"],
    real: Float64[Tensor, "batch horizon channel height width"],
    counted: Bool[Tensor, "batch horizon channel height width"] | None,
) -> tuple[Float64[Tensor, "batch horizon"], Float64[Tensor, "batch horizon"], Float64[Tensor, "batch horizon"]]:
    """Average SSIM over the windows that lie in a frame and hold counted cells only: range 1, range 2, any window."""
    if min(seen.shape[-2:]) < WINDOW:
        none = seen.new_zeros(seen.shape[:2])
        return none, none, none
    unit, legacy = ssim_map(seen, real, data_ranges=(1.0, 2.0))
    inside = torch.ones_like(unit) if counted is None else (_window_mean((~counted).double()) == 0.0).double()
    windows = inside.sum((-3, -2, -1))
    mean = [(part * inside).sum((-3, -2, -1)) / windows.clamp_min(1.0) for part in (unit, legacy)]
    return mean[0], mean[1], (windows > 0).double()


def ssim_map(
    first: Float[Tensor, "*batch height width"],
    second: Float[Tensor, "*batch height width"],
    *,
    data_ranges: tuple[float, ...] = (1.0,),
) -> tuple[Float64[Tensor, "*batch rows columns"], ...]:
    """Compute the structural similarity of images at every 7 × 7 window inside them, for each range of the data.

    The mean of a map over windows and channels is scikit-image's value with its default uniform window and sample
    covariance. Swapping the images changes nothing.

    Raises:
        UserError: images smaller than the window.
    """
    if min(first.shape[-2:]) < WINDOW:
        raise UserError(f"SSIM: images of {first.shape[-2]} × {first.shape[-1]} cells; "
                        f"expected at least {WINDOW} × {WINDOW}")  # fmt: skip
    x, y = first.double(), second.double()
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    unbiased = WINDOW**2 / (WINDOW**2 - 1.0)
    # Only the sum of the two variances enters, so one window mean serves both.
    variances = unbiased * (_window_mean(x.square() + y.square()) - mean_x.square() - mean_y.square())
    covariance = unbiased * (_window_mean(x * y) - mean_x * mean_y)
    product, squares = 2.0 * mean_x * mean_y, mean_x.square() + mean_y.square()
    maps: list[Tensor] = []
    for data_range in data_ranges:
        c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
        maps.append((product + c1) * (2.0 * covariance + c2) / ((squares + c1) * (variances + c2)))
    return tuple(maps)


def _window_mean(images: Float64[Tensor, "*batch height width"]) -> Float64[Tensor, "*batch rows columns"]:
    """Average over every window, first along rows and then along columns."""
    flat = images.reshape(-1, 1, *images.shape[-2:])
    flat = avg_pool2d(avg_pool2d(flat, (1, WINDOW), stride=1), (WINDOW, 1), stride=1)
    return flat.reshape(*images.shape[:-2], *flat.shape[-2:])
