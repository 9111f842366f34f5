"""Write a grid series so that reading it gives the same frames: NumPy .npz, or a Zarr folder for what is large."""

from __future__ import annotations

import io
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from stcore.errors import UserError
from stcore.files import sync_folder, write_atomically, write_refused
from stcore.frame_stores import batches
from stcore.grids import GridSeries
from stcore.readers.grid_arrays import OWN_MARK, OWN_VERSION
from stcore.readers.limits import shown

_MICRO = "datetime64[us]"


def write_grid(series: GridSeries, path: Path) -> None:
    """Write `series` to `path`; its ending, .npz or .zarr, says the format.

    Raises:
        UserError: another ending, a folder that does not exist, a Zarr folder that does, or the disk refuses.
    """
    if path.suffix.lower() not in (".npz", ".zarr"):
        raise UserError(f"{shown(path)}: ending {path.suffix!r}; expected .npz or .zarr")
    if not path.parent.is_dir():
        raise UserError(f"{shown(path)}: no folder {shown(path.parent)}; expected an existing one")
    if path.suffix.lower() == ".npz":
        write_atomically(path, [_npz(series)])
    else:
        _write_zarr(series, path)


def _npz(series: GridSeries) -> memoryview:
    arrays: dict[str, Any] = {
        OWN_MARK: np.array(OWN_VERSION),
        "values": series.raw(range(series.num_frames)),
        "clip": series.clip_numbers,
        "channels": np.array(series.channels, dtype=np.str_),
        "clip_names": np.array(series.clip_names, dtype=np.str_),
    }
    if series.units:
        arrays["units"] = np.array(series.units, dtype=np.str_)
    if series.value_range is not None:
        arrays["value_range"] = np.array(series.value_range)
    if series.known_step is not None:
        arrays["step"] = np.array(series.known_step)
    arrays |= {name: array for name in ("times", "y", "x", "mask") if (array := getattr(series, name)) is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getbuffer()


def _write_zarr(series: GridSeries, path: Path) -> None:
    """Write frame by frame into a folder beside `path`, then give it its name."""
    if path.exists():
        raise UserError(f"{shown(path)}: is there already; expected a new name")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of the store about what its own next version may change
            _fill_zarr(series, temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_refused(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill_zarr(series: GridSeries, folder: Path) -> None:
    import zarr

    root = zarr.open_group(str(folder), mode="w", zarr_format=2)
    root.attrs.update(_facts(series))

    # Without a fill value: readers take one for missing cells, and zeros would be lost.
    def put(name: str, values: Any, axes: list[str], **attributes: Any) -> None:
        array = root.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=values.shape or (1,), fill_value=None
        )
        array.attrs.update({"_ARRAY_DIMENSIONS": axes, **attributes})
        array[...] = values

    frames = max(1, min(series.num_frames, 2**23 // max(1, series.frame_bytes)))
    values = root.create_array(
        "values", shape=series.shape, dtype=series.values.dtype, chunks=(frames, *series.shape[1:]), fill_value=None
    )
    values.attrs["_ARRAY_DIMENSIONS"] = ["time", "channel", "y", "x"]
    for rows in batches(series.num_frames, series.frame_bytes, budget=frames * series.frame_bytes):
        values[int(rows[0]) : int(rows[-1]) + 1] = series.raw(rows)
    put("clip", series.clip_numbers, ["time"])
    if series.times is not None:
        moments = series.times.astype(_MICRO).astype(np.int64)
        put("time", moments, ["time"], units="microseconds since 1970-01-01", calendar="proleptic_gregorian")
    for name in ("y", "x"):
        if (coordinate := getattr(series, name)) is not None:
            put(name, coordinate, [name])
    if series.mask is not None:
        put("mask", series.mask, ["y", "x"] if series.mask.ndim == 2 else ["time", "channel", "y", "x"])


def _facts(series: GridSeries) -> dict[str, Any]:
    facts: dict[str, Any] = {
        OWN_MARK: OWN_VERSION,
        "channels": list(series.channels),
        "units": list(series.units),
        "clip_names": list(series.clip_names),
    }
    if series.value_range is not None:
        facts["value_range"] = list(series.value_range)
    if series.known_step is not None:
        unit, count = np.datetime_data(series.known_step.dtype)
        facts["step"] = [int(series.known_step.astype(np.int64)) * count, unit]
    return facts
