"""Write a grid series so that reading it gives the same frames: NumPy .npz, or a Zarr folder for what is large."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.grids import GridSeries
from stcore.readers.grid_arrays import OWN_MARK, OWN_VERSION
from stcore.readers.grid_store import to_store
from stcore.readers.limits import shown


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
        to_store(series, path, resume=False)


def _npz(series: GridSeries) -> memoryview:
    arrays: dict[str, Any] = {
        OWN_MARK: np.array(OWN_VERSION),
        "values": series.raw(range(series.num_frames)),
        "clip": series.clip_numbers,
        "channels": np.array(series.channels, dtype=np.str_),
        "clip_names": np.array(series.clip_names, dtype=np.str_),
        "axis_names": np.array(series.axis_names, dtype=np.str_),
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
