"""Figures of an evaluation and of a forecast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpd.report import (
    AVERAGE,
    FINETUNED,
    GENERATED,
    MEAN,
    NAIVE,
    NEAREST,
    SCRATCH,
    TUNED,
    Report,
    duration,
)
from stcore import figures, figures_graphs
from stcore.baselines_graphs import HistoricalAverage, targets
from stcore.graph_windows import window_starts
from stcore.graphs import GraphSeries

if TYPE_CHECKING:
    from gpd.evaluate import Rows
    from gpd.pipeline import Pipeline
    from gpd.predict import Forecast

CURVES = (FINETUNED, GENERATED, SCRATCH, NEAREST + TUNED, MEAN + TUNED, *NAIVE)
"""Forecasters of the figure by horizon; the others are in the table."""
DRAWN_DAYS = 3
"""Days of the forecasts that are drawn, at most."""


def draw_evaluation(
    pipeline: Pipeline, rows: Rows, report: Report, folder: Path, *, nodes: tuple[str, ...] = ()
) -> list[str]:
    """Draw error by horizon, error of each node, generated against source rows, and forecasts of a few nodes.

    Args:
        pipeline: the run.
        rows: what was compared.
        report: what was found.
        folder: where the figures go.
        nodes: whose forecasts are drawn; empty takes the best, the usual and the worst.
    """
    folder.mkdir(parents=True, exist_ok=True)
    city, minutes = pipeline.target.series, report.step_minutes or 0.0
    curves = {name: report.errors[name].mae() for name in CURVES if name in report.errors}
    drawn = {
        "error-by-horizon": figures_graphs.error_by_horizon(
            curves, step_minutes=minutes, unit=report.unit, title=f"Mean absolute error in {city.name}"
        ),
        "error-per-node": figures_graphs.node_map(
            report.errors[report.model].mae_per_node(), city.adjacency, coordinates=city.coordinates,
            degrees=city.degrees, unit=report.unit, title=f"Error at each node, {report.model}",
        ),
        "forecasts": _forecasts(pipeline, rows, report, nodes),
    }  # fmt: skip
    if rows.memorised is not None:
        drawn["memorisation"] = figures_graphs.nearest_row_distances(
            np.asarray(rows.memorised.generated, dtype=np.float64), np.asarray(rows.memorised.sources, dtype=np.float64)
        )
    if (rival := _rival(report)) is not None:
        gain = report.errors[rival].mae_per_node() - report.errors[report.model].mae_per_node()
        drawn["gain-per-node"] = figures_graphs.node_map(
            gain, city.adjacency, coordinates=city.coordinates, degrees=city.degrees, unit=report.unit, signed=True,
            title=f"How much smaller the error is than {rival}",
        )  # fmt: skip
    written = [str(figures.save_figure(figure, folder / f"{name}.png")) for name, figure in drawn.items()]
    if pipeline.run.metrics_file.is_file():
        training = figures.training_curves(pipeline.run.metrics_file, title="Training of the diffusion model")
        written.append(str(figures.save_figure(training, folder / "training.png")))
    return written


def draw_forecast(series: GraphSeries, forecast: Forecast, path: Path) -> str:
    """Draw the last forecast of at most four nodes behind what came before it, and return the path."""
    history = min(series.num_steps, 4 * forecast.values.shape[1])
    places = {node: number for number, node in enumerate(series.nodes)}
    chosen = [forecast.nodes[number] for number in _spread(len(forecast.nodes), 4)]
    horizon = forecast.values.shape[1]
    past = series.values[-history:, :, 0][:, [places[node] for node in chosen]]
    blank = np.full((horizon, len(chosen)), np.nan, np.float32)
    columns = [forecast.nodes.index(node) for node in chosen]
    # The last reading is drawn as the start of the forecast, so that the two lines meet.
    ahead = np.concatenate([np.full((history - 1, len(chosen)), np.nan, np.float32), past[-1:],
                            forecast.values[-1][:, columns]])  # fmt: skip
    times = None
    if series.times is not None and forecast.times is not None:
        times = np.concatenate([series.times[-history:], forecast.times[-1]])
    figure = figures_graphs.node_forecasts(
        _double(np.concatenate([past, blank])), {"forecast": _double(ahead)}, names=chosen, times=times,
        unit=forecast.unit, title=f"What follows in {forecast.city}",
    )  # fmt: skip
    return str(figures.save_figure(figure, path))


def _rival(report: Report) -> str | None:
    """Return the forecaster that the map of gains compares with: training from scratch, else the usual day."""
    return next((name for name in (SCRATCH, AVERAGE) if name in report.errors and name != report.model), None)


def _forecasts(pipeline: Pipeline, rows: Rows, report: Report, nodes: tuple[str, ...]) -> Any:
    """Draw forecasts of the last step ahead at a few nodes, over the first days of the test part."""
    from gpd.scoring import forecasts_of

    target, model = pipeline.target, pipeline.config.model
    starts = _stretch(target.test, model.history, model.horizon)
    chosen = [report.nodes.index(node) for node in nodes] or _typical(report)
    other = SCRATCH if SCRATCH in rows.tables else GENERATED
    made = {name: forecasts_of(rows.tables[name], target.test, starts, device=pipeline.device)[:, -1]
            for name in (other, FINETUNED)}  # fmt: skip
    usual = HistoricalAverage.fit(target.few).predict(target.test, starts, model.history, model.horizon)[:, -1]
    truth = targets(target.test, starts, model.history, model.horizon)[:, -1]
    times = None if target.test.times is None else target.test.times[starts + model.history + model.horizon - 1]
    ahead = duration(model.horizon * report.step_minutes) if report.step_minutes else f"{model.horizon} steps"
    return figures_graphs.node_forecasts(
        _double(truth[:, chosen]),
        {name: _double(found[:, chosen]) for name, found in {AVERAGE: usual, **made}.items()},
        names=[report.nodes[node] for node in chosen], times=times, ahead=ahead, unit=report.unit,
        title=f"Forecasts for {target.name} and what came",
    )  # fmt: skip


def _stretch(test: GraphSeries, history: int, horizon: int) -> NDArray[np.int64]:
    """Return the windows of the longest stretch without a gap, of a few days at most."""
    longest = max(test.runs(), key=len)
    steps = DRAWN_DAYS * test.steps_per_day if test.step_seconds else len(longest)
    starts = window_starts(test, history, horizon)
    return starts[(starts >= longest.start) & (starts < min(longest.stop, longest.start + steps))]


def _typical(report: Report) -> list[int]:
    """Return the node with the smallest error of the model, the one in the middle, and the one with the largest."""
    errors = report.errors[report.model].mae_per_node()
    order = [int(node) for node in np.argsort(errors) if np.isfinite(errors[node])]
    return [order[place] for place in _spread(len(order), 3)]


def _spread(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _double(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
