"""How the series of a node behaves, in facts that mean the same in every city, whatever its step and its units.

Everything is counted by the clock: hours of the day, lags in hours, frequencies in cycles per day. What cannot be
known from the days at hand (a weekend, a lag of a day, fast changes of a slow series) is left open (NaN) and becomes
the mean of the source cities.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray
from numpy.typing import NDArray

from gpd.prompts.cities import Cities, clock, observed, weekend
from gpd.prompts.configs import TemporalPromptConfig
from gpd.prompts.scaling import fitted, principal, standardise
from stcore.graphs import DAY_SECONDS, GraphSeries

HOURS = 24
LAGS = (1, 2, 3, 6, 12, 24)
"""Hours after which the series is compared with itself."""
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
BANDS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 18, 26, 36, 52, 72, 102, 144, 721)
"""Where bands of frequencies begin (cycles per day), and where the last ends."""
FEWEST = 8
"""Pairs of moments below which no correlation is computed."""

Series = Float64[ndarray, "time node"]
Facts = Float64[ndarray, "node fact"]


def profile_prompts(cities: Cities, config: TemporalPromptConfig, seed: int) -> Float64[ndarray, "row dim"]:
    """Return the prompts of all nodes: facts, scaled and turned to the principal components of the sources."""
    native = config.level == "native" or (config.level == "auto" and _same_units(cities))
    facts = np.concatenate([behaviour(city, native_level=native) for city in cities.series])
    return fitted(principal(standardise(facts, cities.source_rows), cities.source_rows, config.dim), config.dim)


def behaviour(series: GraphSeries, *, native_level: bool = False) -> Facts:
    """Return all facts about each node of a city; NaN where one is not known."""
    values = observed(series)
    mean, deviation = moments(values)
    scaled = (values - mean) / deviation
    seconds = clock(series)
    parts = [
        *_by_hour(scaled, seconds, weekend(series)),
        _correlations(scaled, seconds, series.step_seconds),
        _powers(scaled, seconds, series.step_seconds),
        _quantiles(scaled),
        np.isnan(values).mean(0)[:, None],
        _level(mean, deviation, native=native_level),
    ]
    return np.concatenate(parts, axis=1)


def daily_profile(series: GraphSeries) -> Float64[ndarray, "node hour"]:
    """Return the scaled mean at each hour of the day; 0, the mean of all hours, where an hour was not seen."""
    values = observed(series)
    mean, deviation = moments(values)
    seconds = clock(series)
    return np.nan_to_num(_group_means((values - mean) / deviation, _hour(seconds, len(values)), HOURS).T)


def moments(values: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and deviation of each node over what is known; a deviation of 0 becomes 1."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, values, 0.0).sum(0) / count
    deviation = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(0) / count)
    return mean, np.where(deviation > 1e-12, deviation, 1.0)


def _hour(seconds: NDArray[np.int64] | None, length: int) -> NDArray[np.int64]:
    """Return the hour of each row; -1, no hour, where there is no clock or a step is longer than a day."""
    return np.full(length, -1) if seconds is None else seconds % DAY_SECONDS // 3600


def _group_means(values: Series, group: NDArray[np.int64], groups: int) -> Float64[ndarray, "group node"]:
    """Return means over rows of each group, with NaN where a group has none that is known."""
    member = (np.arange(groups)[:, None] == group).astype(np.float64)
    known = np.isfinite(values)
    count = member @ known.astype(np.float64)
    sums = member @ np.where(known, values, 0.0)
    return np.where(count > 0.0, sums / np.maximum(count, 1.0), np.nan)


def _by_hour(scaled: Series, seconds: NDArray[np.int64] | None, off: Bool[ndarray, " time"] | None) -> list[Facts]:
    """Return mean and deviation at each hour, what weekends change, and the share that the hour explains."""
    hour = _hour(seconds, len(scaled))
    mean = _group_means(scaled, hour, HOURS)
    square = _group_means(scaled**2, hour, HOURS)
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    change = np.full_like(mean, np.nan)
    if off is not None:
        kinds = [_group_means(scaled, np.where(which, hour, -1), HOURS) for which in (off, ~off)]
        change = kinds[0] - kinds[1]
    known = np.isfinite(mean)
    explained = np.where(known, mean, 0.0) ** 2
    share = np.where(known.any(0), explained.sum(0) / np.maximum(known.sum(0), 1), np.nan)
    return [mean.T, deviation.T, change.T, share[:, None]]


def _correlations(scaled: Series, seconds: NDArray[np.int64] | None, step: int | None) -> Facts:
    """Return the correlation of each node with itself some hours later, by the clock: gaps are not stepped over."""
    found = np.full((len(LAGS), scaled.shape[1]), np.nan)
    if seconds is None or step is None:
        return found.T
    for place, hours in enumerate(LAGS):
        lag = 3600 * hours
        later = np.minimum(np.searchsorted(seconds, seconds + lag), len(seconds) - 1)
        pairs = np.flatnonzero(seconds[later] == seconds + lag) if lag % step == 0 else np.zeros(0, np.int64)
        product = scaled[pairs] * scaled[later[pairs]]
        count = np.isfinite(product).sum(0)
        sums = np.where(np.isfinite(product), product, 0.0).sum(0)
        found[place] = np.where(count >= FEWEST, np.clip(sums / np.maximum(count, 1), -1.0, 1.0), np.nan)
    return found.T


def _powers(scaled: Series, seconds: NDArray[np.int64] | None, step: int | None) -> Facts:
    """Return the logarithm of the share of power in each band, averaged over single days."""
    found = np.full((scaled.shape[1], len(BANDS) - 1), np.nan)
    if seconds is None or step is None or DAY_SECONDS % step or step * 2 > DAY_SECONDS or not len(scaled):
        return found
    days = _in_days(scaled, seconds, step)
    power = (np.abs(np.fft.rfft(days - days.mean(1, keepdims=True), axis=1)) ** 2).mean(0)
    total = np.maximum(power[1:].sum(0), 1e-12)
    for band, (first, end) in enumerate(pairwise(BANDS)):
        if first < len(power):
            found[:, band] = np.log(power[first:end].sum(0) / total + 1e-6)
    return found


def _in_days(scaled: Series, seconds: NDArray[np.int64], step: int) -> Float64[ndarray, "day step node"]:
    """Return the calendar days but short ones; what is missing of them is 0, the mean."""
    number, day = np.unique(seconds // DAY_SECONDS, return_inverse=True)
    within = seconds % DAY_SECONDS // step
    days = np.zeros((len(number), DAY_SECONDS // step, scaled.shape[1]))
    days[day, within] = np.nan_to_num(scaled)
    return days[whole_days(day)]


def whole_days(day: NDArray[np.int64]) -> Bool[ndarray, " day"]:
    """Return which days have at least half as many rows as the fullest: nights may be closed, ends cut off.

    >>> whole_days(np.array([0, 1, 1, 1, 2, 2])).tolist()
    [False, True, True]
    """
    rows = np.bincount(day)
    return rows >= rows.max() / 2


def _quantiles(scaled: Series) -> Facts:
    """Return quantiles of what is known; NaN for a node without anything."""
    count = np.isfinite(scaled).sum(0)
    ordered = np.sort(scaled, axis=0)  # NaN comes last
    place = np.array(QUANTILES)[:, None] * np.maximum(count - 1, 0)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    lower, upper = (np.take_along_axis(ordered, index, axis=0) for index in (low, high))
    return (lower + (place - low) * (upper - lower)).T


def _level(mean: NDArray[np.float64], deviation: NDArray[np.float64], *, native: bool) -> Facts:
    if native:
        return np.column_stack([mean, deviation])
    spread = mean.std() or 1.0
    return np.column_stack([(mean - mean.mean()) / spread, np.log(deviation / deviation.mean())])


def _same_units(cities: Cities) -> bool:
    units = {tuple(city.units)[:1] for city in cities.series}
    return len(units) == 1 and units not in ({()}, {("",)})
