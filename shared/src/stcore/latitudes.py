"""Whether the rows and columns of a grid are degrees of latitude and longitude, and which row is which."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.coordinates import is_latitude, is_longitude
from stcore.grids import GridSeries


def are_degrees(series: GridSeries) -> bool:
    """Return whether rows and columns have coordinates that are called latitude and longitude."""
    known = series.y is not None and series.x is not None
    return known and is_latitude(series.axis_names[0]) and is_longitude(series.axis_names[1])


def latitudes(series: GridSeries) -> NDArray[np.float64] | None:
    """Return the latitude of each row in degrees; None where rows have none.

    >>> globe = {"y": np.array([-45.0, 45.0]), "x": np.array([0.0, 180.0]), "axis_names": ("lat", "lon")}
    >>> latitudes(GridSeries(values=np.zeros((1, 1, 2, 2)), **globe)).tolist()
    [-45.0, 45.0]
    """
    return series.y if are_degrees(series) else None


def north_up(frames: NDArray[Any], series: GridSeries) -> NDArray[Any]:
    """Return frames (…, height, width) with the northernmost row first, as pictures have it."""
    rows = latitudes(series)
    return frames[..., ::-1, :] if rows is not None and rows[0] < rows[-1] else frames
