"""Forecasts from a trained run: the interface people use.

>>> from stpred import Forecaster                                       # doctest: +SKIP
>>> forecaster = Forecaster.load("runs/mine")                           # doctest: +SKIP
>>> forecaster.predict(frames, horizon=20)                              # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.sampling import Indices, in_batches
from stcore.training.checkpoint import load_checkpoint
from stcore.training.ranks import pick_device
from stcore.windows import Windows, find_windows
from stpred.config import TrainConfig
from stpred.data import Scaling, read_parts, series_of
from stpred.foreign import weights_file
from stpred.models import FrameShape
from stpred.models.interface import FrameModel
from stpred.options import ForecastOptions, PredictOptions
from stpred.train import restore_model, restore_scaling

EVERY_MAX_BYTES = 8 * 2**30
"""Largest forecast that `stpred predict` holds."""


class Forecaster:
    """A trained model with the scaling and the frames that it was trained with.

    Args:
        model: network in evaluation mode.
        scaling: from values to what the model sees.
        config: the configuration of its training.
        shape: channels, rows and columns of its frames.
        facts: everything else its checkpoint says.
    """

    def __init__(
        self, model: FrameModel, scaling: Scaling, config: TrainConfig, shape: FrameShape, facts: dict[str, Any]
    ) -> None:
        self.model, self.scaling, self.config, self.shape, self.facts = model.eval(), scaling, config, shape, facts
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, source: Path | str, *, device: str = "auto") -> Forecaster:
        """Load a run (its best weights), or one of its checkpoint files.

        Raises:
            UserError: no such run, a run without a checkpoint, a damaged or foreign one.
        """
        path = Path(source)
        checkpoint = load_checkpoint(weights_file(path) if path.is_dir() else path)
        scaling = restore_scaling(checkpoint)
        model, config, shape = restore_model(checkpoint)
        facts = {**checkpoint.metadata, "path": str(checkpoint.path)}
        return cls(model.to(pick_device(device)), scaling, config, shape, facts)

    @property
    def history(self) -> int:
        """Frames of history that the model was trained with; it needs as many."""
        return self.config.data.history

    @property
    def horizon(self) -> int:
        """Frames that are forecast unless a number is given."""
        return self.config.evaluate.horizon or self.config.data.horizon

    def predict(self, frames: Any, horizon: int | None = None) -> NDArray[np.float32]:
        """Forecast the frames that follow.

        Args:
            frames: the past in the units of the data, an array or tensor (time, channel, height, width) or with a
                leading batch axis; (time, height, width) for one channel. The last `history` frames are used.
            horizon: frames to forecast, any number; by default as many as in evaluation.

        Returns:
            The forecast in the units of the data, with the axes of `frames`.

        Raises:
            UserError: another shape than the model's, too few frames, values that are not finite.
        """
        given = np.asarray(frames.detach().cpu() if isinstance(frames, Tensor) else frames)
        single = given.ndim == 3 and self.shape.channels == 1
        batch = given[None, :, None] if single else given[None] if given.ndim == 4 else given
        if batch.ndim != 5 or batch.shape[2:] != self.shape or batch.dtype.kind not in "iufb":
            raise UserError(f"frames: {given.dtype} of shape {given.shape}; expected numbers (time, channel, height, "
                            f"width) with {' x '.join(map(str, self.shape))} at the end")  # fmt: skip
        if batch.shape[1] < self.history:
            raise UserError(f"frames: {batch.shape[1]} of them; expected at least {self.history}, the model's history")
        past = batch[:, -self.history :].astype(np.float32)
        if not np.isfinite(past).all():
            raise UserError("frames: values that are not finite; expected numbers")
        forecast = self.forecast(torch.from_numpy(past), self.horizon if horizon is None else horizon).numpy()
        return forecast[0, :, 0] if single else forecast[0] if given.ndim == 4 else forecast

    def forecast(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Forecast a batch, from and to the units of the data, on the CPU; missing cells (NaN) count as lowest."""
        if horizon < 1:
            raise UserError(f"horizon: {horizon}; expected at least 1")
        scaled = self.scaling.transform(history.to(self.device))
        with torch.inference_mode():
            return self.scaling.inverse(self.model(scaled, horizon).float()).cpu()

    def stream(
        self, windows: Windows, horizon: int | None = None, *, ids: Indices | None = None
    ) -> Iterator[tuple[Indices, Tensor, Tensor, Tensor]]:
        """Yield, batch by batch, numbers of windows, their histories, what came (if the windows say), and forecasts."""
        ahead = horizon or windows.horizon
        chosen = np.arange(len(windows), dtype=np.int64) if ids is None else ids
        for some in in_batches(chosen, self.config.data.batch):
            history, future = (torch.from_numpy(np.ascontiguousarray(part)) for part in windows.load(some))
            yield some, history, future, self.forecast(history, ahead)

    def check(self, series: GridSeries, where: str) -> None:
        """Refuse frames of another size than the model's.

        Raises:
            UserError: names both.
        """
        found = FrameShape(series.num_channels, series.height, series.width)
        if found != self.shape:
            raise UserError(f"{where}: frames {' x '.join(map(str, found))} (channel, height, width); expected "
                            f"{' x '.join(map(str, self.shape))}, as the model was trained with")  # fmt: skip


def forecast_series(forecaster: Forecaster, series: GridSeries, *, at: str, horizon: int, stride: int) -> GridSeries:
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
        clip_names=tuple(windows.names(ids)), known_step=series.step,
    )  # fmt: skip


def _times_after(series: GridSeries, windows: Windows, horizon: int) -> NDArray[Any] | None:
    """Return the moments of forecast frames: whole steps, months by the calendar, after the last of the history."""
    step = series.step
    if series.times is None or step is None:
        return None
    last = series.times[windows.starts + windows.history - 1]
    ahead = np.arange(1, horizon + 1)
    if np.datetime_data(step.dtype)[0] in "MY":
        months = last.astype("datetime64[M]")
        later = months[:, None] + (ahead * step.astype("timedelta64[M]"))[None]
        moments = later.astype("datetime64[us]") + (last - months.astype("datetime64[us]"))[:, None]
    else:
        moments = last[:, None] + (ahead * step.astype("timedelta64[us]"))[None]
    return moments.reshape(-1).astype("datetime64[us]")


def command(options: PredictOptions) -> Outcome:
    """Do `stpred predict`: a file of frames with their times, and pictures of the first forecast."""
    if options.out.suffix not in (".npz", ".zarr"):
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected .npz or .zarr")
    forecaster = Forecaster.load(options.run, device=options.device)
    series = series_for(options, forecaster)
    horizon = options.evaluate.horizon or forecaster.horizon
    stride = options.evaluate.stride or forecaster.config.data.stride
    forecast = forecast_series(forecaster, series, at=options.at, horizon=horizon, stride=stride)
    forecast.write(options.out)
    written = [str(options.out)]
    if options.figures:
        from stpred.drawing import draw_forecast

        written += draw_forecast(forecaster, series, forecast, options.out.with_suffix(""), cmap=options.cmap)
    data = {"files": written, "forecasts": forecast.num_clips, "horizon": horizon, "units": list(series.units)}
    return Outcome(f"{forecast.num_clips:,} forecasts of {horizon} frames in {', '.join(written)}", data)


def series_for(options: ForecastOptions, forecaster: Forecaster, *, part: str = "test") -> GridSeries:
    """Read the frames a command is applied to.

    Without `--data`, or with data in three parts, `part` of them; a single source given with `--data` is taken whole.
    """
    if not options.data.source:
        parts = read_parts(forecaster.config.data, seed=forecaster.config.seed)
        series, where = series_of(parts.named()[part]), part
    else:
        from stcore.readers.grids import read_grids_or_parts

        found = read_grids_or_parts(options.data)
        series, where = found[part] if part in found else next(iter(found.values())), options.data.source[0]
    forecaster.check(series, where)
    return series
