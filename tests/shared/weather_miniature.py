"""WeatherBench in miniature: the publisher's folders, names, axes and attributes, a coarse grid, few hours a year."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stcore.readers.weatherbench import FOLDERS, LEVELS, has_levels

UNITS = {"t2m": "K", "t": "K", "u10": "m s**-1", "v10": "m s**-1", "u": "m s**-1", "v": "m s**-1", "tcc": "(0 - 1)",
         "r": "%", "z": "m**2 s**-2", "q": "kg kg**-1", "vo": "s**-1", "pv": "K m**2 kg**-1 s**-1", "tp": "m",
         "tisr": "J m**-2"}  # fmt: skip
LAT, LON = np.array([-67.5, -22.5, 22.5, 67.5]), np.arange(8) * 45.0


def hours(year: int, count: int) -> np.ndarray[Any, Any]:
    return np.datetime64(f"{year}-01-01", "ns") + np.arange(count) * np.timedelta64(1, "h")


def field(key: str, year: int, count: int) -> np.ndarray[Any, Any]:
    """Return values (time, [level,] lat, lon) that tell variable, year, hour, level and place apart."""
    number = 100.0 * list(FOLDERS).index(key) + (year - 1979)
    levels = (len(LEVELS),) if has_levels(key) else ()
    shape = (count, *levels, len(LAT), len(LON))
    values = number + np.arange(int(np.prod(shape))).reshape(shape) / 4096.0
    return (values / 1000.0 if key in ("tcc", "r") else values).astype(np.float32)


def dataset(key: str, year: int, count: int, **changes: Any) -> xr.Dataset:
    """Return a file of a variable; `changes` replace `values`, `time`, `level`, `lat`, `lon` or `units`."""
    axes = ("time", "level", "lat", "lon") if has_levels(key) else ("time", "lat", "lon")
    coords = {"time": hours(year, count), "lat": LAT, "lon": LON}
    if has_levels(key):
        coords["level"] = np.array(LEVELS, dtype=np.int32)
    coords |= {name: changes[name] for name in ("time", "level", "lat", "lon") if name in changes}
    values = changes.get("values", field(key, year, count))
    attributes = {"units": changes.get("units", UNITS[key]), "long_name": FOLDERS[key].replace("_", " ")}
    return xr.Dataset({key: (axes, values, attributes)}, coords=coords)


def file_of(folder: Path, key: str, year: int) -> Path:
    return folder / FOLDERS[key] / f"{FOLDERS[key]}_{year}_5.625deg.nc"


def write_weather(
    folder: Path,
    keys: Iterable[str],
    years: Mapping[int, int],
    replaced: Mapping[tuple[str, int], xr.Dataset] | None = None,
) -> Path:
    """Write files of some variables, so many hours of each year; `replaced` stands in for some of them."""
    for key in keys:
        (folder / FOLDERS[key]).mkdir(parents=True, exist_ok=True)
        for year, count in years.items():
            data = (replaced or {}).get((key, year), dataset(key, year, count))
            data.to_netcdf(file_of(folder, key, year), engine="h5netcdf", unlimited_dims=("time",))
    return folder
