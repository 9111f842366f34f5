"""Forecasts on the nodes of a graph that know next to nothing: what any model has to beat.

All are asked alike: `predict(series, starts, history, horizon)` gives (window, horizon, node) in the units of the data,
of channel 0. What is fitted knows the part it was fitted on only. A missing reading is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.graph_windows import window_starts
from stcore.graphs import GraphSeries

Forecasts = Float32[ndarray, "window horizon node"]
Starts = Int64[ndarray, "window"]


class NodeForecaster(Protocol):
    """Anything that continues windows of a series on a graph."""

    def predict(self, series: GraphSeries, starts: Starts, history: int, horizon: int) -> Forecasts: ...


def histories(series: GraphSeries, starts: Starts, history: int) -> Float32[ndarray, "window time node"]:
    """Return the given steps of windows, channel 0."""
    return series.values[:, :, 0][starts[:, None] + np.arange(history)]


def targets(series: GraphSeries, starts: Starts, history: int, horizon: int) -> Forecasts:
    """Return the steps of windows that are forecast, channel 0; NaN where there is no reading."""
    return series.values[:, :, 0][starts[:, None] + history + np.arange(horizon)]


@dataclass(frozen=True)
class Persistence:
    """The last reading of the history stays; where it is missing, the last one before it, if there is any."""

    def predict(self, series: GraphSeries, starts: Starts, history: int, horizon: int) -> Forecasts:
        """Repeat the last reading."""
        given = histories(series, starts, history)
        last = given[:, -1].copy()
        for step in range(history - 2, -1, -1):
            if not np.isnan(last).any():
                break
            last = np.where(np.isnan(last), given[:, step], last)
        return np.repeat(last[:, None], horizon, axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class HistoricalAverage:
    """The mean of each node at each time of day, or at each time of the week."""

    means: Float32[ndarray, "kind node"]
    """Usual reading of each node. A time of day without a reading takes the mean of the node, a node without any what
    the other nodes have at that time."""
    weekly: bool = False
    """Whether times are told apart by day of the week too."""

    @classmethod
    def fit(cls, train: GraphSeries, *, weekly: bool = False) -> HistoricalAverage:
        """Average the readings of a part by node and time of day.

        Raises:
            UserError: there is no reading at all, or the time step is not known.
        """
        kinds, count = _kinds(train, weekly=weekly), train.steps_per_day * (7 if weekly else 1)
        readings = train.values[:, :, 0].astype(np.float64)
        known = np.isfinite(readings)
        if not known.any():
            raise UserError(f"{train.name or 'graph'}: no reading in the training part of {train.num_steps:,} steps; "
                            "expected some to average")  # fmt: skip
        total, seen = np.zeros((count, train.num_nodes)), np.zeros((count, train.num_nodes))
        np.add.at(total, kinds, np.where(known, readings, 0.0))
        np.add.at(seen, kinds, known)
        means = _over(total, seen, _over(total.sum(axis=0), seen.sum(axis=0), 0.0))
        lost = ~known.any(axis=0)
        others = _over(total.sum(axis=1), seen.sum(axis=1), total.sum() / seen.sum())
        means[:, lost] = others[:, None]
        return cls(means=means.astype(np.float32), weekly=weekly)

    def at(self, series: GraphSeries) -> Float32[ndarray, "time node"]:
        """Return the usual readings of every step of `series`."""
        return self.means[_kinds(series, weekly=self.weekly)]

    def predict(self, series: GraphSeries, starts: Starts, history: int, horizon: int) -> Forecasts:
        """Return the usual readings of the steps to come."""
        return self.at(series)[starts[:, None] + history + np.arange(horizon)]


def _over(total: Any, count: Any, otherwise: Any) -> NDArray[np.float64]:
    """Divide; where nothing was counted, take something else."""
    return np.where(count > 0, total / np.maximum(count, 1.0), otherwise)


def _kinds(series: GraphSeries, *, weekly: bool) -> NDArray[np.int64]:
    step = series.step_of_day()
    return series.day_of_week() * series.steps_per_day + step if weekly else step


@dataclass(frozen=True, eq=False, kw_only=True)
class RidgeOnAverage:
    """The historical average plus, for each node, a linear map of the last deviations from it to the next ones.

    There is no constant term: deviations have mean 0 by construction. A missing deviation counts as 0.
    """

    average: HistoricalAverage
    maps: Float64[ndarray, "node history horizon"]

    @classmethod
    def fit(
        cls,
        train: GraphSeries,
        history: int,
        horizon: int,
        *,
        average: HistoricalAverage | None = None,
        ridge: float = 0.1,
    ) -> RidgeOnAverage:
        """Fit each node by itself on every window of a part.

        Args:
            train: the part; no window crosses a gap in it.
            history: steps that are given.
            horizon: steps that are forecast.
            average: the usual readings; by default fitted on `train`.
            ridge: penalty on squared coefficients, times the number of windows, times the variance of the
                deviations given in them.

        Raises:
            UserError: the part has no window, or no reading.
        """
        usual = HistoricalAverage.fit(train) if average is None else average
        starts = window_starts(train, history, horizon)
        if not len(starts):
            raise UserError(f"{train.name or 'graph'}: training part of {train.num_steps:,} steps; expected at least "
                            f"{history + horizon} without a gap for a window of {history} + {horizon}")  # fmt: skip
        deviations = _deviations(train, usual)
        maps = np.empty((train.num_nodes, history, horizon))
        for node in range(train.num_nodes):  # one node at a time: all their windows at once need too much memory
            x = deviations[:, node][starts[:, None] + np.arange(history)]
            y = deviations[:, node][starts[:, None] + history + np.arange(horizon)]
            penalty = ridge * len(starts) * x.var() or 1.0
            maps[node] = np.linalg.solve(x.T @ x + penalty * np.eye(history), x.T @ y)
        return cls(average=usual, maps=maps)

    def predict(self, series: GraphSeries, starts: Starts, history: int, horizon: int) -> Forecasts:
        """Add the expected deviations to the usual readings.

        Raises:
            UserError: another length of history, or more steps ahead than were fitted.
        """
        if history != self.maps.shape[1] or horizon > self.maps.shape[2]:
            raise UserError(f"ridge: {history} steps in, {horizon} out; expected {self.maps.shape[1]} in and at most "
                            f"{self.maps.shape[2]} out, as fitted")  # fmt: skip
        given = _deviations(series, self.average)[starts[:, None] + np.arange(history)]
        ahead = np.einsum("wtn,nth->whn", given, self.maps[:, :, :horizon], optimize=True)
        return (self.average.predict(series, starts, history, horizon) + ahead).astype(np.float32)


def _deviations(series: GraphSeries, usual: HistoricalAverage) -> NDArray[np.float64]:
    away = series.values[:, :, 0].astype(np.float64) - usual.at(series)
    return np.nan_to_num(away, nan=0.0)
