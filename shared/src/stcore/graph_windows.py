"""Windows, parts and few-shot days of a series on a graph, by the clock: no window crosses a gap or a closed night."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from stcore.errors import UserError
from stcore.graphs import DAY_SECONDS, GraphSeries
from stcore.splits import Parts

SplitKind = Literal["gpd", "legacy", "chronological"]

_EARLY, _LATE = 0.3, 0.93
_MILLION = 10**6
_WHOLE_DAY = 0.9
"""Share of the steps of the fullest day that the first day of a part has to have."""


def window_starts(series: GraphSeries, history: int, horizon: int, stride: int = 1) -> Int64[ndarray, "window"]:
    """Return the first step of every window of `history` + `horizon` steps that lies within one run.

    Args:
        series: the series.
        history: steps that are given.
        horizon: steps after them that are forecast.
        stride: steps from one window to the next within a run.

    Raises:
        UserError: a length is below 1.

    >>> from stcore.graphs import Adjacency
    >>> series = GraphSeries(values=np.zeros((6, 1, 1)), adjacency=Adjacency.empty(1))
    >>> window_starts(series, 3, 2).tolist()
    [0, 1]
    """
    for name, value in (("history", history), ("horizon", horizon), ("stride", stride)):
        if value < 1:
            raise UserError(f"windows: {name} {value}; expected at least 1")
    starts = [np.arange(run.start, run.stop - history - horizon + 1, stride) for run in series.runs()]
    return np.concatenate([np.zeros(0, np.int64), *starts]).astype(np.int64)


def require_windows(
    series: GraphSeries, history: int, horizon: int, *, what: str = "part", stride: int = 1
) -> Int64[ndarray, "window"]:
    """Return the windows of `series`, or say that it is too short for any.

    Raises:
        UserError: no run is long enough.
    """
    starts = window_starts(series, history, horizon, stride)
    if not len(starts):
        longest = max((len(run) for run in series.runs()), default=0)
        raise UserError(
            f"{series.name or 'graph'}: {what} of {series.num_steps:,} steps, {longest:,} at most without a gap; "
            f"expected at least {history + horizon} for a window of {history} + {horizon}"
        )
    return starts


def few_shot(series: GraphSeries, days: int) -> GraphSeries:
    """Return the last `days` days of a part by the clock, counted back from its end in stretches of 24 hours.

    A stretch without a step, such as a Sunday that was cut out, is no day.

    Raises:
        UserError: the step is not known, or the part has fewer days.
    """
    if days < 1:
        raise UserError(f"days: {days}; expected at least 1")
    if series.step_seconds is None:
        raise UserError(f"{series.name or 'graph'}: time step not known; expected one to count days; pass --data.step "
                        "'5 minutes'")  # fmt: skip
    ages = _seconds_to_end(series) // DAY_SECONDS
    present, counts = np.unique(ages, return_counts=True)
    full = _full_days(series, counts)
    if full < days:
        raise UserError(
            f"{series.name or 'graph'}: {series.num_steps:,} steps hold {full} days; expected at least {days}; "
            "pass fewer --days"
        )
    return series.slice(int(np.flatnonzero(ages <= present[days - 1])[0]), None)


def _full_days(series: GraphSeries, counts: Int64[ndarray, "day"]) -> int:
    """Return how many of the stretches of 24 hours, of which the last is the first in time, are days."""
    step = series.step_seconds or 1
    if step < DAY_SECONDS and len(series.runs()) == 1:
        return series.num_steps * step // DAY_SECONDS
    # The first stretch may be cut off by the beginning of the part; then it is no day either.
    cut_off = len(counts) > 0 and counts[-1] < _WHOLE_DAY * counts.max()
    return len(counts) - int(cut_off)


def _seconds_to_end(series: GraphSeries) -> Int64[ndarray, "time"]:
    """Return how long before the end of the part each step ends, in seconds."""
    step = series.step_seconds or 1
    if series.times is None:
        return (series.num_steps - 1 - np.arange(series.num_steps, dtype=np.int64)) * step
    if not series.num_steps:
        return np.zeros(0, np.int64)
    return (series.times[-1] - series.times).astype(np.int64)


def split_graph(series: GraphSeries, kind: SplitKind = "gpd") -> Parts[GraphSeries]:
    """Cut a series into train, val and test along time.

    Args:
        series: the whole series.
        kind: `gpd` tests on the first 30 % of the time, trains on the last 70 % but its own last tenth, which chooses
            the model; `legacy` is the original's: the last 70 % of the rows train, the first 30 % choose and test, and
            nothing is left to choose on; `chronological` is 70, 10 and 20 % forward in time.

    Raises:
        UserError: the series is too short for three parts.
    """
    count = series.num_steps
    if kind == "legacy":
        first = int(count * _EARLY)
        parts = Parts(series.slice(first, None), series.slice(0, 0), series.slice(0, first))
    elif kind == "gpd":
        first, late = _row_at(series, _EARLY), _row_at(series, _LATE)
        parts = Parts(series.slice(first, late), series.slice(late, None), series.slice(0, first))
    else:
        first, late = _row_at(series, 0.7), _row_at(series, 0.8)
        parts = Parts(series.slice(0, first), series.slice(first, late), series.slice(late, None))
    empty = [name for name, part in parts.named().items() if not len(part) and not (kind == "legacy" and name == "val")]
    if empty:
        raise UserError(f"{series.name or 'graph'}: {count:,} steps; expected enough for train, val and test; "
                        f"{empty[0]} has none")  # fmt: skip
    return parts


def _row_at(series: GraphSeries, share: float) -> int:
    """Return the first step that does not end before a share of the time from the first step to the last has passed."""
    millionths = round(share * _MILLION)
    if series.times is None or series.step_seconds is None:
        return series.num_steps * millionths // _MILLION
    ends = (series.times - series.times[0]).astype(np.int64) + series.step_seconds if series.num_steps else np.zeros(0)
    passed = int(ends[-1]) * millionths // _MILLION if series.num_steps else 0
    return int(np.searchsorted(ends, passed, side="right"))
