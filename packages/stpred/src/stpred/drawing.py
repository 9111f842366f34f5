"""Figures of an evaluation and of a forecast: grids of frames, animations, errors by lead time, training, flows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stcore import figures
from stcore.figures_grids import (
    FrameStyle,
    flow_field,
    frame_grid,
    lead_time_curves,
    register_dbz_cmap,
    register_rain_cmap,
    save_animation,
)
from stcore.grids import GridSeries
from stcore.training.run import Run
from stcore.windows import find_windows
from stpred.evaluate import LOWER_IS_BETTER, MODEL, Report
from stpred.predict import Forecaster

WORDS = {"mse": "MSE per frame", "mae": "MAE per frame", "psnr": "PSNR (dB)", "ssim": "SSIM"}


def frame_style(series: GridSeries, channel: int, cmap: str = "auto") -> FrameStyle:
    """Return colours, units and time steps for frames of a channel of `series`."""
    norm: Any = None
    if cmap == "dbz":
        register_dbz_cmap()
    elif cmap == "rain":
        norm = register_rain_cmap()[1]
    step, unit = _step_of(series)
    return FrameStyle(
        cmap="gray" if cmap == "auto" else cmap, norm=norm, value_range=series.value_range,
        unit=series.units[channel] if series.units else "", name=_name(series, channel), step=step, time_unit=unit,
    )  # fmt: skip


def draw_evaluation(
    forecaster: Forecaster, series: GridSeries, report: Report, run: Run, folder: Path, *, cmap: str = "auto"
) -> list[str]:
    """Draw the figures of an evaluation into `folder` and return their paths.

    Args:
        forecaster: the model.
        series: what was evaluated.
        report: what was found.
        run: for the training curves.
        folder: where the figures go.
        cmap: name of a colour map; `auto` takes grey.
    """
    folder.mkdir(parents=True, exist_ok=True)
    horizon = len(report.tables[MODEL]["per_lead_time"]["mse"])
    windows = find_windows(series, history=forecaster.history, horizon=horizon)
    middle = np.array([len(windows) // 2])
    history, truth = windows.load(middle)
    forecast = forecaster.forecast(torch.from_numpy(np.ascontiguousarray(history)), horizon).numpy()
    written: list[str] = []
    for channel in range(series.num_channels):
        style = frame_style(series, channel, cmap)
        parts = [part[0, :, channel] for part in (history, forecast, truth)]
        name = "forecast" if series.num_channels == 1 else f"forecast-{channel + 1}"
        written += _pictures(folder / name, *parts, style=style)
    style = frame_style(series, 0, cmap)
    for metric, words in WORDS.items():
        curves = {name: table["per_lead_time"].get(metric) for name, table in report.tables.items()}
        known = {name: values for name, values in curves.items() if values is not None and np.isfinite(values).all()}
        if known:
            drawn = lead_time_curves(known, metric=words, style=style, lower_is_better=LOWER_IS_BETTER[metric])
            written.append(str(figures.save_figure(drawn, folder / f"lead-time-{metric}.png")))
    if run.metrics_file.exists():
        training = figures.training_curves(run.metrics_file)
        written.append(str(figures.save_figure(training, folder / "training.png")))
    return written + _flows(forecaster, history, folder)


def draw_forecast(
    forecaster: Forecaster, series: GridSeries, forecast: GridSeries, stem: Path, *, cmap: str = "auto"
) -> list[str]:
    """Draw the first clip of a forecast as `<stem>.png` and `<stem>.gif` (one pair for each channel).

    Args:
        forecaster: the model.
        series: the past.
        forecast: what `forecast_series` made of it.
        stem: path without ending.
        cmap: name of a colour map; `auto` takes grey.
    """
    ends = find_windows(series, history=forecaster.history, horizon=0)
    names = ends.names(np.arange(len(ends)))
    history = ends.load(np.array([names.index(forecast.clip_names[0])]))[0][0]
    frames = forecast.frames(np.flatnonzero(forecast.clip_numbers == 0))
    written: list[str] = []
    for channel in range(series.num_channels):
        name = stem.name if series.num_channels == 1 else f"{stem.name}-{channel + 1}"
        style = frame_style(series, channel, cmap)
        written += _pictures(stem.with_name(name), history[:, channel], frames[:, channel], None, style=style)
    return written


def _pictures(
    stem: Path, history: NDArray[Any], forecast: NDArray[Any], truth: NDArray[Any] | None, *, style: FrameStyle
) -> list[str]:
    grid, film = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.gif")
    title = "History and forecast" if truth is None else "History, what came and the forecast"
    drawn = frame_grid(history, forecast, truth=truth, style=style, title=title)
    figures.save_figure(drawn, grid)
    save_animation(film, history, forecast, truth=truth, style=style)
    return [str(grid), str(film)]


def _flows(forecaster: Forecaster, history: NDArray[Any], folder: Path) -> list[str]:
    """Draw where each layer of a TrajGRU looks for its past, at the first forecast frame."""
    from stpred.models.trajgru import TrajGRUForecaster

    model = forecaster.model
    if not isinstance(model, TrajGRUForecaster):
        return []
    past = torch.from_numpy(np.ascontiguousarray(history)).to(forecaster.device)
    with torch.inference_mode():
        flows = model.flows(forecaster.scaling.transform(past), 1)
    written: list[str] = []
    for level, flow in enumerate(flows):
        figure = flow_field(flow[0, 0].float().cpu().numpy(), background=history[0, -1, 0])
        written.append(str(figures.save_figure(figure, folder / f"flow-layer-{level + 1}.png")))
    return written


def _step_of(series: GridSeries) -> tuple[float, str]:
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
