"""Figures of an evaluation, of a forecast, and of a codebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stcore import figures
from stcore.figures_codes import code_usage
from stcore.figures_grids import lead_time_curves
from stcore.figures_maps import Place, forecast_maps, power_spectra, radial_spectrum
from stcore.frame_drawing import Example, draw_curves, draw_example, draw_forecast, example_of, frame_style
from stcore.frame_reports import Report
from stcore.grids import GridSeries
from stcore.latitudes import are_degrees
from stcore.training.run import Run
from svq.codebook import CodebookReport
from svq.predict import Forecaster

__all__ = ["draw_codebook", "draw_evaluation", "draw_forecast"]

UNITS = {"rmse": "RMSE per cell", "rmse_weighted": "RMSE weighted by area", "acc": "ACC"}


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
        cmap: name of a colour map; `auto` takes one that suits the data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    colours = _colours(series, cmap)
    example = example_of(forecaster, series, len(report.tables[report.model]["per_lead_time"]["mse"]))
    written = draw_example(example, series, folder, cmap=colours) + _draw_maps(example, series, folder, colours)
    written += draw_curves(report, series, run, folder, cmap=colours)
    style = frame_style(series, 0, colours)
    for metric, words in UNITS.items():
        curves = {who: found[metric] for who, found in report.by_lead.items() if metric in found}
        known = {who: values for who, values in curves.items() if np.isfinite(values).all()}
        if known:
            units = list(dict.fromkeys(series.units))
            unit = f" ({units[0]})" if len(units) == 1 and metric != "acc" else ""
            drawn = lead_time_curves(known, metric=f"{words}{unit}", style=style, lower_is_better=metric != "acc")
            written.append(str(figures.save_figure(drawn, folder / f"lead-time-{metric.replace('_', '-')}.png")))
    return written


def _draw_maps(example: Example, series: GridSeries, folder: Path, cmap: str) -> list[str]:
    """Draw an example as maps, where rows have latitudes, and the spectra of its last frame."""
    written: list[str] = []
    for channel in range(series.num_channels):
        ending = "" if series.num_channels == 1 else f"-{channel + 1}"
        style = frame_style(series, channel, cmap)
        history, forecast, truth = (part[:, channel] for part in example)
        if are_degrees(series):
            maps = forecast_maps(forecast, Place.of(series), truth=truth, history=history, style=style)
            written.append(str(figures.save_figure(maps, folder / f"map{ending}.png")))
        if min(truth.shape[1:]) >= 8 and np.isfinite(truth).all():
            spectra = {"truth": radial_spectrum(truth), "forecast": radial_spectrum(forecast)}
            drawn = power_spectra(spectra, unit=style.unit)
            written.append(str(figures.save_figure(drawn, folder / f"spectrum{ending}.png")))
    return written


def draw_codebook(report: CodebookReport, folder: Path) -> str:
    """Draw how often code weights have which size, and how often each code is active; return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = code_usage(np.array(report.edges), np.array(report.counts), np.array(report.usage),
                       deviation=report.deviation, kurtosis=report.kurtosis)  # fmt: skip
    return str(figures.save_figure(drawn, folder / "codebook.png"))


def _colours(series: GridSeries, cmap: str) -> str:
    """Return a colour map: grey for pictures, which have a range, and viridis for fields."""
    if cmap != "auto" or series.value_range is not None:
        return cmap
    return "viridis"
