"""Scores of weather forecasts: errors weighted by area, anomaly correlation, errors by groups of variables.

All in the units of the data and from running sums, so that no forecast is kept. RMSE and ACC follow WeatherBench: the
root, and the correlation, are taken of every field (sample, lead time, channel) and then averaged, whereas `mse`,
`mae` and `rmse` follow OpenSTL: without weights, over everything, one root at the end. What a sample adds is worked
out and added in double precision sample by sample, so it does not matter, to the bit, how samples were batched.

Cells that the mask leaves out, or whose truth is NaN, count nowhere; the weights of the others are rescaled. NaN in a
forecast makes the scores of its channel and lead time NaN.

Source: Rasp et al., "WeatherBench: A Benchmark Data Set for Data-Driven Weather Forecasting", JAMES 2020, section 3
(latitude weights, RMSE, ACC); the evaluation of OpenSTL (Tan et al., NeurIPS 2023, `openstl/core/metrics.py`) for the
errors by group, where headline figures are plain means over the groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError

NAMES = ("squared", "absolute", "cells", "fields", "rmse", "correlation", "correlated")
"""Sums by lead time and channel: of errors, of cells and fields that count, of RMSE and ACC of fields, and how many
fields have an ACC (one without anomalies has none)."""


class WeatherReport(TypedDict):
    """What was found, over all lead times and by lead time.

    `overall` has `mse`, `mae`, `rmse`, where there are groups also `mse_<group>` and so on, and the means over channels
    of `rmse_weighted` and, with a climatology, `acc`. The others hold `rmse_weighted`, `acc`, `mse`, `mae` for each
    channel.
    """

    overall: dict[str, float]
    per_channel: dict[str, list[float]]
    """A value for each channel."""
    per_lead_time: dict[str, list[list[float]]]
    """A list over lead times, of a value for each channel."""
    channels: list[str]
    samples: int


def latitude_weights(latitude: Float[ndarray, "height"]) -> Float64[ndarray, "height"]:
    """Return the weight of each row of a grid in degrees: the cosine of its latitude over the mean of the cosines.

    Raises:
        UserError: a latitude is beyond a pole or not finite, or all rows are poles.

    >>> latitude_weights(np.array([-60.0, 0.0, 60.0])).round(3).tolist()
    [0.75, 1.5, 0.75]
    """
    degrees = np.asarray(latitude, dtype=np.float64)
    if wrong := np.flatnonzero(~(np.abs(degrees) <= 90.0)).tolist():
        raise UserError(f"latitude: {degrees[wrong[0]]:g} at row {wrong[0]}; expected -90 to 90 degrees")
    cosine = np.cos(np.deg2rad(degrees))
    if not cosine.size or cosine.mean() < 1e-9:
        raise UserError("latitude: no row away from the poles; expected some area to weigh by")
    return cosine / cosine.mean()


class WeatherMetrics:
    """Sums over batches of forecast fields, in the units of the data.

    Args:
        latitude: degrees of each row; None weighs all rows alike, for grids that are no part of the globe.
        climatology: usual fields (channel, height, width), or of any shape that broadcasts to a batch, which anomalies
            are taken from; None, and none with a batch, leaves out the ACC.
        channels: names of the channels, for the report.
        groups: names of equally wide groups of neighbouring channels, such as the variables of a set with levels.
        spatial_norm: average `mse` and `mae` over cells, as OpenSTL does for weather; else sum over the cells of a
            frame and average over frames.
        mask: True where there is data, of any shape that broadcasts to a batch.

    Example:
        >>> metrics = WeatherMetrics(np.array([-30.0, 30.0]))
        >>> metrics.update(torch.zeros(2, 3, 1, 2, 4), torch.full((2, 3, 1, 2, 4), 0.5))
        >>> metrics.compute()["per_lead_time"]["rmse_weighted"]
        [[0.5], [0.5], [0.5]]
    """

    def __init__(
        self,
        latitude: Float[ndarray, "height"] | None = None,
        climatology: Float[Tensor, "*usual"] | None = None,
        *,
        channels: Sequence[str] = (),
        groups: Sequence[str] = (),
        spatial_norm: bool = True,
        mask: Bool[Tensor, "*cells"] | None = None,
    ) -> None:
        self._weights = None if latitude is None else torch.from_numpy(latitude_weights(latitude))
        self._climatology, self._mask = climatology, mask
        self._channels, self._groups = tuple(channels), tuple(groups)
        self._spatial_norm = spatial_norm
        self._totals: Float64[Tensor, "sum horizon channel"] | None = None
        self._samples = 0

    def update(
        self,
        prediction: Float[Tensor, "..."],
        truth: Float[Tensor, "..."],
        *,
        mask: Bool[Tensor, "*cells"] | None = None,
        climatology: Float[Tensor, "*usual"] | None = None,
    ) -> None:
        """Add a batch of fields (batch, horizon, channel, height, width).

        Args:
            prediction: forecast fields.
            truth: what came; NaN where nothing is known.
            mask: cells of this batch that count, in place of the mask of all batches.
            climatology: usual fields at the times of this batch, in place of the climatology of all batches.

        Raises:
            UserError: shapes do not fit one another, the weights, the groups or earlier batches.
        """
        shape = tuple(prediction.shape)
        if len(shape) != 5 or prediction.shape != truth.shape:
            raise UserError(f"fields: predictions of shape {shape} for {tuple(truth.shape)}; expected both as (batch, "
                            "horizon, channel, height, width)")  # fmt: skip
        self._check_sizes(shape)
        known = _fitting("mask", self._mask if mask is None else mask, shape)
        usual = _fitting("climatology", self._climatology if climatology is None else climatology, shape)
        for one in range(shape[0]):  # one by one: sums over a batch would round otherwise than those over its parts
            sample = slice(one, one + 1)
            sums = field_sums(prediction[sample], truth[sample], weights=self._weights, mask=_part(known, sample),
                              climatology=_part(usual, sample))  # fmt: skip
            self._add(sums[0].cpu(), 1)

    def _check_sizes(self, shape: tuple[int, ...]) -> None:
        channels, height = shape[2], shape[3]
        if self._weights is not None and len(self._weights) != height:
            raise UserError(f"fields: {height} rows; expected {len(self._weights)}, as many as latitudes")
        if self._groups and channels % len(self._groups):
            raise UserError(f"fields: {channels} channels in {len(self._groups)} groups; expected groups of one width")
        if self._channels and len(self._channels) != channels:
            raise UserError(f"fields: {channels} channels; expected {len(self._channels)}, as many as names")

    def _add(self, sums: Float64[Tensor, "sum horizon channel"], samples: int) -> None:
        if self._totals is not None and self._totals.shape != sums.shape:
            raise UserError(f"fields: {sums.shape[1]} lead times of {sums.shape[2]} channels after "
                            f"{self._totals.shape[1]} of {self._totals.shape[2]}; expected one form")  # fmt: skip
        self._totals = sums if self._totals is None else self._totals + sums
        self._samples += samples

    def sums(self) -> dict[str, float]:
        """Return the state as named sums: those of two parts of the data add up to those of the whole."""
        found: dict[str, float] = {"samples": float(self._samples)}
        for name, by_lead in zip(NAMES, self._known().tolist(), strict=True):
            for lead, by_channel in enumerate(by_lead):
                found |= {f"{name}/{lead}/{channel}": value for channel, value in enumerate(by_channel)}
        return found

    def add_sums(self, sums: Mapping[str, float]) -> None:
        """Add the sums of other batches, such as those of another process."""
        leads, channels = (1 + max(int(key.split("/")[at]) for key in sums if "/" in key) for at in (1, 2))
        table = [[[sums[f"{name}/{lead}/{channel}"] for channel in range(channels)] for lead in range(leads)]
                 for name in NAMES]  # fmt: skip
        self._add(torch.tensor(table, dtype=torch.float64), round(sums["samples"]))

    def compute(self) -> WeatherReport:
        """Return all scores.

        Raises:
            UserError: no field was given.
        """
        totals = self._known()
        channels, leads = _scores(totals.sum(1)), _scores(totals)
        return {
            "overall": self._overall(totals.sum(1))
            | {name: float(channels[name].mean()) for name in ("rmse_weighted", "acc") if name in channels},
            "per_channel": {name: value.tolist() for name, value in channels.items()},
            "per_lead_time": {name: value.tolist() for name, value in leads.items()},
            "channels": list(self._channels or map(str, range(totals.shape[2]))),
            "samples": self._samples,
        }

    def _known(self) -> Float64[Tensor, "sum horizon channel"]:
        if self._totals is None:
            raise UserError("fields: none was given; expected at least one batch")
        return self._totals

    def _overall(self, totals: Float64[Tensor, "sum channel"]) -> dict[str, float]:
        """Return errors over everything, or of each group and their plain means."""
        found: dict[str, float] = {}
        names = self._groups or ("",)
        for group, part in zip(names, totals.chunk(len(names), dim=1), strict=True):
            suffix = f"_{group}" if group else ""
            squared, absolute, cells, fields = part[:4].sum(1)
            # A frame counts once, however many channels of it a group has.
            count = cells if self._spatial_norm else fields / part.shape[1]
            errors = {"mse": squared / count, "mae": absolute / count, "rmse": (squared / count).sqrt()}
            found |= {f"{name}{suffix}": float(value) for name, value in errors.items()}
        if self._groups:
            means = {one: sum(found[f"{one}_{name}"] for name in names) / len(names) for one in ("mse", "mae", "rmse")}
            found = means | found
        return found


def _fitting(name: str, cells: Any, shape: tuple[int, ...]) -> Any:
    """Return `cells` if they broadcast to a batch."""
    if cells is None:
        return None
    given = tuple(cells.shape)
    fits = all(size in (1, goal) for size, goal in zip(reversed(given), reversed(shape), strict=False))
    if len(given) > len(shape) or not fits:
        raise UserError(f"{name}: shape {given}; expected (height, width) = {shape[-2:]}, or a shape that broadcasts "
                        f"to the fields {shape}")  # fmt: skip
    return cells


def _part(cells: Any, sample: slice) -> Any:
    """Return what of `cells`, which broadcast to a batch, belongs to a sample."""
    return cells[sample] if cells is not None and cells.ndim == 5 and len(cells) > 1 else cells


def _scores(totals: Float64[Tensor, "sum *lead channel"]) -> dict[str, Float64[Tensor, "*lead channel"]]:
    """Turn sums into scores; 0 / 0, where nothing counts, is NaN."""
    total = dict(zip(NAMES, totals, strict=True))
    found = {"rmse_weighted": total["rmse"] / total["fields"]}
    if bool((total["correlated"] > 0).any()):
        found["acc"] = total["correlation"] / total["correlated"]
    return found | {"mse": total["squared"] / total["cells"], "mae": total["absolute"] / total["cells"]}


def field_sums(
    prediction: Float[Tensor, "batch horizon channel height width"],
    truth: Float[Tensor, "batch horizon channel height width"],
    *,
    weights: Float64[Tensor, "height"] | None = None,
    mask: Bool[Tensor, "*cells"] | None = None,
    climatology: Float[Tensor, "*usual"] | None = None,
) -> Float64[Tensor, "batch sum horizon channel"]:
    """Compute what each sample adds to the sums, in the order of `NAMES`.

    Args:
        prediction: forecast fields.
        truth: what came.
        weights: weight of each row, mean 1; None for the same weight everywhere.
        mask: True where there is data.
        climatology: usual fields; without any, no field has an ACC.
    """
    p, y = prediction.double(), truth.double()
    counted = ~y.isnan() if mask is None else mask.to(y.device).broadcast_to(y.shape) & ~y.isnan()
    usual = None if climatology is None else climatology.to(y).broadcast_to(y.shape)
    error = (p - y).where(counted, 0.0)
    area = counted.double() if weights is None else counted * weights.to(y.device)[:, None]
    cells, fields = _over_grid(counted.double()), counted.flatten(-2).any(-1).double()
    rmse = (_over_grid(area * error.square()) / _over_grid(area)).sqrt().where(fields > 0, 0.0)
    correlation, correlated = torch.zeros_like(rmse), torch.zeros_like(rmse)
    if usual is not None:  # a cell without a usual value has no anomaly, yet it has an error
        known = counted & ~usual.isnan()
        p_off, y_off = (p - usual).where(known, 0.0), (y - usual).where(known, 0.0)
        shared = _over_grid(area * p_off * y_off)
        scale = (_over_grid(area * p_off.square()) * _over_grid(area * y_off.square())).sqrt()
        defined = scale != 0.0  # true of NaN, which must show
        correlation, correlated = (shared / scale).where(defined, 0.0), defined.double()
    sums = (_over_grid(error.square()), _over_grid(error.abs()), cells, fields, rmse, correlation, correlated)
    return torch.stack(sums, dim=1)


def _over_grid(cells: Float64[Tensor, "*batch height width"]) -> Float64[Tensor, "*batch"]:
    """Sum over rows and columns in one fixed order, whatever the batch."""
    return cells.contiguous().flatten(-2).sum(-1)
