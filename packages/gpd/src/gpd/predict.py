"""Forecasts from the node models of a run: the interface people use.

>>> from gpd import Forecaster, GraphSeries                              # doctest: +SKIP
>>> forecaster = Forecaster.load("runs/mine")                            # doctest: +SKIP
>>> forecaster.predict(GraphSeries.read("newest.npz"))                   # doctest: +SKIP
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64, Shaped
from numpy import ndarray

from gpd.data import read_city, training_part
from gpd.node_data import forecast, table_for
from gpd.options import PredictOptions, stage_config
from gpd.pipeline import Pipeline
from gpd.rows import RowTable
from gpd.stage_files import ROWS, kept_cities
from stcore.cli import Outcome, run_of
from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.graph_windows import window_starts
from stcore.graphs import GraphSeries
from stcore.tables import check_table_path, write_table
from stcore.training.run import Run

ENDINGS = (".csv", ".parquet", ".npz")
Which = Literal["auto", "finetune", "generate", "pretrain"]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What comes, for each node of a city, with names and times."""

    values: Float32[ndarray, "forecast horizon node"]
    """In the units of the data."""
    nodes: tuple[str, ...]
    city: str
    unit: str
    steps: Int64[ndarray, "forecast horizon"]
    """Number of each forecast step in the series, which may lie beyond its end."""
    times: Shaped[ndarray, "forecast horizon"] | None
    """Moment of each forecast step; none where the series has no clock."""

    def write(self, path: Path) -> None:
        """Write a table (.csv, .parquet) of one row for each node and step, or arrays (.npz).

        Raises:
            UserError: another ending, or it cannot be written.
        """
        if path.suffix == ".npz":
            known: dict[str, Any] = (
                {} if self.times is None else {"times": self.times.astype("datetime64[s]").astype(np.int64)}
            )
            buffer = io.BytesIO()
            np.savez(buffer, values=self.values, steps=self.steps, nodes=np.array(self.nodes), unit=np.array(self.unit),
                     city=np.array(self.city), **known)  # fmt: skip
            write_atomically(path, [buffer.getbuffer()])
            return
        write_table(path, self._pieces())

    def _pieces(self) -> Iterator[dict[str, Any]]:
        horizon, count = self.values.shape[1:]
        for number, values in enumerate(self.values):
            moments: dict[str, Any] = {"step": np.repeat(self.steps[number], count)}
            if self.times is not None:
                moments["time"] = np.repeat(self.times[number].astype("datetime64[s]"), count)
            yield {
                "forecast": np.full(horizon * count, number), **moments,
                "ahead": np.repeat(np.arange(1, horizon + 1), count), "city": [self.city] * (horizon * count),
                "node": list(self.nodes) * horizon, "value": values.reshape(-1),
                "unit": [self.unit] * (horizon * count),
            }  # fmt: skip


class Forecaster:
    """Node models of a city, as a run has them.

    Args:
        table: one row for each node, with its scale.
        device: `auto`, `cpu` or `cuda`.
    """

    def __init__(self, table: RowTable, *, device: str = "auto") -> None:
        self.table, self.device = table, device

    @classmethod
    def load(cls, run: Path | str, *, rows: Which = "auto", city: str = "", device: str = "auto") -> Forecaster:
        """Load the node models of a run: fine-tuned ones, else generated ones, else those of its sources.

        Args:
            run: the run.
            rows: which models; `auto` takes the first that there are.
            city: whose; needed for those of the sources, where there are several.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            UserError: there are none, or not of that city.
        """
        folder = run_of(Path(run))
        Run.reopen(folder)
        known = tables_of(folder, rows)
        tables = [table.of(city) if city else table for table in known]
        found = [table for table in tables if len(table)]
        if not found:
            cities = sorted({name for table in known for name in table.cities})
            what = f"no city {city!r} among {', '.join(cities)}" if cities else f"no {_words(rows)} yet"
            raise UserError(f"{folder}: {what}; expected a run that has come so far; go on with gpd run --resume "
                            f"{folder}")  # fmt: skip
        cities = tuple(dict.fromkeys(found[0].cities))
        if len(cities) > 1:
            raise UserError(f"{folder}: node models of {', '.join(cities)}; expected the name of one of them as city")
        return cls(found[0], device=device)

    @classmethod
    def for_city(cls, run: Path | str, series: GraphSeries, *, rows: Which = "auto", device: str = "auto",
                 seed: int | None = None) -> Forecaster:  # fmt: skip
        """Load the models of a city's nodes, by their names; generate them where the run has none.

        Args:
            run: the run.
            series: the city; for generation, the days that are known of it.
            rows: which models; `auto` takes the first that fit, then generates.
            device: `auto`, `cpu` or `cuda`.
            seed: of the generation; none takes that of the run.

        Raises:
            UserError: the run has none, and cannot generate any.
        """
        folder = run_of(Path(run))
        Run.reopen(folder)
        for table in tables_of(folder, rows):
            if (fitting := matched(table, series)) is not None:
                return cls(fitting, device=device)
        if rows != "auto":
            raise UserError(f"{folder}: no {_words(rows)} for all nodes of {series.name}; expected their names; leave "
                            "out --rows to generate them")  # fmt: skip
        return cls(generated_for(folder, series, device=device, seed=seed), device=device)

    @property
    def history(self) -> int:
        """Steps that are needed."""
        return self.table.model.history

    @property
    def horizon(self) -> int:
        """Steps that are forecast."""
        return self.table.model.horizon

    def predict(self, series: GraphSeries, *, at: Literal["last", "every"] = "last") -> Forecast:
        """Forecast the steps that follow.

        Args:
            series: the past of the city; its nodes are found by their names, and may be in any order.
            at: `last` for what follows the end, `every` for what follows each window.

        Raises:
            UserError: a node is not there, or the series is shorter than the history.
        """
        starts = window_starts(series, self.history, 1)
        ends = np.array([run.stop - self.history for run in series.runs()[-1:]], dtype=np.int64)
        if not len(ends) or ends[0] < series.runs()[-1].start:
            found = len(series.runs()[-1]) if len(series) else 0
            raise UserError(f"{series.name or 'series'}: {found} steps since the last gap; expected at least "
                            f"{self.history}, the history of the model")  # fmt: skip
        starts = ends if at == "last" else np.union1d(starts, ends)
        longer = _with_blank(series, self.horizon)
        values = np.asarray(forecast(self.table, longer, starts=starts, device=self.device)).transpose(0, 2, 1)
        steps = starts[:, None] + self.history + np.arange(self.horizon)
        return Forecast(
            values=np.ascontiguousarray(values), nodes=self.table.nodes, city=series.name,
            unit=series.units[0] if series.units else "", steps=steps + series.first_step,
            times=_times(series, starts + self.history - 1, self.horizon),
        )  # fmt: skip


def tables_of(folder: Path, rows: Which) -> list[RowTable]:
    """Return the tables of a run that hold such rows, those closest to the target first."""
    stages = ("finetune", "generate", "pretrain") if rows == "auto" else (rows,)
    # Those of the sources city by city: days of different steps have no averages in common.
    places = [file for stage in stages for file in sorted((folder / stage).glob(f"*/{ROWS}" if stage == "pretrain"
              else ROWS))]  # fmt: skip
    return [RowTable.read(file) for file in places]


def matched(table: RowTable, series: GraphSeries) -> RowTable | None:
    """Return the rows of a city's nodes in their order; none unless every node has one."""
    places = {node: row for row, node in enumerate(table.nodes)}
    if set(table.cities) != {series.name} or not all(node in places for node in series.nodes):
        return None
    return table.take([places[node] for node in series.nodes])


def generated_for(folder: Path, series: GraphSeries, *, device: str, seed: int | None) -> RowTable:
    """Generate the models of an unknown city in memory, from what is known of it."""
    from gpd.generate import generate
    from gpd.prompts import compute_prompts
    from stcore.training.starting import weights_file

    config = stage_config(folder)
    weights = weights_file(folder)
    pipeline = Pipeline.open(folder, config, device=device)
    parts = [training_part(city, config) for city in pipeline.sources if city.name != series.name]
    prompts = compute_prompts(parts, series, config.spatial, config.temporal, config.seed).of(series.name)
    rows = generate(weights, prompts, config.sampling, config.seed if seed is None else seed, device=device)
    return table_for(series, rows, config.model, config.finetune.statistics)


def _with_blank(series: GraphSeries, steps: int) -> GraphSeries:
    """Return a series that goes on for some steps without readings."""
    blank = np.full((steps, *series.shape[1:]), np.nan, np.float32)
    times = series.times
    if times is not None:
        ahead = np.arange(1, steps + 1) * np.timedelta64(series.step_seconds or 1, "s")
        times = np.concatenate([times, times[-1] + ahead])
    known = None if series.valid is None else np.concatenate([series.valid, np.zeros(blank.shape, np.bool_)])
    return replace(series, values=np.concatenate([series.values, blank]), valid=known, times=times)


def _times(
    series: GraphSeries, last: Int64[ndarray, "forecast"], horizon: int
) -> Shaped[ndarray, "forecast horizon"] | None:
    if series.times is None or series.step_seconds is None:
        return None
    ahead = np.arange(1, horizon + 1) * np.timedelta64(series.step_seconds, "s")
    return series.times[last][:, None] + ahead[None]


def _words(rows: Which) -> str:
    names = {"finetune": "fine-tuned node models", "generate": "generated node models",
             "pretrain": "node models of source cities", "auto": "node models"}  # fmt: skip
    return names[rows]


def command(options: PredictOptions) -> Outcome:
    """Do `gpd predict`: a file of forecasts, and a picture of a few nodes beside it."""
    if options.out.suffix not in ENDINGS:
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected {', '.join(ENDINGS)}")
    if options.out.suffix != ".npz":
        check_table_path(options.out)
    elif not options.out.parent.is_dir():
        raise UserError(f"{options.out}: folder {options.out.parent} does not exist; expected an existing one")
    folder = run_of(options.run)
    series = _series(options, folder)
    forecaster = Forecaster.for_city(folder, series, rows=options.rows, device=options.device, seed=options.seed)
    found = forecaster.predict(series, at=options.at)
    found.write(options.out)
    written = [str(options.out)]
    if options.figures:
        from gpd.drawing import draw_forecast

        written.append(draw_forecast(series, found, options.out.with_suffix(".png")))
    forecasts, horizon, nodes = found.values.shape
    text = f"{forecasts:,} forecasts of {horizon} steps for {nodes} nodes of {series.name} in {', '.join(written)}"
    data = {"files": written, "forecasts": forecasts, "horizon": horizon, "nodes": nodes, "unit": found.unit}
    return Outcome(text, data)


def _series(options: PredictOptions, folder: Path) -> GraphSeries:
    """Return the city that is named, or the target of the run."""
    data = options.data
    if len(data.source) > 1:
        raise UserError(f"--data: {len(data.source)} cities; expected one to forecast for")
    if data.source:
        return read_city(data.source[0], data)
    config = stage_config(folder)
    if not config.data.target:
        raise UserError("--data: none, and the run has no target city; expected one to forecast for")
    kept = kept_cities(Run(folder))
    if config.data.target in kept:
        return kept[config.data.target]
    return Pipeline.open(folder, config).target.series
