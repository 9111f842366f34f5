"""Figures of every forecaster of frames: frames beside what came, animations, errors by lead time, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stcore import figures
from stcore.figures_animations import save_animation
from stcore.figures_grids import frame_grid, lead_time_curves
from stcore.frame_forecasting import TrainedForecaster
from stcore.frame_reports import LOWER_IS_BETTER, Report
from stcore.frame_style import FrameStyle, register_dbz_cmap, register_rain_cmap
from stcore.grids import GridSeries
from stcore.latitudes import north_up
from stcore.training.run import Run
from stcore.windows import find_windows

WORDS = {"mse": "MSE per frame", "mae": "MAE per frame", "psnr": "PSNR (dB)", "ssim": "SSIM"}


class Example(NamedTuple):
    """One window with its forecast, each (time, channel, height, width), in the units of the data."""

    history: NDArray[Any]
    forecast: NDArray[Any]
    truth: NDArray[Any]


def frame_style(series: GridSeries, channel: int, cmap: str = "auto") -> FrameStyle:
    """Return colours, units and time steps for frames of a channel of `series`."""
    norm: Any = None
    if cmap == "dbz":
        register_dbz_cmap()
    elif cmap == "rain":
        norm = register_rain_cmap()[1]
    step, unit = step_in_words(series)
    return FrameStyle(
        cmap=_map_for(series) if cmap == "auto" else cmap, norm=norm, value_range=series.value_range,
        unit=series.units[channel] if series.units else "", name=_name(series, channel), step=step, time_unit=unit,
    )  # fmt: skip


def _map_for(series: GridSeries) -> str:
    """Take grey, as frames of video have it; with missing cells, which are drawn grey, a map without grey."""
    return "gray" if series.mask is None else "viridis"


def example_of(forecaster: TrainedForecaster, series: GridSeries, horizon: int) -> Example:
    """Return the window in the middle of `series` with its forecast."""
    windows = find_windows(series, history=forecaster.history, horizon=horizon)
    middle = np.array([len(windows) // 2])
    _, history, truth, forecast = next(forecaster.stream(windows, horizon, ids=middle))
    return Example(history[0].numpy(), forecast[0].numpy(), truth[0].numpy())


def draw_example(example: Example, series: GridSeries, folder: Path, *, cmap: str = "auto") -> list[str]:
    """Draw an example as `forecast.png` and `forecast.gif` (one pair for each channel) and return their paths."""
    written: list[str] = []
    for channel in range(series.num_channels):
        parts = [north_up(part[:, channel], series) for part in example]
        name = "forecast" if series.num_channels == 1 else f"forecast-{channel + 1}"
        written += draw_frames(folder / name, *parts, style=frame_style(series, channel, cmap))
    return written


def draw_forecast(
    forecaster: TrainedForecaster, series: GridSeries, forecast: GridSeries, stem: Path, *, cmap: str = "auto"
) -> list[str]:
    """Draw the first clip of a forecast as `<stem>.png` and `<stem>.gif` (one pair for each channel).

    Args:
        forecaster: the model.
        series: the past.
        forecast: what `forecast_series` made of it.
        stem: path without ending.
        cmap: name of a colour map; `auto` takes grey, or viridis where cells are missing.
    """
    ends = find_windows(series, history=forecaster.history, horizon=0)
    names = ends.names(np.arange(len(ends)))
    history = ends.load(np.array([names.index(forecast.clip_names[0])]))[0][0]
    frames = forecast.frames(np.flatnonzero(forecast.clip_numbers == 0))
    written: list[str] = []
    for channel in range(series.num_channels):
        name = stem.name if series.num_channels == 1 else f"{stem.name}-{channel + 1}"
        style = frame_style(series, channel, cmap)
        past, future = (north_up(part[:, channel], series) for part in (history, frames))
        written += draw_frames(stem.with_name(name), past, future, None, style=style)
    return written


def draw_frames(
    stem: Path, history: NDArray[Any], forecast: NDArray[Any], truth: NDArray[Any] | None, *, style: FrameStyle
) -> list[str]:
    """Draw frames of one channel as a grid `<stem>.png` and an animation `<stem>.gif`."""
    grid, film = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.gif")
    title = "History and forecast" if truth is None else "History, what came and the forecast"
    figures.save_figure(frame_grid(history, forecast, truth=truth, style=style, title=title), grid)
    save_animation(film, history, forecast, truth=truth, style=style)
    return [str(grid), str(film)]


def draw_curves(report: Report, series: GridSeries, run: Run, folder: Path, *, cmap: str = "auto") -> list[str]:
    """Draw errors by lead time and the course of the training, as far as they are known, and return their paths."""
    style = frame_style(series, 0, cmap)
    written: list[str] = []
    for metric, words in WORDS.items():
        curves = {name: table["per_lead_time"].get(metric) for name, table in report.tables.items()}
        known = {name: values for name, values in curves.items() if values is not None and np.isfinite(values).all()}
        if known:
            drawn = lead_time_curves(known, metric=words, style=style, lower_is_better=LOWER_IS_BETTER[metric])
            written.append(str(figures.save_figure(drawn, folder / f"lead-time-{metric}.png")))
    if run.metrics_file.exists():
        training = figures.training_curves(run.metrics_file)
        written.append(str(figures.save_figure(training, folder / "training.png")))
    return written


def step_in_words(series: GridSeries) -> tuple[float, str]:
    """Return the time between frames and its unit, as short as it can be said."""
    step = series.step
    if step is None:
        return 1.0, ""
    if np.datetime_data(step.dtype)[0] in "MY":
        return float(step.astype("timedelta64[M]").astype(int)), "months"
    seconds = step.astype("timedelta64[us]").astype(np.int64) / 1e6
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return float(seconds / size), unit
    return float(seconds), "s"


def _name(series: GridSeries, channel: int) -> str:
    name = series.channels[channel]
    return "value" if name.isdigit() else name
