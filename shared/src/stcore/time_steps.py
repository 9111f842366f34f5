"""The step of a series of moments, counted by the calendar where months or years are meant, and where steps miss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Stamps = NDArray[np.datetime64]
Integers = NDArray[np.int64]

_TOLERANCE = 0.1
"""Share of a step that one may be longer or shorter and still count as one."""


def _steps(times: Stamps, clip: Integers) -> tuple[NDArray[np.float64], str, NDArray[np.bool_]]:
    """Return the steps, their unit (months where all moments lie alike in theirs), and which of them stay in a clip."""
    inside = np.diff(clip) == 0
    months = times.astype("datetime64[M]")
    within = times - months.astype("datetime64[us]")
    by_month = np.diff(months).astype(np.float64)
    if len(times) > 1 and (within == within[0]).all() and (by_month[inside] > 0).all():
        return by_month, "M", inside
    return np.diff(times.astype("datetime64[us]")).astype(np.float64), "us", inside


def step_of(times: Stamps, clip: Integers) -> np.timedelta64 | None:
    """Return the usual time between frames of a clip, their median; none when no clip has two frames."""
    steps, unit, within = _steps(times, clip)
    if not within.any():
        return None
    usual = round(float(np.median(steps[within])))
    if unit == "M" and usual % 12 == 0:
        return np.timedelta64(usual // 12, "Y")
    return np.timedelta64(usual, "M") if unit == "M" else np.timedelta64(usual, "us")


def breaks(times: Stamps, clip: Integers) -> Integers:
    """Return the frames that do not follow the frame before them by one step, within a clip.

    >>> breaks(np.array(["2020-01-01", "2020-02-01", "2020-03-01", "2020-05-01"], "M8[us]"), np.zeros(4, np.int64))
    array([3])
    """
    steps, _, within = _steps(times, clip)
    if not within.any():
        return np.zeros(0, dtype=np.int64)
    usual = float(np.median(steps[within]))
    return np.flatnonzero((np.abs(steps - usual) > _TOLERANCE * usual) & within) + 1


def step_words(step: np.timedelta64 | None) -> str:
    """Return a step in words.

    >>> step_words(np.timedelta64(1800, "s")), step_words(np.timedelta64(1, "M")), step_words(None)
    ('30 minutes', '1 months', 'unknown')
    """
    if step is None:
        return "unknown"
    unit = np.datetime_data(step.dtype)[0]
    if unit in ("M", "Y"):
        return f"{step.astype(int)} {'months' if unit == 'M' else 'years'}"
    micros = int(step.astype("timedelta64[us]").astype(np.int64))
    for name, size in (("days", 86_400_000_000), ("hours", 3_600_000_000), ("minutes", 60_000_000)):
        if micros and micros % size == 0:
            return f"{micros // size} {name}"
    return f"{micros / 1e6:g} seconds"
