"""One order of rows and columns for grids in degrees, and the way back to the order of the file.

Latitude rises. Longitudes join without a jump: a grid around the globe starts at its first meridian from 0 on, a region
across Greenwich goes on from negative to positive degrees instead of from 360 to 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.frame_stores import TurnedFrames
from stcore.grids import GridSeries, Turned

Degrees = NDArray[np.float64]


def is_latitude(name: str) -> bool:
    """Return whether rows of this name are latitudes in degrees."""
    return name.lower().startswith("lat")


def is_longitude(name: str) -> bool:
    """Return whether columns of this name are longitudes in degrees."""
    return name.lower().startswith("lon")


def rising_latitudes(y: Degrees) -> NDArray[np.int64]:
    """Return the order of rows in which latitude rises, as they are where they neither rise nor fall throughout."""
    falls = len(y) > 1 and bool((np.diff(y) < 0.0).all())
    rows = np.arange(len(y), dtype=np.int64)
    return rows[::-1].copy() if falls else rows


def joined_longitudes(x: Degrees) -> tuple[NDArray[np.int64], Degrees]:
    """Return the order of columns in which longitudes join without a jump, and the longitudes in that order.

    They begin after the widest gap between neighbours, in degrees from -180 to below 180; around the globe, where no
    gap is wider than the others, at the first meridian from 0 on.

    >>> joined_longitudes(np.array([0.0, 90.0, 180.0, 270.0]))[1].tolist()
    [0.0, 90.0, 180.0, 270.0]
    >>> order, degrees = joined_longitudes(np.array([350.0, 355.0, 0.0, 5.0]))
    >>> order.tolist(), degrees.tolist()
    ([0, 1, 2, 3], [-10.0, -5.0, 0.0, 5.0])
    """
    around = np.mod(x, 360.0)
    order = np.argsort(around, kind="stable")
    if len(x) < 2 or len(np.unique(around)) < len(x):
        return np.arange(len(x), dtype=np.int64), np.asarray(x, dtype=np.float64)
    gaps = np.diff(around[order], append=around[order[0]] + 360.0)
    widest = int(np.argmax(gaps))
    if gaps[widest] < 1.5 * np.median(gaps):  # around the globe
        return order.astype(np.int64), around[order]
    order = np.roll(order, -(widest + 1))
    degrees = around[order]
    degrees = degrees + 360.0 * np.cumsum(np.diff(degrees, prepend=degrees[0]) < 0.0)
    return order.astype(np.int64), degrees - 360.0 * np.floor((degrees[0] + 180.0) / 360.0)


def in_common_order(series: GridSeries) -> GridSeries:
    """Return the same frames with latitude rising and longitudes joined, where there are any; nothing is read."""
    rows, columns = np.arange(series.height, dtype=np.int64), np.arange(series.width, dtype=np.int64)
    y, x = series.y, series.x
    if y is not None and is_latitude(series.axis_names[0]):
        rows = rising_latitudes(y)
        y = y[rows]
    if x is not None and is_longitude(series.axis_names[1]):
        columns, x = joined_longitudes(x)
    straight = (rows == np.arange(series.height)).all() and (columns == np.arange(series.width)).all()
    if straight and (x is None or np.array_equal(x, np.asarray(series.x))):
        return series
    mask = series.mask if series.mask is None else series.mask[..., rows[:, None], columns]
    turned = Turned(rows=rows, columns=columns, y=series.y, x=series.x)
    values = series.values if straight else TurnedFrames(series.values, rows, columns)
    return replace(series, values=values, y=y, x=x, mask=mask, turned=turned)


def in_file_order(frames: NDArray[Any], turned: Turned | None) -> NDArray[Any]:
    """Return frames (…, height, width) in the order of rows and columns that their file had.

    Its coordinates are `turned.y` and `turned.x`.
    """
    if turned is None:
        return frames
    return frames[..., np.argsort(turned.rows)[:, None], np.argsort(turned.columns)]
