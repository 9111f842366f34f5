"""NetCDF files (version 4, which is HDF5, and 3) and Zarr stores through xarray; frames are read when asked for.

Variables on the same grid become channels, those with levels one for each level, variable after variable. Files of one
folder follow one another in time.
"""

from __future__ import annotations

import gc
import logging
import struct
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import Integers, Shape, as_slice, join
from stcore.readers import limits
from stcore.readers.grid_arrays import OWN_MARK
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import require_grid_file, require_hdf5
from stcore.readers.grid_layout import with_layout
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_store import require_whole
from stcore.readers.limits import short, shown

_log = logging.getLogger(__name__)

TIME = ("time", "valid_time", "t", "date")
Y = ("lat", "latitude", "y", "row", "grid_latitude", "projection_y_coordinate", "height_index")
X = ("lon", "longitude", "lng", "x", "column", "col", "grid_longitude", "projection_x_coordinate", "width_index")
_READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError, NotImplementedError, IndexError)
# Damaged metadata meets code that takes its type for granted.
_OPEN_ERRORS = (*_READ_ERRORS, TypeError, AttributeError, struct.error, MemoryError)
_MAX_CHANNELS = 10_000


@dataclass(frozen=True, eq=False)
class XarrayFrames:
    """Frames of lazy variables (time, [level,] row, column), channel after channel."""

    variables: tuple[Any, ...]
    """Of xarray, with their axes in that order."""
    where: str

    @property
    def shape(self) -> Shape:
        first = self.variables[0]
        channels = sum(1 if one.ndim == 3 else one.shape[1] for one in self.variables)
        return (first.shape[0], channels, *first.shape[-2:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(one.dtype for one in self.variables))

    def read(self, ids: Integers) -> NDArray[Any]:
        rows: Any = as_slice(ids)
        pieces: list[NDArray[Any]] = []
        try:
            for one in self.variables:
                values = np.asarray(one[rows].values)
                pieces.append(values[:, None] if values.ndim == 3 else values)
        except _READ_ERRORS as error:
            raise _broken(self.where, error) from error
        return np.concatenate(pieces, axis=1).astype(self.dtype, copy=False)


def _broken(where: str, error: Exception) -> UserError:
    return UserError(f"{where}: cannot be read ({limits.one_line(error)}); expected a whole netCDF file or Zarr store")


@contextmanager
def _reading(where: str, errors: tuple[type[Exception], ...] = _READ_ERRORS) -> Generator[None]:
    """Turn what libraries raise on damaged files into an error of the user, and keep their warnings out."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UserError:
        raise
    except errors as error:
        # Files that were opened half go now, with what they have to say about it, and not at some later moment.
        with warnings.catch_warnings(action="ignore"):
            traceback.clear_frames(error.__traceback__)
            gc.collect()
        raise _broken(where, error) from error


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr store (version 2 or 3)."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def read_netcdf(paths: Sequence[Path], options: GridReadOptions) -> RawGrid:
    """Read one netCDF file, or several that follow one another in time.

    Raises:
        UserError: a file is damaged, has no variable on a grid in time, or does not go with the others.
    """
    import xarray as xr

    raws: list[RawGrid] = []
    for path in paths:
        require_grid_file(path)
        engine = _engine(path)
        raws.append(_opened(shown(path), lambda decode, path=path, engine=engine: xr.open_dataset(
            path, engine=engine, decode_times=decode, cache=False), options))  # fmt: skip
    return raws[0] if len(raws) == 1 else _in_time(raws)


def _engine(path: Path) -> Literal["h5netcdf", "scipy"]:
    """Return what of xarray reads a file, by its first bytes: "CDF" and a 1 or 2 is version 3, a 5 has no reader here.

    Raises:
        UserError: it is no netCDF file that can be read.
    """
    head = limits.read_head(path)
    if head.startswith((b"CDF\x01", b"CDF\x02")):
        return "scipy"
    if head.startswith(b"CDF"):
        raise UserError(f"{shown(path)}: netCDF of variant {head[3:4]!r}; expected version 4, or 3 (classic or 64-bit "
                        "offset); nccopy -k nc4 turns it into one")  # fmt: skip
    require_hdf5(path)
    return "h5netcdf"


def read_zarr(path: Path, options: GridReadOptions) -> RawGrid:
    """Read a Zarr store: named variables, or one bare array under a layout.

    Raises:
        UserError: as for `read_netcdf`.
    """
    import xarray as xr
    import zarr

    where = shown(path)
    with _reading(where, _OPEN_ERRORS):
        node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return _bare(where, node, options)
    if OWN_MARK in node.attrs and node.attrs.get("looked_at") is True:
        with _reading(where, _OPEN_ERRORS):
            require_whole(where, node)
    return _opened(
        where, lambda decode: xr.open_dataset(path, engine="zarr", decode_times=decode, cache=False), options
    )


def _bare(where: str, array: Any, options: GridReadOptions) -> RawGrid:
    needed = int(np.prod([int(size) for size in array.shape], dtype=object)) * array.dtype.itemsize
    limit = limits.size_limit(options.max_bytes)
    if needed > limit:
        raise UserError(f"{where}: one bare array of {needed:,} bytes; expected at most {limit:,}, or named axes")
    with _reading(where):
        values, clips = with_layout(where, np.asarray(array[...]), options.layout)
    clip = np.repeat(np.arange(clips, dtype=np.int64), values.shape[0] // clips) if clips > 1 else None
    return RawGrid(where=where, values=values, clip=clip)


def _opened(where: str, opener: Callable[[bool], Any], options: GridReadOptions) -> RawGrid:
    """Open with decoded times, or without where the calendar is none that NumPy has and this is allowed."""
    with _reading(where, _OPEN_ERRORS):
        try:
            data = opener(True)
        except (ValueError, ImportError, OverflowError) as error:
            data = opener(False)
            _refuse_calendar(where, data, options)
            _log.warning("%s: times left out: %s", where, limits.one_line(error))
    with _reading(where):
        return _from_dataset(where, data, options)


def _refuse_calendar(where: str, data: Any, options: GridReadOptions) -> None:
    """Refuse moments that no date of the usual calendar is, unless they are to be left out."""
    name = next((name for name in data.coords if str(name).lower() in TIME), None)
    if options.calendar == "ignore" or name is None:
        return
    told = {key: short(str(data[name].attrs.get(key, "none"))) for key in ("units", "calendar")}
    raise UserError(
        f"{where}: {name} with units {told['units']} and calendar {told['calendar']}; expected units such as 'hours "
        "since 1979-01-01' in the standard calendar; pass --data.calendar ignore to read frames without times"
    )


def _from_dataset(where: str, data: Any, options: GridReadOptions) -> RawGrid:
    chosen = _variables(where, data, options)
    axes = {name: _axes(where, data, name) for name in chosen}
    first = next(iter(axes.values()))
    variables: list[Any] = []
    channels: list[str] = []
    units: list[str] = []
    for name, (time, y, x, level) in axes.items():
        one = data[name].transpose(time, *level, y, x)
        if one.dtype.kind not in "iufb":
            raise UserError(f"{where}: variable {short(name)} of {one.dtype}; expected real numbers")
        if 0 in one.shape:
            raise UserError(f"{where}: variable {short(name)} of shape {one.shape}; expected at least one frame")
        variables.append(one.variable)
        unit = str(one.attrs.get("units", ""))[:60]
        if level:
            labels = data[level[0]].values if level[0] in data.coords else range(one.shape[1])
            if one.shape[1] > _MAX_CHANNELS:
                raise UserError(f"{where}: variable {short(name)} with {one.shape[1]:,} levels; expected fewer")
            channels += [f"{name}_{label:g}" if isinstance(label, int | float | np.number) else f"{name}_{label}"
                         for label in labels]  # fmt: skip
            units += [unit] * one.shape[1]
        else:
            channels.append(str(name))
            units.append(unit)
    store = XarrayFrames(tuple(variables), where)
    _require_small(where, store, options)
    time, y, x, _ = first
    raw = RawGrid(
        where=where,
        values=store,
        times=_times(where, data, time, options),
        channels=tuple(channels),
        units=tuple(units) if any(units) else (),
        y=_coordinate(data, y),
        x=_coordinate(data, x),
        names={"y": str(y), "x": str(x)},
    )
    return replace(raw, **_own_facts(where, data))


def _require_small(where: str, store: XarrayFrames, options: GridReadOptions) -> None:
    """Refuse frames, or chunks that a frame is unpacked from, that need more memory than there may be."""
    limit = limits.size_limit(options.max_bytes)
    frame = int(np.prod([int(size) for size in store.shape[1:]], dtype=object)) * store.dtype.itemsize
    if frame > limit or 16 * store.shape[0] > limit:
        raise UserError(
            f"{where}: {store.shape[0]:,} frames of {frame:,} bytes; expected at most {limit:,} for a frame; pass "
            "--data.max-bytes if this is right"
        )
    for one in store.variables:
        sizes = [int(size) for size in one.encoding.get("preferred_chunks", {}).values()]
        chunk = int(np.prod(sizes, dtype=object)) * one.dtype.itemsize
        if chunk > limit:
            raise UserError(
                f"{where}: chunks of {chunk:,} bytes; expected at most {limit:,}; pass --data.max-bytes if "
                "this is right"
            )


def _variables(where: str, data: Any, options: GridReadOptions) -> list[str]:
    """Return the variables to read: those asked for, or all that have time, rows and columns, of the first grid."""
    have = ", ".join(f"{name} {dict(data[name].sizes)}" for name in list(data.data_vars)[:6]) or "none"
    if options.variable:
        if lost := [name for name in options.variable if name not in data.data_vars]:
            raise UserError(
                f"{where}: no variable {lost[0]!r:.60} among {have:.300}; expected one; pass --data.variable"
            )
        return list(options.variable)
    gridded = [name for name in data.data_vars if data[name].ndim >= 3 and name not in ("mask",)]
    if not gridded:
        raise UserError(f"{where}: variables {have:.300}; expected one with time, rows and columns")
    sizes = {name: tuple(data[name].sizes.items()) for name in gridded}
    if len(set(sizes.values())) > 1:
        raise UserError(
            f"{where}: variables {have:.300} lie on different grids; expected to know which; pass --data.variable"
        )
    return [str(name) for name in gridded]


def _axes(where: str, data: Any, name: str) -> tuple[str, str, str, list[str]]:
    """Return the names of time, rows, columns, and of a fourth axis if there is one."""
    one = data[name]
    dims = [str(dim) for dim in one.dims]
    found: dict[str, str] = {}
    for role, names, standard in (("time", TIME, "time"), ("row", Y, "latitude"), ("column", X, "longitude")):
        hits = [dim for dim in dims if dim.lower() in names or (
            dim in data.coords and data[dim].attrs.get("standard_name") == standard)]  # fmt: skip
        if role == "time":
            hits = hits or [dim for dim in dims if dim in data.coords and data[dim].dtype.kind == "M"]
        if len(hits) == 1:
            found[role] = hits[0]
    rest = [dim for dim in dims if dim not in found.values()]
    if len(found) < 3 or len(rest) > 1:
        lost = ", ".join(role for role in ("time", "row", "column") if role not in found) or "one more axis at most"
        raise UserError(
            f"{where}: variable {short(name)} has axes {', '.join(dims):.200}; expected time, rows and columns by "
            f"names such as time, lat, lon, and perhaps levels; unclear: {lost}"
        )
    return found["time"], found["row"], found["column"], rest


def _times(where: str, data: Any, name: str, options: GridReadOptions) -> NDArray[np.datetime64] | None:
    if name not in data.coords:
        return None
    values = data[name].values
    if values.dtype.kind == "O":  # moments of a calendar with other days than NumPy's
        _refuse_calendar(where, data, options)
    if values.dtype.kind != "M":
        _log.warning("%s: %s holds %s and no moments; frames go without times", where, name, values.dtype)
        return None
    return values.astype("datetime64[us]")


def _coordinate(data: Any, name: str) -> NDArray[Any] | None:
    return np.asarray(data[name].values) if name in data.coords and data[name].ndim == 1 else None


def _own_facts(where: str, data: Any) -> dict[str, Any]:
    """Return what a Zarr store of ours says beside the values."""
    if "stcore_grid" not in data.attrs:
        return {}
    facts: dict[str, Any] = {}
    attributes = data.attrs
    if attributes.get("looked_at") is True:
        facts["look_bytes"] = 0
    for name in ("clip_names", "channels", "units"):
        if isinstance(given := attributes.get(name), list):
            facts[name] = tuple(str(word) for word in given)
    axes: Any = attributes.get("axis_names")
    if isinstance(axes, list) and len(axes) == 2:
        facts["names"] = {"y": str(axes[0]), "x": str(axes[1])}
    bounds: Any = attributes.get("value_range")
    if isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(bound, int | float) for bound in bounds):
        facts["value_range"] = (float(bounds[0]), float(bounds[1]))
    if "clip" in data.variables:
        facts["clip"] = np.asarray(data["clip"].values)
    if "mask" in data.variables:
        facts["mask"] = np.asarray(data["mask"].values).astype(np.bool_)
    if isinstance(step := attributes.get("step"), list) and len(step) == 2:
        try:
            facts["step"] = np.timedelta64(int(step[0]), str(step[1]))  # pyright: ignore
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: step {short(step)}; expected a number and a unit") from error
    return facts


def _in_time(raws: list[RawGrid]) -> RawGrid:
    """Put files one after another, by their first moments."""
    first = raws[0]
    for raw in raws:
        same = all(np.array_equal(np.asarray(getattr(raw, axis)), np.asarray(getattr(first, axis))) for axis in "yx")
        if raw.channels != first.channels or raw.values.shape[1:] != first.values.shape[1:] or not same:
            raise UserError(f"{raw.where}: other variables or another grid; expected those of {first.where}")
        if raw.times is None:
            raise UserError(f"{raw.where}: no times; expected some, to put files in order")
    order = sorted(raws, key=lambda raw: np.asarray(raw.times)[0])
    return replace(
        order[0],
        where=f"{first.where} to {Path(raws[-1].where).name}",
        values=join([raw.values for raw in order]),
        times=np.concatenate([raw.times for raw in order if raw.times is not None]),
    )
