"""From what a file held to a series: missing cells, units, times and the declared range are settled here, once.

Every value is looked at (of very large lazy sources, frames spread evenly), so that what is wrong is said before any
work starts, with frame, channel, row and column.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.coordinates import in_common_order
from stcore.errors import UserError
from stcore.frame_stores import FilledFrames, ScaledFrames, batches, read_frames, spread
from stcore.grids import GridSeries
from stcore.readers import limits
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_times import parse_step, regular_times
from stcore.readers.grid_units import require_plausible_units

_log = logging.getLogger(__name__)

LOOK_BYTES = 4 * 2**30
"""Sources beyond this size (bytes) are looked at in frames spread evenly over them."""
_SINGLE_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class RawGrid:
    """What a file held, before options are applied."""

    where: str
    values: Any
    """Frames (time, channel, height, width), in memory or a store."""
    clip: NDArray[np.int64] | None = None
    clip_names: tuple[str, ...] = ()
    times: NDArray[np.datetime64] | None = None
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    y: NDArray[Any] | None = None
    x: NDArray[Any] | None = None
    mask: NDArray[np.bool_] | None = None
    value_range: tuple[float, float] | None = None
    step: np.timedelta64 | None = None
    factor: float = 1.0
    """Number that the values are multiplied by to be in the units of the data, beside that of the options."""
    offset: float = 0.0
    names: dict[str, str] = field(default_factory=dict)
    """What the file calls its coordinates, for messages."""
    look_bytes: int = LOOK_BYTES
    """Beyond this size, frames are looked at that are spread evenly; 0 where all were when the file was written."""


def assemble(raw: RawGrid, options: GridReadOptions) -> GridSeries:
    """Return the series of `raw` under `options`.

    Raises:
        UserError: a value, a time or a coordinate is not what it must be; the message names file and place.
    """
    _check_coordinates(raw)
    values = _scaled(raw, options)
    clip, clip_names = _cut(raw, options)
    series = _made(raw, options, values, clip, clip_names)
    looked = _look(series, raw.where, raw.look_bytes)
    if looked.missing:
        series = _without_missing(series, looked, raw.where, options)
    _check_range(series, looked, raw.where)
    if not options.units and raw.look_bytes:
        require_plausible_units(series, raw.where)
    if options.order == "common":
        series = in_common_order(series)
    return series


def _made(
    raw: RawGrid, options: GridReadOptions, values: Any, clip: NDArray[np.int64] | None, clip_names: tuple[str, ...]
) -> GridSeries:
    count, channels = values.shape[0], values.shape[1]
    for name, given in (("channels", options.channels), ("units", options.units)):
        if given and len(given) not in ((channels,) if name == "channels" else (1, channels)):
            raise UserError(f"{raw.where}: {channels} channels; expected {len(given)} as --data.{name} says")
    step = parse_step(options.step) if options.step else raw.step
    times = raw.times
    if options.start:
        if step is None:
            raise UserError(f"{raw.where}: data.start without a step; expected one; pass --data.step '30 minutes'")
        if len(clip_names) > 1:
            raise UserError(f"{raw.where}: {len(clip_names)} clips and one data.start; expected one clip")
        times = regular_times(options.start, step, count)
    try:
        return GridSeries(
            values=values,
            times=times,
            clip=clip,
            channels=options.channels or raw.channels,
            units=options.units or raw.units,
            y=raw.y,
            x=raw.x,
            mask=raw.mask,
            clip_names=clip_names,
            value_range=options.value_range or raw.value_range,
            known_step=step,
            axis_names=(raw.names.get("y", "y"), raw.names.get("x", "x")),
        )
    except UserError as error:
        raise UserError(str(error).replace("grid: ", f"{raw.where}: ", 1)) from error


def _scaled(raw: RawGrid, options: GridReadOptions) -> Any:
    factor, offset = raw.factor * options.factor, raw.offset * options.factor + options.offset
    if (factor, offset) == (1.0, 0.0) and options.missing_value is None:
        return raw.values
    return ScaledFrames(raw.values, factor, offset, options.missing_value)


def _cut(raw: RawGrid, options: GridReadOptions) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Return number and names of clips; `options.cuts` begins new ones in a single clip."""
    if not options.cuts:
        return raw.clip, raw.clip_names
    count = raw.values.shape[0]
    if raw.clip is not None and raw.clip[-1] > 0:
        raise UserError(f"{raw.where}: several clips and data.cuts; expected a single one to cut")
    if options.cuts[-1] >= count:
        raise UserError(f"{raw.where}: data.cuts {options.cuts[-1]}; expected frames below {count}, the frames there")
    edges = np.zeros(count, dtype=np.int64)
    edges[list(options.cuts)] = 1
    return np.cumsum(edges), ()


def _check_coordinates(raw: RawGrid) -> None:
    for axis, values, bound in (("y", raw.y, 90.0), ("x", raw.x, 360.0)):
        name = raw.names.get(axis, axis)
        if values is None:
            continue
        if values.dtype.kind not in "iuf" or values.ndim != 1:
            raise UserError(
                f"{raw.where}: coordinate {name} is {values.dtype} of shape {values.shape}; expected one number for "
                f"each {'row' if axis == 'y' else 'column'}"
            )
        if (lost := np.flatnonzero(~np.isfinite(values))).size:
            raise UserError(f"{raw.where}: coordinate {name} is {values[lost[0]]} at {lost[0]}; expected finite ones")
        degrees = name.lower().startswith("lat" if axis == "y" else "lon")
        if degrees and (far := np.flatnonzero(np.abs(values) > bound)).size:
            raise UserError(
                f"{raw.where}: coordinate {name} is {values[far[0]]:g} at {far[0]}; expected at most {bound:g} "
                "degrees; are latitude and longitude swapped?"
            )


@dataclass(frozen=True)
class _Looked:
    """What looking at the values found."""

    rows: NDArray[np.int64]
    missing: int
    first: tuple[int, int, int, int]
    """Place of the first missing cell."""
    first_value: float
    always: NDArray[np.bool_]
    """Cells (height, width) with data in every frame and channel."""
    ever: NDArray[np.bool_]
    """Cells with data in some frame and channel."""
    outside: int
    outside_at: tuple[int, int, int, int]
    outside_value: float
    too_large: bool


def _look(series: GridSeries, where: str, look_bytes: int) -> _Looked:
    count, kind = series.num_frames, series.values.dtype.kind
    rows = np.arange(count, dtype=np.int64)
    limits_known = series.value_range
    always, ever = np.ones(series.shape[2:], np.bool_), np.zeros(series.shape[2:], np.bool_)
    nowhere = (0, 0, 0, 0)
    if kind in "biu" and (limits_known is None or _covers(limits_known, series.values.dtype)):
        return _Looked(rows, 0, nowhere, 0.0, always, ~ever, 0, nowhere, 0.0, False)
    if not look_bytes:
        return _Looked(rows, 0, nowhere, 0.0, always, ~ever, 0, nowhere, 0.0, False)
    bytes_in_all = count * series.frame_bytes
    if bytes_in_all > look_bytes:
        rows = spread(count, max(2, look_bytes // series.frame_bytes))
        _log.warning("%s: looked at %d of %d frames for missing values and range", where, len(rows), count)
    missing, outside, too_large = 0, 0, False
    first, first_value, outside_at, outside_value = nowhere, 0.0, nowhere, 0.0
    for batch in batches(len(rows), series.frame_bytes):
        frames = read_frames(series.values, rows[batch])
        here = np.isfinite(frames) if kind == "f" else np.ones(frames.shape, np.bool_)
        if series.mask is not None:  # cells that the file's own mask leaves out may hold anything
            here |= ~series.valid(rows[batch])
        cells = here.all(axis=(0, 1))
        if not cells.all():
            if not missing:
                first, first_value = _place(~here, rows[batch]), float(frames[~here][0])
            missing += int((~here).sum())
        always &= cells
        ever |= here.any(axis=(0, 1))
        bad, large = _beyond(frames, here, limits_known)
        if series.mask is not None:
            bad &= series.valid(rows[batch])
        if bad.any():
            if not outside:
                outside_at, outside_value, too_large = _place(bad, rows[batch]), float(frames[bad][0]), large
            outside += int(bad.sum())
    return _Looked(rows, missing, first, first_value, always, ever, outside, outside_at, outside_value, too_large)


def _covers(bounds: tuple[float, float], dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "b":
        return bounds[0] <= 0.0 and bounds[1] >= 1.0
    return bounds[0] <= np.iinfo(dtype).min and bounds[1] >= np.iinfo(dtype).max


def _beyond(
    frames: NDArray[Any], here: NDArray[np.bool_], bounds: tuple[float, float] | None
) -> tuple[NDArray[np.bool_], bool]:
    """Return where values are outside `bounds` (a millionth of them is let go), or too large for single precision."""
    if bounds is None:
        if frames.dtype.itemsize <= 4:
            return np.zeros(frames.shape, np.bool_), False
        return here & (np.abs(frames) > _SINGLE_MAX), True
    slack = 1e-6 * (bounds[1] - bounds[0]) if frames.dtype.kind == "f" else 0.0
    return here & ((frames < bounds[0] - slack) | (frames > bounds[1] + slack)), False


def _place(bad: NDArray[np.bool_], rows: NDArray[np.int64]) -> tuple[int, int, int, int]:
    at = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return (int(rows[at[0]]), int(at[1]), int(at[2]), int(at[3]))


def place_words(series: GridSeries, at: tuple[int, int, int, int]) -> str:
    """Return a place of a series in words."""
    frame, channel, row, column = at
    number = int(series.clip_numbers[frame])
    start = int(np.searchsorted(series.clip_numbers, number))
    clip = f"clip {series.clip_names[number]}, " if series.num_clips > 1 else ""
    name = f"channel {series.channels[channel]}, " if series.num_channels > 1 else ""
    return f"{clip}frame {frame - start}, {name}row {row}, column {column}"


def _without_missing(series: GridSeries, looked: _Looked, where: str, options: GridReadOptions) -> GridSeries:
    if options.missing == "fill":
        return replace(series, values=FilledFrames(series.values, options.fill))
    if options.missing == "error":
        raise UserError(
            f"{where}: {place_words(series, looked.first)}: {looked.first_value:g} (one of {looked.missing:,} cells "
            "that are not finite); expected finite values; pass --data.missing mask or --data.missing fill"
        )
    if not looked.ever.any():
        raise UserError(f"{where}: no cell has data in any frame; expected some finite values")
    if (looked.always == looked.ever).all():
        here = looked.always if series.mask is None else looked.always & series.mask
        return replace(series, mask=here)
    needed = int(np.prod(series.shape))
    limit = limits.size_limit(options.max_bytes)
    if needed > limit:
        raise UserError(
            f"{where}: missing cells differ from frame to frame, and a mask needs {needed:,} bytes; expected at most "
            f"{limit:,}; pass --data.missing fill"
        )
    here = np.empty(series.shape, np.bool_)
    for batch in batches(series.num_frames, series.frame_bytes):
        here[batch] = np.isfinite(read_frames(series.values, batch)) & series.valid(batch)
    return replace(series, mask=here)


def _check_range(series: GridSeries, looked: _Looked, where: str) -> None:
    if not looked.outside:
        return
    found = f"{where}: {place_words(series, looked.outside_at)}: {looked.outside_value:g}"
    if looked.too_large or series.value_range is None:
        raise UserError(f"{found}, too large for single precision; expected at most {_SINGLE_MAX:.3g}")
    low, high = series.value_range
    raise UserError(f"{found} (one of {looked.outside:,} outside the range); expected {low:g} to {high:g}")
