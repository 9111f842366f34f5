"""Score forecasts per lead time beside naive ones, data set by data set; stream over windows.

Protocol, named in every report: every window of the part is forecast from its true history, all lead times at once, in
the units and, unless the model's grid is asked for, on the grid of the data. Sums run over cells, so that no figure
depends on batches. Naive forecasts know the training part only (of a target of few shots: its few windows).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stcore.cli import Outcome, run_of
from stcore.errors import UserError
from stcore.files import to_json, write_atomically
from stcore.training.run import Run
from vlm4st.baselines import Clocks, fit_baselines
from vlm4st.data import Part, Source, part_batches
from vlm4st.mixing import Batch
from vlm4st.objective import carried
from vlm4st.options import EvaluateOptions
from vlm4st.predict import Forecaster, sources_for
from vlm4st.scores import ErrorSums
from vlm4st.watching import Seen

MODEL = "vlm4st"
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
Frames = NDArray[np.float32]
Errors = dict[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Example:
    """One window with its forecast, each (time, height, width), in units and cells of the data."""

    history: Frames
    forecast: Frames
    truth: Frames
    channel: str = "value"
    unit: str = ""
    step: float = 1.0
    time_unit: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class DatasetReport:
    """What was found on one data set; everything by the name of the forecaster, the model first."""

    name: str
    unit: str
    windows: int
    errors: dict[str, Errors]
    """MAE, RMSE and MAPE per cell: `overall`, and at each lead time (`per_lead_time`)."""
    seen: Seen
    example: Example | None = None
    seconds: float = 0.0
    """What the model took for all windows."""

    def value(self, metric: str, who: str = MODEL) -> float:
        """Return one figure over all lead times."""
        return self.errors[who]["overall"][metric]

    @property
    def best_naive(self) -> str:
        """Name of the naive forecast with the lowest MAE."""
        return min((who for who in self.errors if who != MODEL), key=lambda who: self.value("mae", who))

    def verdict(self) -> str:
        """Return in a sentence how the model does against the best naive forecast."""
        mine, naive = self.value("mae"), self.value("mae", self.best_naive)
        how = f"{100 * (1 - mine / naive):.0f} % below" if mine < naive else f"{100 * (mine / naive - 1):.0f} % above"
        best = f"the best naive forecast ({self.best_naive}, {naive:.4g})"
        return f"{self.name}: mae {mine:.4g}{_in(self.unit)}, {how} {best}"

    def data(self) -> dict[str, Any]:
        """Return everything as JSON values, the original's names for the headline among them."""
        return {
            "data_set": self.name, "unit": self.unit, "windows": self.windows, "errors": self.errors,
            "Real_MAE": self.value("mae"), "Real_RMSE": self.value("rmse"), "gate_weights": self.seen.gate_means(),
        }  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """What an evaluation found."""

    datasets: list[DatasetReport]
    facts: dict[str, Any]
    remarks: tuple[str, ...] = field(default=())

    @property
    def average(self) -> dict[str, float]:
        """Means over data sets, without weights, as the original reports them."""
        return {name: float(np.mean([found.value(metric) for found in self.datasets]))
                for name, metric in (("Real_MAE", "mae"), ("Real_RMSE", "rmse"))}  # fmt: skip

    def data(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"facts": self.facts, "data_sets": {found.name: found.data() for found in self.datasets},
                "Average": self.average, "remarks": list(self.remarks)}  # fmt: skip

    def timing(self) -> dict[str, float]:
        """Return the seconds that forecasts of each data set took; no function of the data, so not part of `data`."""
        return {found.name: round(found.seconds, 3) for found in self.datasets}

    def text(self) -> str:
        """Return the tables for a terminal."""
        blocks = [self.facts["protocol"]]
        for found in self.datasets:
            blocks += [f"{found.name}: {found.windows:,} windows", _aligned(_overall(found)), _aligned(_by_lead(found))]
        verdicts = [found.verdict() for found in self.datasets]
        return "\n\n".join([*blocks, "\n".join([*verdicts, *self.remarks])])


def evaluate(
    forecaster: Forecaster, sources: Sequence[Source], *, part: Part = "test", limit: int = 0, naive: bool = True
) -> Report:
    """Score a forecaster on a part of every source.

    Args:
        forecaster: the model.
        sources: data sets, on the scales of its training.
        part: which part of each.
        limit: windows of each at most, spread evenly; 0 takes all.
        naive: score naive forecasts beside it.

    Raises:
        UserError: there is no data set, or one of another grid.
    """
    if not sources:
        raise UserError("evaluate: no data set; expected at least one")
    found = [_evaluate_one(forecaster, forecaster.as_trained(source)[0], part, limit, naive) for source in sources]
    return Report(datasets=found, facts=_facts(forecaster, part))


def _evaluate_one(forecaster: Forecaster, source: Source, part: Part, limit: int, naive: bool) -> DatasetReport:
    batches = part_batches(source, part, size=forecaster.batch, limit=limit)
    rivals = fit_baselines(source) if naive else {}
    sums = {who: ErrorSums() for who in (MODEL, *rivals)}
    seen, order, seconds = Seen(), batches.order(), 0.0
    example: Example | None = None
    for at, ids in enumerate(order):
        batch = batches.load(0, ids)
        begun = time.perf_counter()
        forecast = _forecast(forecaster, source, batch, batches.ahead(ids), batches.finer(ids, source.space), seen)
        seconds += time.perf_counter() - begun
        native = batches.native(ids)
        truth = _on_grid(forecaster, source, native[:, source.shape.history :])
        sums[MODEL].add(forecast, truth)
        for who, rival in rivals.items():
            made = rival.predict(native[:, : source.shape.history].numpy(), batches.clock(ids),
                                 batch["channel"].numpy(), source.shape.horizon)  # fmt: skip
            sums[who].add(_on_grid(forecaster, source, torch.from_numpy(np.ascontiguousarray(made))), truth)
        if at == len(order) // 2:
            example = _example(source, native, int(batch["channel"][0]), forecast, truth, forecaster)
    errors = {who: {"overall": found.table(), "per_lead_time": found.by_lead()} for who, found in sums.items()}
    return DatasetReport(name=source.name, unit=_unit(source), windows=len(batches.samples) // len(source.channels),
                         errors=errors, seen=seen, example=example, seconds=seconds)  # fmt: skip


@torch.inference_mode()
def _forecast(
    forecaster: Forecaster, source: Source, batch: Batch, ahead: Clocks, finer: Tensor | None, seen: Seen
) -> Tensor:
    """Forecast a batch, in units, on the grid that errors are measured on."""
    made = forecaster.run(batch["x"], batch.get("timestamps"), watch=True)
    seen.add(made.seen)
    config = forecaster.config.evaluate
    return source.space.to_native(made.forecast.float().cpu(), batch["channel"], ahead,
                                  finer=carried(forecaster.model, finer), clamp=config.clamp,
                                  native=config.grid == "native")  # fmt: skip


def _on_grid(forecaster: Forecaster, source: Source, frames: Tensor) -> Tensor:
    """Return frames of the data on the grid that errors are measured on."""
    if forecaster.config.evaluate.grid == "native":
        return frames
    return source.space.resizing.to_model(frames, fill=float("nan"))


def _example(
    source: Source, native: Tensor, channel: int, forecast: Tensor, truth: Tensor, forecaster: Forecaster
) -> Example:
    """Return the first sample of a batch, with its units and time step in words."""
    history = _on_grid(forecaster, source, native[:1, : source.shape.history])
    name = source.channels[channel]
    step, unit = step_in_words(source.step_seconds)
    return Example(history=history[0].numpy(), forecast=forecast[0].numpy(), truth=truth[0].numpy(),
                   channel="value" if name.isdigit() else name, unit=_shown_unit(source, channel), step=step,
                   time_unit=unit)  # fmt: skip


def _shown_unit(source: Source, channel: int) -> str:
    """Return the unit of a channel, unless its name says it."""
    unit = source.units[channel] if source.units else ""
    return "" if unit == source.channels[channel] else unit


def step_in_words(seconds: int | None) -> tuple[float, str]:
    """Return the time between frames and its unit, as short as it can be said.

    >>> step_in_words(1800), step_in_words(None)
    ((30.0, 'min'), (1.0, ''))
    """
    if not seconds:
        return 1.0, ""
    return next((seconds / size, unit) for size, unit in UNITS if seconds >= size)


def _facts(forecaster: Forecaster, part: Part) -> dict[str, Any]:
    config = forecaster.config
    few = config.few_shot
    grid = "grid of the data" if config.evaluate.grid == "native" else "grid of the model"
    scale = "all parts" if config.data.scaler_fit == "all" else "the training part"
    setting = ""
    if few.target:
        chosen = "the target" if few.select_on == "target" else "the other data sets"
        setting = f"; {few.mode.replace('_', '-')}, weights chosen on the validation part of {chosen}"
    return {
        "protocol": f"{part} part: {forecaster.horizon} frames from the true {forecaster.history} before them, per "
        f"cell, in units, on the {grid}; range from {scale}{'; clamped to it' if config.evaluate.clamp else ''}; naive "
        f"forecasts from the training part alone{setting}",
        "part": part, "history": forecaster.history, "horizon": forecaster.horizon, "grid": config.evaluate.grid,
        "scaler_fit": config.data.scaler_fit, "clamp": config.evaluate.clamp, "ablation": config.ablation,
        "checkpoint": forecaster.facts.get("path", ""), "step": forecaster.facts.get("step"),
        "vlm4st": forecaster.facts.get("version"), "trained_on": list(forecaster.known),
    }  # fmt: skip


def _unit(source: Source) -> str:
    units = list(dict.fromkeys(source.units))
    return units[0] if len(units) == 1 else ""


def _in(unit: str) -> str:
    return f" {unit}" if unit else ""


def _overall(found: DatasetReport) -> list[list[str]]:
    metrics = next(iter(found.errors.values()))["overall"]
    unit = f" ({found.unit})" if found.unit else ""
    rows = [["", *found.errors]]
    for metric in metrics:
        words = metric if metric == "mape" else f"{metric} per cell{unit}"
        rows.append([words, *(_number(table["overall"][metric]) for table in found.errors.values())])
    return rows


def _by_lead(found: DatasetReport) -> list[list[str]]:
    leads = len(next(iter(found.errors.values()))["per_lead_time"]["mae"])
    rows = [["mae at lead time", *found.errors]]
    tables = [table["per_lead_time"]["mae"] for table in found.errors.values()]
    return rows + [[str(lead + 1), *(_number(table[lead]) for table in tables)] for lead in range(leads)]


def _number(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.4g}"


def _aligned(table: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    cells = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in table)
    return "\n".join("  ".join(line).rstrip() for line in cells)


def write_report(report: Report, path: Path) -> str:
    """Write a report as JSON and return where."""
    write_atomically(path, [to_json(report.data()).encode()])
    return str(path)


def command(options: EvaluateOptions) -> Outcome:
    """Do `vlm4st evaluate`."""
    run = Run(run_of(options.run))
    folder = options.out or run.folder
    if options.out is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected an existing one for --out")
    forecaster = Forecaster.load(options.run, backbone=options.backbone, device=options.device)
    sources, remarks = sources_for(options, forecaster)
    report = evaluate(forecaster, sources, part=options.part, limit=options.limit)
    report = Report(datasets=report.datasets, facts=report.facts, remarks=tuple(remarks))
    written = [write_report(report, folder / f"evaluation-{options.part}.json")]
    if options.figures:
        from vlm4st.drawing import draw_evaluation

        written += draw_evaluation(report, run, folder / "figures", cmap=options.cmap)
    data = {**report.data(), "seconds": report.timing(), "files": written}
    return Outcome("\n".join([report.text(), "", *written]), data)
