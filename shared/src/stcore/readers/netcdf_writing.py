"""Write forecasts of fields as netCDF, with the names and units that other programs know them by (CF conventions).

One forecast has axes (time, y, x); several have (forecast, lead, y, x), and their moments as a table.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from stcore.errors import UserError
from stcore.files import write_refused
from stcore.grids import GridSeries
from stcore.latitudes import are_degrees
from stcore.readers.limits import shown

_TIME = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian", "dtype": "float64"}


def write_netcdf(series: GridSeries, path: Path) -> None:
    """Write a series, or clips of one length such as forecasts, to a netCDF 4 file, whole or not at all.

    Raises:
        UserError: another ending, a folder that does not exist, clips of several lengths, or the disk refuses.
    """
    if path.suffix.lower() not in (".nc", ".nc4"):
        raise UserError(f"{shown(path)}: ending {path.suffix!r}; expected .nc or .nc4")
    if not path.parent.is_dir():
        raise UserError(f"{shown(path)}: no folder {shown(path.parent)}; expected an existing one")
    dataset = as_dataset(series, where=shown(path))
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        moments = {name: _TIME for name, values in dataset.variables.items() if values.dtype.kind == "M"}
        dataset.to_netcdf(temporary, engine="h5netcdf", encoding=moments)
        os.replace(temporary, path)
    except OSError as error:
        raise write_refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def as_dataset(series: GridSeries, *, where: str = "grid") -> Any:
    """Return a series as an `xarray.Dataset`, a variable for each channel.

    Raises:
        UserError: clips of several lengths.
    """
    import xarray as xr

    lengths = set(np.bincount(series.clip_numbers, minlength=series.num_clips).tolist())
    if len(lengths) > 1:
        raise UserError(f"{where}: clips of {min(lengths)} to {max(lengths)} frames; expected one length; write .zarr")
    rows, columns = series.axis_names
    several = series.num_clips > 1
    axes = ("forecast", "lead", rows, columns) if several else ("time", rows, columns)
    frames = series.frames(range(series.num_frames))
    units = series.units or ("",) * series.num_channels
    variables: dict[str, Any] = {}
    for at, (name, unit) in enumerate(zip(series.channels, units, strict=True)):
        values = frames[:, at]
        values = values.reshape(series.num_clips, -1, *values.shape[1:]) if several else values
        variables[_variable_name(name)] = (axes, values, {"long_name": name, **({"units": unit} if unit else {})})
    return xr.Dataset(variables, _coordinates(series, rows, columns, several=several), {"Conventions": "CF-1.8"})


def _coordinates(series: GridSeries, rows: str, columns: str, *, several: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    degrees = ({"units": "degrees_north", "standard_name": "latitude"},
               {"units": "degrees_east", "standard_name": "longitude"})  # fmt: skip
    for axis, values, facts in zip((rows, columns), (series.y, series.x), degrees, strict=True):
        if values is not None:
            found[axis] = (axis, values, facts if are_degrees(series) else {})
    if series.times is not None:
        moments = series.times.astype("datetime64[ns]")
        found["time"] = (("forecast", "lead"), moments.reshape(series.num_clips, -1)) if several else ("time", moments)
    if several:
        found["forecast"] = ("forecast", np.array(series.clip_names, dtype=object))
        found["lead"] = ("lead", np.arange(1, series.num_frames // series.num_clips + 1))
    return found


def _variable_name(name: str) -> str:
    """Return a name that every reader of netCDF takes."""
    plain = re.sub(r"\W+", "_", name)
    return plain if plain[:1].isalpha() else f"channel_{plain}"
