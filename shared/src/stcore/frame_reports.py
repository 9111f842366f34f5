"""Scores of forecasts of frames, overall and per lead time, beside those of others: sums over windows, tables, JSON.

Sums over a frame are of frames mapped to [0, 1] by the declared range (else by that of the training part); errors per
cell are in the units of the data. Nothing is kept but sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stcore.files import to_json, write_atomically
from stcore.frame_forecasting import TrainedForecaster
from stcore.frame_scaling import Scaling
from stcore.metrics.frames import FrameMetrics, FrameReport
from stcore.sampling import Indices
from stcore.windows import Windows

LOWER_IS_BETTER = {"mse": True, "mae": True, "rmse": True, "psnr": False, "ssim": False, "ssim_legacy": False}
"""Metrics of the report, in its order."""
Rival = Callable[[Tensor, Indices], Tensor]
"""From histories in the units of the data, and the numbers of their windows, to forecasts in the same units."""
Observer = Callable[[str, Indices, Tensor, Tensor], None]
"""Takes name of a forecaster, numbers of windows, forecasts and truth, in units; the truth is NaN where data lack."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found; everything by the name of the forecaster, the model first."""

    tables: dict[str, FrameReport]
    """Metrics on the scale [0, 1]."""
    in_units: dict[str, dict[str, float]]
    """MAE and RMSE per cell in the units of the data."""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """Run, step, protocol, sizes, units."""
    by_lead: dict[str, dict[str, list[float]]] = field(default_factory=dict[str, dict[str, list[float]]])
    """MAE and RMSE per cell in the units of the data at each lead time, and what else was measured there."""
    by_channel: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict[str, dict[str, dict[str, float]]])
    """MAE and RMSE of each channel, and what else was measured there."""
    more: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Further figures over everything."""
    remarks: tuple[str, ...] = ()
    """What a reader has to know, such as why a figure is absent."""
    shown_by_lead: tuple[str, ...] = ("mse",)
    """What the text shows at each lead time: metrics of `tables` or of `by_lead`."""

    @property
    def model(self) -> str:
        """Name of the model."""
        return next(iter(self.tables))

    def value(self, name: str, forecaster: str = "") -> float:
        """Return one figure of one forecaster (by default the model), over all lead times."""
        return self.tables[forecaster or self.model]["overall"][name]

    def leads(self, name: str) -> dict[str, list[float]]:
        """Return a metric at each lead time by forecaster, in units where it is known so; empty where it is not."""
        found = {who: values[name] for who, values in self.by_lead.items() if name in values}
        tables = {who: table["per_lead_time"] for who, table in self.tables.items()}
        return found or {who: values[name] for who, values in tables.items() if name in values}

    def data(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"facts": self.facts, "tables": self.tables, "in_units": self.in_units, "by_lead": self.by_lead,
                "by_channel": self.by_channel, "more": self.more, "remarks": list(self.remarks)}  # fmt: skip

    def text(self) -> str:
        """Return the tables for a terminal."""
        names = [name for name in LOWER_IS_BETTER if name in self.tables[self.model]["overall"]]
        overall = [["", *self.tables]]
        overall += [[name, *(_number(table["overall"][name]) for table in self.tables.values())] for name in names]
        for name in ("mae", "rmse"):
            unit = f"{name} per cell{self._unit()}"
            overall.append([unit, *(_number(found[name]) for found in self.in_units.values())])
        for name in dict.fromkeys(name for found in self.more.values() for name in found):
            cells = (self.more.get(who, {}).get(name) for who in self.tables)
            overall.append([name, *("" if value is None else _number(value) for value in cells)])
        blocks = [self.facts["protocol"], _aligned(overall)]
        blocks += [_aligned(self._lead_table(name)) for name in self.shown_by_lead]
        return "\n\n".join([*blocks, *self.remarks])

    def _lead_table(self, name: str) -> list[list[str]]:
        known: Mapping[str, list[float]] = self.leads(name)
        if name == "mse":  # a sum over frames
            known = {who: table["per_lead_time"]["mse"] for who, table in self.tables.items()}
        unit = self._unit() if any(name in found and name in ("mae", "rmse") for found in self.by_lead.values()) else ""
        per_cell = " per cell" if unit else ""
        rows = [[f"{name}{per_cell}{unit} at lead time", *known]]
        horizon = max((len(values) for values in known.values()), default=0)
        rows += [[f"{lead + 1}", *(_number(values[lead]) for values in known.values())] for lead in range(horizon)]
        return rows

    def _unit(self) -> str:
        units = list(dict.fromkeys(self.facts["units"]))
        return f" ({', '.join(units)})" if units else " (units of the data)"


class FrameScores:
    """Sums of one forecaster over windows: on the scale [0, 1], and per cell in the units of the data.

    Args:
        measure: from units to the scale [0, 1].
    """

    def __init__(self, measure: Scaling) -> None:
        self.metrics = FrameMetrics()
        self._measure, self._span = measure, measure.span.double()
        self._sums: Tensor | None = None

    def add(
        self,
        forecast: Float[Tensor, "batch horizon channel height width"],
        truth: Float[Tensor, "batch horizon channel height width"],
        mask: Bool[Tensor, "batch horizon channel height width"] | None = None,
    ) -> None:
        """Add forecasts and what came, in units; cells count where the truth is no NaN and `mask` is True."""
        seen, real = self._measure.transform(forecast), self._measure.transform(truth)
        counted = ~truth.isnan() if mask is None else mask & ~truth.isnan()
        whole = bool(counted.all())
        self.metrics.update(seen, real, mask=None if whole else counted)
        error = (seen.double() - real.double()) * self._span
        error = error if whole else error.where(counted, 0.0)
        places = (0, 3, 4)
        sums = torch.stack([error.abs().sum(places), error.square().sum(places), counted.double().sum(places)])
        self._sums = sums if self._sums is None else self._sums + sums

    def in_units(self) -> dict[str, float]:
        """Return MAE and RMSE per cell over everything."""
        return {name: float(value) for name, value in self._means((1, 2)).items()}

    def by_lead(self) -> dict[str, list[float]]:
        """Return MAE and RMSE per cell at each lead time."""
        return {name: value.tolist() for name, value in self._means((2,)).items()}

    def by_channel(self, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
        """Return MAE and RMSE per cell of each channel."""
        found = {name: value.tolist() for name, value in self._means((1,)).items()}
        return {name: {key: values[at] for key, values in found.items()} for at, name in enumerate(names)}

    def _means(self, axes: tuple[int, ...]) -> dict[str, Tensor]:
        assert self._sums is not None  # nothing is asked before windows were added
        absolute, squared, cells = self._sums.sum(axes)
        return {"mae": absolute / cells, "rmse": (squared / cells).sqrt()}


def score_windows(
    forecaster: TrainedForecaster,
    windows: Windows,
    ids: Indices,
    *,
    name: str,
    measure: Scaling,
    rivals: Mapping[str, Rival],
    observe: Observer | None = None,
) -> dict[str, FrameScores]:
    """Forecast windows from their true histories, by the model and by its rivals, and add up their errors.

    Args:
        forecaster: the model.
        windows: histories and what came.
        ids: which of them.
        name: of the model.
        measure: from units to the scale [0, 1].
        rivals: other forecasters by name.
        observe: is shown every forecast, for what else is to be measured.
    """
    scores = {who: FrameScores(measure) for who in (name, *rivals)}
    masked = windows.series.mask is not None
    for some, history, future, forecast in forecaster.stream(windows, ids=ids):
        mask = torch.from_numpy(windows.valid(some)[1]) if masked else None
        truth = future if mask is None else future.where(mask, torch.nan)
        made = {name: forecast, **{who: rival(history, some) for who, rival in rivals.items()}}
        for who, frames in made.items():
            scores[who].add(frames, truth)
            if observe is not None:
                observe(who, some, frames, truth)
    return scores


def spread_ids(count: int, limit: int) -> Indices:
    """Return the numbers of all of `count` windows, or of `limit` of them, spread evenly.

    >>> spread_ids(10, 4).tolist(), len(spread_ids(10, 0))
    ([0, 3, 6, 9], 10)
    """
    return np.linspace(0, count - 1, min(limit or count, count)).round().astype(np.int64)


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
