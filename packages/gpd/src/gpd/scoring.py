"""Forecasts of a table's nodes on windows of their city, a stretch at a time, and their error at the end of the few
days, by which trainings on these days are compared."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from gpd.models.configs import NodeTrainingConfig
from gpd.node_data import forecast
from gpd.rows import RowTable
from stcore.baselines_graphs import targets
from stcore.graph_windows import require_windows
from stcore.graphs import GraphSeries
from stcore.metrics.horizons import HorizonErrors

Forecasts = Float32[ndarray, "window horizon node"]
Starts = Int64[ndarray, "window"]
PIECE = 512
"""Windows that are forecast and scored at once."""


def forecasts_of(table: RowTable, series: GraphSeries, starts: Starts, *, device: str = "auto") -> Forecasts:
    """Return the forecasts of a table's nodes from some windows, in the units of the data."""
    made = forecast(table, series, starts=starts, device=device)
    return np.ascontiguousarray(np.asarray(made).transpose(0, 2, 1))


def pieces(starts: Starts) -> list[Starts]:
    """Return windows in stretches that are not too many at once."""
    return [starts[first : first + PIECE] for first in range(0, len(starts), PIECE)]


def tail_error(table: RowTable, few: GraphSeries, training: NodeTrainingConfig, device: str = "auto") -> float:
    """Return the error at the end of the few days, which training held back to choose its weights by.

    It is the one that chose the weights; without a choice, the mean absolute error of the forecasts.
    """
    if losses := [loss for loss in table.metadata["best_loss"] if loss is not None]:
        return float(np.mean(losses))
    model = table.model
    tail = few.slice(few.num_steps - max(round(training.tail * few.num_steps), model.history + model.horizon), None)
    errors = HorizonErrors()
    for some in pieces(require_windows(tail, model.history, model.horizon, what="end of the few days")):
        errors.add(forecasts_of(table, tail, some, device=device), targets(tail, some, model.history, model.horizon))
    return float(errors.summary()["mae"])
