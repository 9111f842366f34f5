"""Forecasts that know next to nothing, fitted on the windows a model is trained on: what any model has to beat.

All are asked alike: frames of the history in units of the data (NaN where there are none), the clocks of history and
future, and the channel of each sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from stcore.errors import UserError
from stcore.sampling import in_batches
from vlm4st.data import PartBatches, Source
from vlm4st.scores import ErrorSums
from vlm4st.usual import NO_TIME, Channels, HistoricalAverage
from vlm4st.windows import WindowSet

History = Float32[ndarray, "sample time row column"]
Clocks = Int64[ndarray, "sample frame 2"] | None
Future = Float32[ndarray, "sample horizon row column"]
_BLOCK = 64


@runtime_checkable
class Baseline(Protocol):
    """A naive forecast."""

    def predict(self, history: History, clocks: Clocks, channels: Channels, horizon: int) -> Future:
        """Return the frames after `history`; `clocks` are those of history and future."""
        ...


@dataclass(frozen=True)
class Persistence:
    """The last frame stays; a cell that it lacks takes its last known value."""

    def predict(self, history: History, clocks: Clocks, channels: Channels, horizon: int) -> Future:
        return np.repeat(_last(history)[:, None], horizon, axis=1)


@dataclass(frozen=True)
class InputMean:
    """The mean of the history."""

    def predict(self, history: History, clocks: Clocks, channels: Channels, horizon: int) -> Future:
        known = np.isfinite(history)
        mean = np.where(known, history, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        mean = np.where(known.any(axis=1), mean, np.nan).astype(np.float32)
        return np.repeat(mean[:, None], horizon, axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class DampedPersistence:
    """What was unusual about the last frame goes on, the weaker the further ahead: usual + damping × deviation."""

    usual: HistoricalAverage
    damping: Float64[ndarray, "channel horizon"]

    @classmethod
    def fit(
        cls, windows: WindowSet, chosen: Int64[ndarray, "window"] | None, *, horizon: int, usual: HistoricalAverage
    ) -> DampedPersistence:
        """Fit the damping of each channel and lead time by least squares on the training windows."""
        shared, own = np.zeros((windows.channels, horizon)), np.zeros((windows.channels, horizon))
        for frames, clocks, channels in _training(windows, chosen):
            if clocks is None:
                raise UserError(f"training part: {NO_TIME}")
            off = frames - usual.at(clocks, channels)
            last, ahead = off[:, -horizon - 1, None], off[:, -horizon:]
            good = np.isfinite(last) & np.isfinite(ahead)
            for sums, product in ((shared, last * ahead), (own, np.broadcast_to(last * last, ahead.shape))):
                np.add.at(sums, channels, np.where(good, product, 0.0).sum(axis=(2, 3), dtype=np.float64))
        return cls(usual=usual, damping=np.where(own > 0.0, shared / np.where(own > 0.0, own, 1.0), 0.0))

    def predict(self, history: History, clocks: Clocks, channels: Channels, horizon: int) -> Future:
        if clocks is None:
            raise UserError(NO_TIME)
        now = self.usual.at(clocks[:, -horizon - 1 : clocks.shape[1] - horizon], channels)[:, 0]
        deviation = np.nan_to_num(_last(history) - now)[:, None]
        damping = self.damping[channels][:, :, None, None]
        return (self.usual.predict(history, clocks, channels, horizon) + damping * deviation).astype(np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class CellRegression:
    """A linear map from the history of a cell to its future, with a constant; one for each cell."""

    weights: Float64[ndarray, "channel input horizon row column"]
    """For each frame of the history less `centre`, and a constant last."""
    centre: Float64[ndarray, "channel row column"]

    @classmethod
    def fit(cls, windows: WindowSet, chosen: Int64[ndarray, "window"] | None, *, horizon: int) -> CellRegression:
        """Fit by least squares on the training windows; one with a missing value in a cell does not count there."""
        rows, columns = windows.native
        cells, inputs = windows.channels * rows * columns, windows.length - horizon + 1
        centre = _cell_means(windows, chosen)
        squares, products = np.zeros((cells, inputs, inputs)), np.zeros((cells, inputs, horizon))
        flat = np.arange(cells).reshape(windows.channels, rows * columns)
        for frames, _, channels in _training(windows, chosen):
            values = (frames - centre[channels][:, None]).reshape(len(frames), windows.length, -1)
            known = np.asarray(np.isfinite(values).all(axis=1))
            values = np.where(known[:, None], values, 0.0)
            x = np.concatenate([values[:, : inputs - 1], known[:, None]], axis=1)
            y = values[:, -horizon:]
            for channel in np.unique(channels):
                mine = np.flatnonzero(np.equal(channels, channel))
                inputs_first = x[mine].transpose(2, 1, 0)
                squares[flat[channel]] += inputs_first @ x[mine].transpose(2, 0, 1)
                products[flat[channel]] += inputs_first @ y[mine].transpose(2, 0, 1)
        solved = np.linalg.pinv(squares, rcond=1e-9, hermitian=True) @ products
        solved = solved.reshape(windows.channels, rows, columns, inputs, horizon)
        return cls(weights=np.moveaxis(solved, (3, 4), (1, 2)), centre=centre)

    def predict(self, history: History, clocks: Clocks, channels: Channels, horizon: int) -> Future:
        filled = np.where(np.isfinite(history), history, _last(history)[:, None])
        middle = self.centre[channels][:, None]
        off = np.nan_to_num(filled - middle)
        x = np.concatenate([off, np.ones_like(off[:, :1])], axis=1)
        return (np.einsum("bihrc,birc->bhrc", self.weights[channels], x) + middle).astype(np.float32)


def fit_baselines(source: Source) -> dict[str, Baseline]:
    """Return the naive forecasts of a data set, by name, fitted on the windows that are trained on.

    Those that need times are left out where there are none, and those that are fitted where nothing is trained on.
    """
    windows, chosen, horizon = source.windows.train, source.training_windows, source.shape.horizon
    found: dict[str, Baseline] = {"persistence": Persistence(), "input mean": InputMean()}
    if not len(chosen):
        return found
    some = None if len(chosen) == windows.windows else chosen
    timed = windows.clock(np.zeros(1, dtype=np.int64)) is not None
    if timed:
        found["historical average"] = HistoricalAverage.fit(windows, some)
        # A clock in which the weekday counts needs several weeks: with fewer, deviations are from the time of day.
        daily = HistoricalAverage.fit(windows, some, by_weekday=False)
        found["time-of-day average"] = daily
        found["damped persistence"] = DampedPersistence.fit(windows, some, horizon=horizon, usual=daily)
        if source.space.usual is not None and not source.space.usual.plain:
            found[source.space.usual.words] = source.space.usual
    found["per-cell regression"] = CellRegression.fit(windows, some, horizon=horizon)
    return found


def score_baselines(baselines: dict[str, Baseline], batches: PartBatches, *, horizon: int) -> dict[str, ErrorSums]:
    """Return the errors of naive forecasts on a part, in units and on the grid of the data."""
    sums = {name: ErrorSums() for name in baselines}
    for ids in batches.order(0):
        frames, channels = batches.native(ids), batches.channel(ids).numpy()
        history, truth = frames[:, :-horizon].numpy(), frames[:, -horizon:]
        for name, baseline in baselines.items():
            forecast = baseline.predict(history, batches.clock(ids), channels, horizon)
            sums[name].add(torch.from_numpy(np.ascontiguousarray(forecast)), truth)
    return sums


def _last(history: History) -> Float32[ndarray, "sample row column"]:
    last = history[:, -1]
    for time in range(history.shape[1] - 2, -1, -1):
        if not (missing := np.isnan(last)).any():
            break
        last = np.where(missing, history[:, time], last)
    return last


def _training(
    windows: WindowSet, chosen: Int64[ndarray, "window"] | None
) -> Iterable[tuple[Float32[ndarray, "sample frame row column"], Clocks, Channels]]:
    """Yield frames, clocks and channels of the training windows, some at a time."""
    wanted = np.arange(windows.windows) if chosen is None else chosen
    for batch in in_batches(wanted, _BLOCK):
        ids = (batch[:, None] * windows.channels + np.arange(windows.channels)).reshape(-1)
        yield windows.load(ids), windows.clock(ids), ids % windows.channels


def _cell_means(windows: WindowSet, chosen: Int64[ndarray, "window"] | None) -> Float64[ndarray, "channel row column"]:
    total, count = np.zeros((windows.channels, *windows.native)), np.zeros((windows.channels, *windows.native))
    for block in windows.blocks(chosen):
        known = np.isfinite(block)
        total += np.where(known, block, 0.0).sum(axis=0, dtype=np.float64)
        count += known.sum(axis=0)
    return total / np.maximum(count, 1)
