"""What a trained forecaster of frames is, whatever its network: from frames to frames in the units of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from stcore.baselines_grids import Climatology, Moments
from stcore.coordinates import in_file_order
from stcore.errors import UserError
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.sampling import Indices, in_batches
from stcore.windows import Windows, find_windows

EVERY_MAX_BYTES = 8 * 2**30
"""Largest forecast that is held in memory."""


class TrainedForecaster:
    """A trained network with the scaling and the frames that it was trained with; packages add how it is loaded.

    Args:
        model: network in evaluation mode, called with a history on its scale and a horizon.
        scaling: from values to what the model sees.
        shape: channels, rows and columns of its frames.
        history: frames that it was trained with; it needs as many.
        horizon: frames that are forecast unless a number is given.
        batch: windows that are forecast at once.
        facts: everything else its checkpoint says.
        usual: usual frames, where the network knows only what differs from them.
    """

    def __init__(
        self,
        model: nn.Module,
        scaling: Scaling,
        shape: tuple[int, int, int],
        *,
        history: int,
        horizon: int,
        batch: int,
        facts: Mapping[str, Any],
        usual: Climatology | None = None,
    ) -> None:
        self.model: Any = model.eval()
        self.scaling, self.shape, self.usual = scaling, shape, usual
        self.history, self.horizon, self.batch, self.facts = history, horizon, batch, dict(facts)
        self.device = next(model.parameters()).device

    def predict(self, frames: Any, horizon: int | None = None) -> NDArray[np.float32]:
        """Forecast the frames that follow.

        Args:
            frames: the past in the units of the data, an array or tensor (time, channel, height, width) or with a
                leading batch axis; (time, height, width) for one channel; rows and columns as in training. Or a
                series, which tells the order of its rows and columns itself. The last `history` frames are used.
            horizon: frames to forecast, any number; by default as many as in evaluation.

        Returns:
            The forecast in the units of the data, with the axes of `frames`; rows and columns as given.

        Raises:
            UserError: another shape than the model's, too few frames, values that are not finite; frames without times
                where usual frames were taken off in training.
        """
        if isinstance(frames, GridSeries):
            return self._predict_series(frames, horizon)
        if self.usual is not None and self.usual.by:
            raise UserError("frames: an array; expected a GridSeries with times: the model was trained on what differs "
                            f"from the usual frame of the {' and '.join(self.usual.by)}")  # fmt: skip
        given = np.asarray(frames.detach().cpu() if isinstance(frames, Tensor) else frames)
        single = given.ndim == 3 and self.shape[0] == 1
        batch = given[None, :, None] if single else given[None] if given.ndim == 4 else given
        if batch.ndim != 5 or batch.shape[2:] != self.shape or batch.dtype.kind not in "iufb":
            raise UserError(f"frames: {given.dtype} of shape {given.shape}; expected numbers (time, channel, height, "
                            f"width) with {_words(self.shape)} at the end")  # fmt: skip
        if batch.shape[1] < self.history:
            raise UserError(f"frames: {batch.shape[1]} of them; expected at least {self.history}, the model's history")
        past = batch[:, -self.history :].astype(np.float32)
        if not np.isfinite(past).all():
            raise UserError("frames: values that are not finite; expected numbers")
        forecast = self.forecast(torch.from_numpy(past), self.horizon if horizon is None else horizon).numpy()
        return forecast[0, :, 0] if single else forecast[0] if given.ndim == 4 else forecast

    def ordered(self, series: GridSeries) -> GridSeries:
        """Return a series with rows and columns in the order of training; here as it is."""
        return series

    def _predict_series(self, series: GridSeries, horizon: int | None) -> NDArray[np.float32]:
        """Forecast what follows the end of a series."""
        self.check(series, "frames")
        ordered, last = self.ordered(series), series.runs()[-1]
        if len(last) < self.history:
            raise UserError(f"frames: {len(last)} of them; expected at least {self.history}, the model's history")
        windows = Windows(ordered, np.array([last.stop - self.history]), self.history, 0)
        ahead = next(self.stream(windows, horizon or self.horizon))[3][0].numpy()
        return ahead if ordered is series else np.ascontiguousarray(in_file_order(ahead, ordered.turned))

    def forecast(
        self,
        history: Float[Tensor, "batch time channel height width"],
        horizon: int,
        *,
        times: Moments | None = None,
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Forecast a batch, from and to the units of the data, on the CPU; missing cells (NaN) become the scale's 0.

        Args:
            history: frames in the units of the data.
            horizon: frames to forecast.
            times: moments of history and future, (batch, time + horizon); needed where usual frames are told apart.
        """
        if horizon < 1:
            raise UserError(f"horizon: {horizon}; expected at least 1")
        with torch.inference_mode():
            forecast = self.scaling.inverse(self.model(self.scaled(history, times), horizon).float()).cpu()
        if self.usual is None:
            return forecast
        ahead = None if times is None else times[:, -horizon:]
        return forecast + self.usual.at(ahead, (len(history), horizon))

    def scaled(
        self, history: Float[Tensor, "batch time channel height width"], times: Moments | None = None
    ) -> Float[Tensor, "batch time channel height width"]:
        """Return what the network sees of a batch, on its device; arguments as of `forecast`."""
        if self.usual is not None:
            known = None if times is None else times[:, : history.shape[1]]
            history = history - self.usual.at(known, tuple(history.shape[:2]))
        return self.scaling.transform(history.to(self.device))

    def stream(
        self, windows: Windows, horizon: int | None = None, *, ids: Indices | None = None
    ) -> Iterator[tuple[Indices, Tensor, Tensor, Tensor]]:
        """Yield, batch by batch, numbers of windows, their histories, what came (if the windows say), and forecasts."""
        ahead = horizon or windows.horizon
        chosen = np.arange(len(windows), dtype=np.int64) if ids is None else ids
        for some in in_batches(chosen, self.batch):
            history, future = (torch.from_numpy(np.ascontiguousarray(part)) for part in windows.load(some))
            yield some, history, future, self.forecast(history, ahead, times=self._moments(windows, some, ahead))

    def _moments(self, windows: Windows, ids: Indices, horizon: int) -> Moments | None:
        """Return the moments of history and forecast of windows, where the usual frames ask for them."""
        if self.usual is None or not self.usual.by:
            return None
        times = windows.times(ids)
        step = windows.series.step
        if times is None or step is None:
            return None  # the climatology says what is missing
        known = times[:, : windows.history]
        after = times[:, windows.history :][:, :horizon]
        if after.shape[1] < horizon:
            after = moments_after(known[:, -1], step, horizon)
        return np.concatenate([known, after], axis=1)

    def check(self, series: GridSeries, where: str) -> None:
        """Refuse frames of another size than the model's.

        Raises:
            UserError: names both.
        """
        if series.shape[1:] != self.shape:
            raise UserError(f"{where}: frames {_words(series.shape[1:])} (channel, height, width); expected "
                            f"{_words(self.shape)}, as the model was trained with")  # fmt: skip


def forecast_series(
    forecaster: TrainedForecaster, series: GridSeries, *, at: str, horizon: int, stride: int
) -> GridSeries:
    """Forecast from windows of a series: one clip for each, named after it, with times where the series has them.

    Args:
        forecaster: the model.
        series: the past.
        at: `last` for the end of each stretch without a gap, `every` for each window.
        horizon: frames to forecast.
        stride: frames from one window to the next (`every`).

    Raises:
        UserError: no stretch is long enough, or the forecast would not fit in memory.
    """
    windows = find_windows(series, history=forecaster.history, horizon=0, stride=stride if at == "every" else 1)
    if at == "last":
        ends = {run.stop - forecaster.history for run in series.runs()}
        windows = replace(windows, starts=windows.starts[np.isin(windows.starts, sorted(ends))])
    frames = len(windows) * horizon
    size = frames * int(np.prod(series.shape[1:])) * 4
    if size > EVERY_MAX_BYTES:
        raise UserError(f"forecast: {frames:,} frames, {size:,} bytes; expected at most {EVERY_MAX_BYTES:,}; forecast "
                        "fewer windows with --evaluate.stride")  # fmt: skip
    ids = np.arange(len(windows), dtype=np.int64)
    values = np.concatenate([part.numpy() for _, _, _, part in forecaster.stream(windows, horizon)])
    return GridSeries(
        values=values.reshape(frames, *series.shape[1:]), times=_times_after(series, windows, horizon),
        clip=np.repeat(ids, horizon), channels=series.channels, units=series.units, y=series.y, x=series.x,
        axis_names=series.axis_names, clip_names=tuple(windows.names(ids)), known_step=series.step,
    )  # fmt: skip


def _times_after(series: GridSeries, windows: Windows, horizon: int) -> NDArray[Any] | None:
    """Return the moments of forecast frames: whole steps, months by the calendar, after the last of the history."""
    step = series.step
    if series.times is None or step is None:
        return None
    return moments_after(series.times[windows.starts + windows.history - 1], step, horizon).reshape(-1)


def moments_after(last: Moments, step: np.timedelta64, horizon: int) -> Moments:
    """Return (window, horizon) moments: whole steps, months by the calendar, after the last of each history."""
    ahead = np.arange(1, horizon + 1)
    if np.datetime_data(step.dtype)[0] in "MY":
        months = last.astype("datetime64[M]")
        later = months[:, None] + (ahead * step.astype("timedelta64[M]"))[None]
        moments = later.astype("datetime64[us]") + (last - months.astype("datetime64[us]"))[:, None]
    else:
        moments = last[:, None] + (ahead * step.astype("timedelta64[us]"))[None]
    return moments.astype("datetime64[us]")


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
