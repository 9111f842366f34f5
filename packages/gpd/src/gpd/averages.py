"""Averages by time of day: what forecasts are deviations from, and how far chance has bent them.

The fewer days are known, the more of an average is chance, and the forecast of a deviation inherits it. Chance differs
from one time of day to the next where the rhythm itself does not: so a network that is told how far each average lies
off those beside it can take part of the error back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from numpy.typing import NDArray
from torch import Tensor

from stcore.graphs import GraphSeries

BESIDE = 2
"""Times of day on either side that an average is compared with."""

Averages = Float64[ndarray, "day slot node"]


def day_averages(series: GraphSeries) -> Float[Tensor, "node slot"]:
    """Return the mean of channel 0 of each node by time of day; a time that never occurs lies between those around."""
    sums, counts = (found.sum(axis=0) for found in _by_day(series))
    return torch.from_numpy(_means(sums, counts).T.copy())


def other_days(series: GraphSeries, days: int = 0) -> Averages:
    """Return for each day of a series (of a single one: for all) the averages by time of day over other days.

    An average that holds the reading itself makes deviations smaller than those from a coming day will be, the more so
    the fewer days there are. Of a single day, the mean of the readings within an hour of each stands in, which is good
    for scales and for nothing else: it knows what comes next.

    Args:
        series: the series.
        days: how many other days, those that follow, begun again at the end; 0 takes all.
    """
    sums, counts = _by_day(series)
    if num_days(series) == 1:
        hour, whole = max(series.steps_per_day // 24, BESIDE), (sums.sum(axis=0)[None], counts.sum(axis=0)[None])
        sums, counts = (_beside(found, hour) - found for found in whole)
        return _means(sums, counts)
    return _means(_others(sums, days), _others(counts, days))


def believed(averages: Averages, series: GraphSeries, share: float) -> Averages:
    """Return averages that believe a share of the daily course: the rest is the mean over the times of day that occur.

    Where readings have no rhythm, as wind has little, averages by time of day of a few days are nothing but chance.
    """
    if share == 1.0:
        return averages
    mean = averages[:, np.unique(series.step_of_day())].mean(axis=1, keepdims=True)
    return mean + share * (averages - mean)


def unevenness(averages: Averages) -> Averages:
    """Return by how much each average is above the mean of itself and those beside it, in native units."""
    return averages - _beside(averages, BESIDE) / (2 * BESIDE + 1)


def _beside(values: NDArray[Any], reach: int) -> NDArray[Any]:
    """Return sums over each time of day and those beside it, `reach` on either side."""
    return np.sum([np.roll(values, step, axis=1) for step in range(-reach, reach + 1)], axis=0)


def at_steps(averages: Averages, series: GraphSeries, ahead: int = 0) -> Float64[ndarray, "time node"]:
    """Return what holds for each step of a series, or for the time of day that comes `ahead` steps later.

    Args:
        averages: by day of the series, or for all of its days alike (one day).
        series: the series.
        ahead: steps, less than a day.
    """
    slots = series.step_of_day() + ahead
    days = _days(series) + slots // series.steps_per_day
    return averages[np.minimum(days, len(averages) - 1), slots % series.steps_per_day]


def num_days(series: GraphSeries) -> int:
    """Return how often a time of day occurs in a series, at most: 24 hours are one day, wherever they begin."""
    return int(np.bincount(series.step_of_day()).max(initial=0))


def _days(series: GraphSeries) -> Int64[ndarray, " time"]:
    return np.unique(series.day_number(), return_inverse=True)[1]


def _by_day(series: GraphSeries) -> tuple[Averages, Int64[ndarray, "day slot node"]]:
    """Return sum and number of the readings of each node by day and time of day."""
    days, known = _days(series), series.known[:, :, 0]
    values = np.where(known, np.nan_to_num(series.values[:, :, 0].astype(np.float64)), 0.0)
    shape = (int(days.max(initial=0)) + 1, series.steps_per_day, series.num_nodes)
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    np.add.at(sums, (days, series.step_of_day()), values)
    np.add.at(counts, (days, series.step_of_day()), known)
    return sums, counts


def _others(values: NDArray[Any], days: int) -> NDArray[Any]:
    if 0 < days < len(values) - 1:
        return np.sum([np.roll(values, -ahead, axis=0) for ahead in range(1, days + 1)], axis=0)
    return values.sum(axis=0) - values


def _means(sums: Float64[ndarray, "*day slot node"], counts: Int64[ndarray, "*day slot node"]) -> Any:
    """Divide; a time of day without readings takes what lies on the line between those around it, across midnight."""
    found = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    some = (counts > 0).any(axis=-2)
    incomplete = some & (counts == 0).any(axis=-2)
    columns, known = np.moveaxis(found, -2, -1), np.moveaxis(counts > 0, -2, -1)
    slots = np.arange(sums.shape[-2])
    for place in zip(*np.nonzero(incomplete), strict=True):
        there = known[place]
        columns[place] = np.interp(slots, slots[there], columns[place][there], period=len(slots))
    return found
