"""Score forecasts per lead time beside persistence, damped persistence and climatology; stream over windows.

Protocol, named in every report: every window of the part is forecast from its true history, all lead times at once.
Errors per cell are in the units of the data. Sums over a frame, PSNR and SSIM are of frames mapped to [0, 1] by the
declared range (else by that of the training part), as OpenSTL reports them for pictures. Where rows have latitudes,
RMSE weighted by area and ACC are those of WeatherBench. Scales and naive forecasts know the training part only; under
the protocol `paper` held-back parts of WeatherBench are scaled and turned back as they were for publication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from stcore.baselines_grids import (
    Climatology,
    DampedPersistence,
    Persistence,
    TimedForecaster,
)
from stcore.cli import Outcome, run_of
from stcore.errors import UserError
from stcore.frame_anomalies import usual_frames
from stcore.frame_reports import FrameScores, Report, Rival, score_windows, spread_ids, write_report
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.latitudes import latitudes
from stcore.metrics.weather import WeatherMetrics, WeatherReport
from stcore.readers.weatherbench import describe_protocol, weather_set
from stcore.sampling import Indices
from stcore.training.run import Run
from stcore.windows import Windows
from svq.config import DataConfig
from svq.data import is_store, leads_of, read_parts, windows_of
from svq.lpips import Lpips
from svq.options import EvaluateOptions
from svq.paper import as_published
from svq.predict import Forecaster, series_for

MODEL = "svq"
NO_LPIPS = "lpips: empty, since no weights were named; pass --lpips with those of the package lpips (net='alex')"


@dataclass(frozen=True, eq=False)
class Extras:
    """What is measured beside the errors of every forecaster of frames, by the name of the forecaster."""

    windows: Windows
    climatology: Climatology
    measure: Scaling
    weather: dict[str, WeatherMetrics]
    groups: tuple[str, ...]
    lpips: Lpips | None
    pictures: dict[str, list[float]]

    def observe(self, who: str, ids: Indices, forecast: Tensor, truth: Tensor) -> None:
        """Add the forecasts of a batch of windows."""
        if (metrics := self.weather.get(who)) is not None:
            times = self.windows.times(ids)
            ahead = None if times is None else times[:, -truth.shape[1] :]
            metrics.update(forecast, truth, climatology=self.climatology.at(ahead, truth.shape[:2]))
        if self.lpips is not None:
            seen, real = (self.measure.transform(part).clamp(0.0, 1.0).flatten(0, 1) for part in (forecast, truth))
            self.pictures.setdefault(who, []).extend(self.lpips.distance(seen, real).tolist())

    def more(self) -> dict[str, dict[str, float]]:
        """Return further figures over everything."""
        found: dict[str, dict[str, float]] = {}
        headline = ("mse", "mae", "rmse")
        for who, metrics in self.weather.items():
            overall = metrics.compute()["overall"]
            means = {f"{name}, mean of groups": overall[name] for name in headline} if self.groups else {}
            found[who] = means | {name: value for name, value in overall.items() if name not in headline}
        for who, values in self.pictures.items():
            found.setdefault(who, {})["lpips"] = float(np.mean(values))
        return found


def evaluate(
    forecaster: Forecaster,
    series: GridSeries,
    train: GridSeries,
    *,
    horizon: int | None = None,
    stride: int | None = None,
    limit: int = 0,
    rivals: dict[str, TimedForecaster] | None = None,
    lpips: Lpips | None = None,
) -> Report:
    """Score a forecaster on every window of `series`.

    Args:
        forecaster: the model.
        series: held-back frames.
        train: the training part, which naive forecasts and, without a declared range, the scale are fitted on.
        horizon: frames to forecast; None as configured.
        stride: frames from one window to the next; None as configured.
        limit: windows at most, spread evenly; 0 takes all.
        rivals: further forecasters by name, from and to the units of the data.
        lpips: distance of pictures, where it is wanted.

    Raises:
        UserError: no window fits, or frames have another size.
    """
    forecaster.check(series, "series")
    data = forecaster.config.data
    ahead = horizon or forecaster.horizon
    step = stride or forecaster.config.evaluate.stride or data.stride
    forecaster, series = as_published(forecaster, series)
    windows = windows_of(series, data, horizon=ahead, stride=step)
    ids = spread_ids(len(windows), limit)
    measure, usual = Scaling.fit(train, "auto"), usual_frames(train)
    known: dict[str, TimedForecaster] = {
        "persistence": Persistence(),
        "damped persistence": DampedPersistence.fit(train, leads=leads_of(data, ahead), climatology=usual),
        "climatology": usual,
        **(rivals or {}),
    }
    others = {name: _timed(rival, windows, ahead) for name, rival in known.items()}
    groups = _groups(data)
    weather = _weather(series, groups, (MODEL, *others))
    extras = Extras(windows, usual, measure, weather, groups, lpips, {})
    scores = score_windows(forecaster, windows, ids, name=MODEL, measure=measure, rivals=others,
                           observe=extras.observe)  # fmt: skip
    return _report(forecaster, scores, extras, _facts(forecaster, series, ids, ahead, step, usual))


def _timed(rival: TimedForecaster, windows: Windows, horizon: int) -> Rival:
    """Return a forecaster that is told the moments of its windows."""

    def forecast(history: Tensor, ids: Indices) -> Tensor:
        return rival.predict(history, horizon, times=windows.times(ids))

    return forecast


def _groups(data: DataConfig) -> tuple[str, ...]:
    """Return the groups of channels that published scores of a set are means over."""
    return weather_set(data).groups if data.format == "weatherbench" else ()


def _weather(series: GridSeries, groups: tuple[str, ...], names: Sequence[str]) -> dict[str, WeatherMetrics]:
    """Return sums for scores of weather, where rows have latitudes or the set has groups of channels."""
    rows = latitudes(series)
    if rows is None and not groups:
        return {}
    return {name: WeatherMetrics(rows, channels=series.channels, groups=groups) for name in names}


def _report(forecaster: Forecaster, scores: dict[str, FrameScores], extras: Extras, facts: dict[str, Any]) -> Report:
    channels = extras.windows.series.channels
    by_lead: dict[str, dict[str, list[float]]] = {name: score.by_lead() for name, score in scores.items()}
    by_channel = {name: score.by_channel(channels) for name, score in scores.items()}
    for who, metrics in extras.weather.items():
        found: WeatherReport = metrics.compute()
        for name in ("rmse_weighted", "acc"):
            if name in found["per_lead_time"]:
                by_lead[who][name] = [float(np.mean(values)) for values in found["per_lead_time"][name]]
                for channel, value in zip(channels, found["per_channel"][name], strict=True):
                    by_channel[who][channel][name] = value
    return Report(
        {name: score.metrics.compute() for name, score in scores.items()},
        {name: score.in_units() for name, score in scores.items()},
        facts, by_lead=by_lead, by_channel=by_channel, more=extras.more(),
        remarks=(verdict(by_lead), *(() if extras.lpips else (NO_LPIPS,))),
        shown_by_lead=("rmse", "rmse_weighted", "acc") if extras.weather else ("rmse",),
    )  # fmt: skip


def verdict(by_lead: dict[str, dict[str, list[float]]]) -> str:
    """Return in a sentence at which lead times the model beats every naive forecast, by RMSE per cell."""
    mine, *others = (np.array(found["rmse"]) for found in by_lead.values())
    beaten = mine < np.min(others, axis=0)
    if beaten.all():
        return f"beats every naive forecast at all {len(mine)} lead times (rmse)"
    lost = ", ".join(str(lead + 1) for lead in np.flatnonzero(~beaten))
    return f"does not beat the best naive forecast at lead times {lost} of {len(mine)} (rmse)"


def _facts(
    forecaster: Forecaster, series: GridSeries, ids: Indices, ahead: int, step: int, usual: Climatology
) -> dict[str, Any]:
    config = forecaster.config
    protocol = f"protocol {config.protocol}"
    if config.data.format == "weatherbench" and not is_store(config.data):
        protocol = f"protocol {describe_protocol(config.data)}"
    usually = " and ".join(usual.by) or "nothing"
    return {
        "protocol": f"{protocol}. {len(ids):,} windows: {ahead} frames from the true {forecaster.history} before them, "
        f"every {step}; sums over a frame on the scale [0, 1], errors per cell in units; naive forecasts from the "
        f"training part alone, climatology by {usually}",
        "protocol_name": config.protocol, "windows": len(ids), "history": forecaster.history, "horizon": ahead,
        "stride": step, "translator": config.model.translator, "quantizer": config.quantizer.kind,
        "units": list(series.units), "channels": list(series.channels), "climatology": list(usual.by),
        "checkpoint": forecaster.facts.get("path", ""), "step": forecaster.facts.get("step"),
        "svq": forecaster.facts.get("version"),
    }  # fmt: skip


def command(options: EvaluateOptions) -> Outcome:
    """Do `svq evaluate`."""
    lpips = None if options.lpips is None else Lpips.load(options.lpips)
    forecaster = Forecaster.load(options.run, device=options.device)
    run = Run(run_of(options.run))
    folder = options.out or run.folder
    if options.out is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected an existing one for --out")
    parts = read_parts(forecaster.config)
    own = not options.data.source
    series = parts.named()[options.part] if own else series_for(options, forecaster, part=options.part)
    report = evaluate(forecaster, series, parts.train, horizon=options.evaluate.horizon or None,
                      stride=options.evaluate.stride or None, limit=options.limit, lpips=lpips)  # fmt: skip
    written = [write_report(report, folder / f"evaluation-{options.part}.json")]
    if options.figures:
        from svq.drawing import draw_evaluation

        written += draw_evaluation(forecaster, series, report, run, folder / "figures", cmap=options.cmap)
    return Outcome("\n".join([report.text(), "", *written]), {**report.data(), "files": written})
