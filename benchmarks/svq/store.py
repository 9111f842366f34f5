"""A large Zarr store of fields, made cheaply: all chunks but one are links to the first."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 32
"""Frames in a chunk; the field repeats after so many."""
SHAPE = (8, 64, 128)
"""Levels, latitudes and longitudes."""


def write_store(path: Path, *, gigabytes: float) -> int:
    """Write hourly fields of waves that go around the globe, and return how many.

    Args:
        path: folder to make, `.zarr`.
        gigabytes: size of all frames in memory, in 10^9 bytes.
    """
    import zarr

    chunks = max(2, round(gigabytes * 1e9 / (4 * CHUNK * np.prod(SHAPE))))
    with warnings.catch_warnings(action="ignore"):  # of the store about what its own next version may change
        root = zarr.open_group(str(path), mode="w", zarr_format=2)
        field = root.create_array(
            "field", shape=(CHUNK * chunks, *SHAPE), dtype="f4", chunks=(CHUNK, *SHAPE), fill_value=None
        )
        field.attrs.update({"_ARRAY_DIMENSIONS": ["time", "level", "latitude", "longitude"], "units": "K"})
        field[:CHUNK] = _waves()
        _coordinate(root, "time", np.arange(CHUNK * chunks), units="hours since 2000-01-01")
        _coordinate(root, "level", np.arange(SHAPE[0]), units="1")
        for name, half, count in (("latitude", 90.0, SHAPE[1]), ("longitude", 180.0, SHAPE[2])):
            width = 2.0 * half / count
            _coordinate(root, name, np.linspace(-half + width / 2, half - width / 2, count), units="degrees")
    for number in range(1, chunks):
        os.link(path / "field" / "0.0.0.0", path / "field" / f"{number}.0.0.0")
    return CHUNK * chunks


def _coordinate(root: Any, name: str, values: NDArray[Any], *, units: str) -> None:
    array = root.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.shape, fill_value=None)
    array.attrs.update({"_ARRAY_DIMENSIONS": [name], "units": units})
    array[...] = values


def _waves() -> NDArray[np.float32]:
    time, level, row, column = np.ogrid[: float(CHUNK), : float(SHAPE[0]), : float(SHAPE[1]), : float(SHAPE[2])]
    wave = np.sin(2 * np.pi * (3 * column / SHAPE[2] - time / CHUNK) + level) * np.cos(np.pi * (row / SHAPE[1] - 0.5))
    # Whole hundredths compress, as packed weather data do.
    return (np.round(1000.0 * wave) / 100.0 + 280.0).astype(np.float32)
