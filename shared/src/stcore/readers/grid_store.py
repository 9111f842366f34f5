"""Turn a series into a Zarr store once: chunks that fit windows, written block by block, so that memory stays small.

The store appears under its name only when it is whole. Until then it grows in a hidden folder beside it, with a note of
how far it has come; the same conversion started again goes on from there, another one begins anew. Every value is
looked at on the way, and the store says so, so that reading it starts at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.files import _is_another_process as is_another_process  # pyright: ignore[reportPrivateUsage]
from stcore.files import sync_folder, write_atomically, write_refused
from stcore.grids import GridSeries
from stcore.readers.grid_arrays import OWN_MARK, OWN_VERSION
from stcore.readers.grid_assembly import place_words
from stcore.readers.limits import shown

Progress = Callable[[int, int], None]
"""Is told how many frames are written, of how many."""

CHUNK_BYTES, CHUNK_FRAMES = 2**20, 32
"""A chunk holds at most so much (bytes) and so many frames: windows take few of them, and little beside them."""
BLOCK_BYTES = 2**25
NOTE = "stcore_progress.json"
_MICRO = "datetime64[us]"
_AXES = ["time", "channel", "y", "x"]


def to_store(
    series: GridSeries,
    path: str | Path,
    *,
    chunk_frames: int = 0,
    progress: Progress | None = None,
    resume: bool = True,
) -> Path:
    """Write a series as a Zarr store that `read_grid` reads lazily.

    Args:
        series: the frames; they are read block by block.
        path: the new store, ending in .zarr.
        chunk_frames: frames of a chunk; 0 takes what suits windows.
        progress: called after every block.
        resume: keep what was written when something goes wrong, and go on from there next time.

    Raises:
        UserError: another ending, no such folder, the store is there already, another process writes it, a value is
            not finite, or the disk refuses.
    """
    import zarr

    target = Path(path)
    if target.suffix.lower() != ".zarr":
        raise UserError(f"{shown(target)}: ending {target.suffix!r}; expected .zarr")
    if not target.parent.is_dir():
        raise UserError(f"{shown(target)}: no folder {shown(target.parent)}; expected an existing one")
    if target.exists():
        raise UserError(f"{shown(target)}: is there already; expected a new name")
    if chunk_frames < 0 or not series.num_frames:
        raise UserError(f"{shown(target)}: {series.num_frames} frames in chunks of {chunk_frames}; expected some")
    size = chunk_frames or min(CHUNK_FRAMES, max(1, CHUNK_BYTES // series.frame_bytes), series.num_frames)
    partial = target.with_name(f".{target.name}.partial")
    try:
        # Warnings are of what the next version of zarr may change. Chunks of zeros are written too: one that is not
        # there is then one that was lost.
        with warnings.catch_warnings(action="ignore"), zarr.config.set({"array.write_empty_chunks": True}):
            _write(series, partial, size, progress)
        (partial / NOTE).unlink()
        os.replace(partial, target)
        sync_folder(target.parent)
    except OSError as error:
        raise write_refused(target, error, series.num_frames * series.frame_bytes) from error
    finally:
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _write(series: GridSeries, folder: Path, size: int, progress: Progress | None) -> None:
    import zarr

    mark = _fingerprint(series, size)
    done = _done(folder, mark)
    if not done:
        shutil.rmtree(folder, ignore_errors=True)
        _begin(series, folder, size)
        _note(folder, mark, 0)
    root: Any = zarr.open_group(str(folder), mode="r+", zarr_format=2)
    arrays: dict[str, Any] = {"values": root["values"]}
    if series.mask is not None and series.mask.ndim == 4:
        arrays["mask"] = root["mask"]
    block = max(size, BLOCK_BYTES // series.frame_bytes // size * size)
    for first in range(done, series.num_frames, block):
        rows = np.arange(first, min(first + block, series.num_frames), dtype=np.int64)
        frames = series.raw(rows)
        _require_finite(series, rows, frames)
        span = slice(first, int(rows[-1]) + 1)
        arrays["values"][span] = frames
        if "mask" in arrays and series.mask is not None:
            arrays["mask"][span] = series.mask[span]
        _note(folder, mark, span.stop)
        if progress is not None:
            progress(span.stop, series.num_frames)


def _fingerprint(series: GridSeries, size: int) -> str:
    """Return a digest of everything but the values, and of the first and the last frame."""
    digest = hashlib.sha256(json.dumps([series.shape, str(series.values.dtype), size, facts_of(series)]).encode())
    for array in (series.times, series.clip_numbers, series.y, series.x, series.mask):
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    digest.update(np.ascontiguousarray(series.raw([0, series.num_frames - 1][: series.num_frames])).tobytes())
    return digest.hexdigest()


def _done(folder: Path, mark: str) -> int:
    """Return how many frames an earlier start has written, 0 where there was none of the same series.

    Raises:
        UserError: another process is at it.
    """
    try:
        told = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        process, found, done = int(told["process"]), str(told["series"]), int(told["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    if is_another_process(process):
        raise UserError(f"{shown(folder)}: process {process} is writing it; expected to be alone; wait for it to end")
    return done if found == mark else 0


def _note(folder: Path, mark: str, done: int) -> None:
    told = {"process": os.getpid(), "series": mark, "frames": done}
    write_atomically(folder / NOTE, [json.dumps(told).encode()])


def _begin(series: GridSeries, folder: Path, size: int) -> None:
    """Make the store with everything but the frames."""
    import zarr

    root = zarr.open_group(str(folder), mode="w", zarr_format=2)
    root.attrs.update(facts_of(series))

    # Without a fill value: readers take one for missing cells, and zeros would be lost.
    def put(name: str, values: Any, axes: list[str], **attributes: Any) -> None:
        array = root.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=values.shape or (1,), fill_value=None
        )
        array.attrs.update({"_ARRAY_DIMENSIONS": axes, **attributes})
        array[...] = values

    def frames(name: str, dtype: Any) -> None:
        array = root.create_array(
            name, shape=series.shape, dtype=dtype, chunks=(size, *series.shape[1:]), fill_value=None
        )
        array.attrs["_ARRAY_DIMENSIONS"] = _AXES

    frames("values", series.values.dtype)
    put("clip", series.clip_numbers, ["time"])
    if series.times is not None:
        moments = series.times.astype(_MICRO).astype(np.int64)
        put("time", moments, ["time"], units="microseconds since 1970-01-01", calendar="proleptic_gregorian")
    for name in ("y", "x"):
        if (coordinate := getattr(series, name)) is not None:
            put(name, coordinate, [name])
    if series.mask is not None and series.mask.ndim == 2:
        put("mask", series.mask, ["y", "x"])
    elif series.mask is not None:
        frames("mask", np.bool_)


def facts_of(series: GridSeries) -> dict[str, Any]:
    """Return what a store says beside the arrays."""
    facts: dict[str, Any] = {
        OWN_MARK: OWN_VERSION,
        "channels": list(series.channels),
        "units": list(series.units),
        "clip_names": list(series.clip_names),
        "axis_names": list(series.axis_names),
        "looked_at": True,
    }
    if series.value_range is not None:
        facts["value_range"] = list(series.value_range)
    if series.known_step is not None:
        unit, count = np.datetime_data(series.known_step.dtype)
        facts["step"] = [int(series.known_step.astype(np.int64)) * count, unit]
    return facts


def _require_finite(series: GridSeries, rows: NDArray[np.int64], frames: NDArray[Any]) -> None:
    if frames.dtype.kind != "f":
        return
    wrong = ~np.isfinite(frames)
    if wrong.any() and series.mask is not None:
        wrong &= series.valid(rows)
    if wrong.any():
        frame, channel, row, column = (int(one) for one in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
        place = place_words(series, (int(rows[frame]), channel, row, column))
        raise UserError(f"{place}: {frames[frame, channel, row, column]}; expected finite values; pass --data.missing "
                        "mask or fill")  # fmt: skip


def require_whole(where: str, group: Any) -> None:
    """Refuse a store of ours that has lost chunks, which would be read as arbitrary numbers.

    Raises:
        UserError: it has.
    """
    for name, array in group.arrays():
        if (have := array.nchunks_initialized) != array.nchunks:
            raise UserError(f"{where}: array {name} has {have:,} of {array.nchunks:,} chunks; expected all; the store "
                            "is damaged, or a copy of it was cut short")  # fmt: skip
