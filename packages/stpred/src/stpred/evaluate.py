"""Score forecasts per lead time beside persistence and the mean frame, stream over windows, write a table and figures.

Protocol, named in every report: every window of the part is forecast from its true history, all lead times at once.
Errors are on frames mapped to [0, 1] by the declared range (else by that of the training part), summed over channels,
rows and columns of a frame and averaged over frames, as OpenSTL reports them. Scaling and baselines know the training
part only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stcore.baselines_grids import FrameForecaster, MeanFrame, Persistence
from stcore.cli import Outcome, run_of
from stcore.errors import UserError
from stcore.files import to_json, write_atomically
from stcore.grids import GridSeries
from stcore.metrics.frames import FrameMetrics, FrameReport
from stcore.training.run import Run
from stcore.windows import find_windows
from stpred.data import Scaling, read_parts, series_of
from stpred.options import EvaluateOptions
from stpred.predict import Forecaster, series_for

MODEL = "stpred"
LOWER_IS_BETTER = {"mse": True, "mae": True, "rmse": True, "psnr": False, "ssim": False, "ssim_legacy": False}
"""Metrics of the report, in its order."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found."""

    tables: dict[str, FrameReport]
    """Metrics of the model and of each rival, the model first, on the scale [0, 1]."""
    in_units: dict[str, dict[str, float]]
    """MAE and RMSE per cell in the units of the data."""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """Run, step, protocol, sizes, units."""

    def value(self, name: str, forecaster: str = MODEL) -> float:
        """Return one figure of one forecaster, over all lead times."""
        return self.tables[forecaster]["overall"][name]

    def data(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"facts": self.facts, "tables": self.tables, "in_units": self.in_units}

    def text(self) -> str:
        """Return the tables for a terminal."""
        names = [name for name in LOWER_IS_BETTER if name in self.tables[MODEL]["overall"]]
        overall = [["", *self.tables]]
        overall += [[name, *(_number(table["overall"][name]) for table in self.tables.values())] for name in names]
        for name in ("mae", "rmse"):
            unit = f"{name} per cell{self._unit()}"
            overall.append([unit, *(_number(found[name]) for found in self.in_units.values())])
        leads = [["mse at lead time", *self.tables]]
        horizon = len(self.tables[MODEL]["per_lead_time"]["mse"])
        for lead in range(horizon):
            row = [_number(table["per_lead_time"]["mse"][lead]) for table in self.tables.values()]
            leads.append([f"{lead + 1}", *row])
        return "\n".join([self.facts["protocol"], "", _aligned(overall), "", _aligned(leads)])

    def _unit(self) -> str:
        units = list(dict.fromkeys(self.facts["units"]))
        return f" ({', '.join(units)})" if units else " (units of the data)"


def evaluate(
    forecaster: Forecaster,
    series: GridSeries,
    train: GridSeries,
    *,
    horizon: int | None = None,
    stride: int | None = None,
    limit: int = 0,
    rivals: dict[str, FrameForecaster] | None = None,
) -> Report:
    """Score a forecaster on every window of `series`.

    Args:
        forecaster: the model.
        series: held-back frames.
        train: the training part, which the mean frame and, without a declared range, the scale are fitted on.
        horizon: frames to forecast; None as configured.
        stride: frames from one window to the next; None as configured.
        limit: windows at most, spread evenly; 0 takes all.
        rivals: further forecasters by name, from and to the scale [0, 1].

    Raises:
        UserError: no window fits, or frames have another size.
    """
    forecaster.check(series, "series")
    options = forecaster.config
    ahead = horizon or forecaster.horizon
    step = stride or options.evaluate.stride or options.data.stride
    windows = find_windows(series, history=forecaster.history, horizon=ahead, stride=step, rule=options.data.windows)
    measure = Scaling.fit(train, "auto")
    mean = MeanFrame(measure.transform(MeanFrame.fit(train).frame))
    others: dict[str, FrameForecaster] = {"persistence": Persistence(), "mean frame": mean, **(rivals or {})}
    scores = {name: _Scores(measure) for name in (MODEL, *others)}
    count = min(limit or len(windows), len(windows))
    ids = np.linspace(0, len(windows) - 1, count).round().astype(np.int64)
    for some, history, future, forecast in forecaster.stream(windows, ids=ids):
        mask = None if series.mask is None else torch.from_numpy(windows.valid(some)[1])
        past, truth = measure.transform(history), measure.transform(future)
        scores[MODEL].add(measure.transform(forecast), truth, mask)
        for name, rival in others.items():
            scores[name].add(rival.predict(past, ahead), truth, mask)
    facts = {
        "protocol": f"{count:,} windows: {ahead} frames from the true {forecaster.history} before them, every "
        f"{step}; sums over a frame on the scale [0, 1]; scale and baselines from the training part alone",
        "windows": count, "history": forecaster.history, "horizon": ahead, "stride": step,
        "model": options.model.kind, "units": list(series.units), "checkpoint": forecaster.facts.get("path", ""),
        "step": forecaster.facts.get("step"), "stpred": forecaster.facts.get("version"),
    }  # fmt: skip
    return Report({name: score.metrics.compute() for name, score in scores.items()},
                  {name: score.in_units() for name, score in scores.items()}, facts)  # fmt: skip


class _Scores:
    """Sums over windows: on the scale [0, 1], and per cell in the units of the data."""

    def __init__(self, measure: Scaling) -> None:
        self.metrics, self._span = FrameMetrics(), measure.span.double()
        self._absolute = self._squared = self._cells = 0.0

    def add(self, forecast: Tensor, truth: Tensor, mask: Tensor | None) -> None:
        self.metrics.update(forecast, truth, mask=mask)
        error = (forecast.double() - truth.double()) * self._span
        error = error if mask is None else error[mask.expand_as(error)]
        self._absolute += float(error.abs().sum())
        self._squared += float(error.square().sum())
        self._cells += error.numel()

    def in_units(self) -> dict[str, float]:
        return {"mae": self._absolute / self._cells, "rmse": (self._squared / self._cells) ** 0.5}


def command(options: EvaluateOptions) -> Outcome:
    """Do `stpred evaluate`."""
    forecaster = Forecaster.load(options.run, device=options.device)
    run = Run(run_of(options.run))
    folder = options.out or run.folder
    if options.out is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected an existing one for --out")
    parts = read_parts(forecaster.config.data, seed=forecaster.config.seed)
    own = not options.data.source
    series = series_of(parts.named()[options.part]) if own else series_for(options, forecaster, part=options.part)
    report = evaluate(forecaster, series, series_of(parts.train), horizon=options.evaluate.horizon or None,
                      stride=options.evaluate.stride or None, limit=options.limit)  # fmt: skip
    path = folder / f"evaluation-{options.part}.json"
    written = [write_report(report, path)]
    if options.figures:
        from stpred.drawing import draw_evaluation

        written += draw_evaluation(forecaster, series, report, run, folder / "figures", cmap=options.cmap)
    return Outcome("\n".join([report.text(), "", *written]), {**report.data(), "files": written})


def write_report(report: Report, path: Path) -> str:
    """Write a report as JSON and return where."""
    write_atomically(path, [to_json(report.data()).encode()])
    return str(path)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _aligned(table: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    cells = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in table)
    return "\n".join("  ".join(line).rstrip() for line in cells)
