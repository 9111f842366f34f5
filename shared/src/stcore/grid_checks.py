"""What is odd about a grid series, in words: not wrong enough to refuse, but worth knowing before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stcore.frame_stores import batches, spread
from stcore.grids import GridSeries
from stcore.time_steps import breaks, step_words

LOOK_BYTES = 2**30
"""Series beyond this size in single precision (bytes) are looked at in frames spread evenly over them."""
_TINY, _MANY_CHANNELS = 8, 64
_WHOLE_IN_SINGLE = 2.0**24


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over the frames of a series found, per channel."""

    num_frames: int
    sampled: bool
    low: NDArray[np.float64]
    mean: NDArray[np.float64]
    high: NDArray[np.float64]
    lost: int
    """Cells that are neither finite nor left out by the mask."""
    lost_at: tuple[int, int, int, int]
    cell_low: NDArray[np.float32]
    """Least value of each cell (channel, height, width)."""
    cell_high: NDArray[np.float32]
    whole: bool
    """Whether all values are whole numbers."""
    frozen: int
    """Frames equal to the one before them, of the pairs that were looked at."""
    pairs: int
    outside: int
    outside_at: tuple[int, int, int, int]

    def spreads(self) -> list[dict[str, float]]:
        """Return least, mean and greatest value of each channel."""
        return [
            {"min": float(low), "mean": float(mean), "max": float(high)}
            for low, mean, high in zip(self.low, self.mean, self.high, strict=True)
        ]


def survey(series: GridSeries) -> Survey:
    """Look at every frame, or at frames spread evenly over a very large series."""
    count, size = series.num_frames, 4 * int(np.prod(series.shape[1:]))
    rows = np.arange(count, dtype=np.int64)
    if count * size > LOOK_BYTES:
        rows = spread(count, max(2, LOOK_BYTES // size))
    shape = series.shape[1:]
    low, high = np.full(shape, np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    total, seen = np.zeros(shape[0]), np.zeros(shape[0])
    lost = frozen = pairs = outside = 0
    lost_at = outside_at = (0, 0, 0, 0)
    whole, before, before_row = True, None, -2
    bounds = series.value_range or (-np.inf, np.inf)
    for batch in batches(len(rows), size):
        frames, here = series.frames(rows[batch]), series.valid(rows[batch])
        finite = np.isfinite(frames)
        if (bad := here & ~finite).any():
            lost_at = lost_at if lost else _place(bad, rows[batch])
            lost += int(bad.sum())
        if (far := finite & ((frames < bounds[0]) | (frames > bounds[1]))).any():
            outside_at = outside_at if outside else _place(far, rows[batch])
            outside += int(far.sum())
        low = np.minimum(low, np.where(finite, frames, np.inf).min(axis=0))
        high = np.maximum(high, np.where(finite, frames, -np.inf).max(axis=0))
        known = np.where(finite, frames, 0.0)
        total += known.sum(axis=(0, 2, 3), dtype=np.float64)
        seen += finite.sum(axis=(0, 2, 3))
        whole = whole and bool((known == np.round(known)).all())
        # Frames that were not neighbours in the series, or not in one clip, are no pair.
        own = rows[batch]
        joined = known if before is None else np.concatenate([before[None], known])
        at = own if before is None else np.concatenate([[before_row], own])
        near = (np.diff(at) == 1) & (np.diff(series.clip_numbers[at]) == 0)
        frozen += int(((joined[1:] == joined[:-1]).all(axis=(1, 2, 3)) & near).sum())
        pairs += int(near.sum())
        before, before_row = known[-1], int(own[-1])
    return Survey(
        len(rows), len(rows) < count, _over(low, np.min), total / np.maximum(seen, 1), _over(high, np.max),
        lost, lost_at, low, high, whole, frozen, pairs, outside, outside_at,
    )  # fmt: skip


def _over(cells: NDArray[np.float32], function: Callable[..., NDArray[np.float32]]) -> NDArray[np.float64]:
    flat = function(cells.reshape(len(cells), -1), axis=1).astype(np.float64)
    return np.where(np.isfinite(flat), flat, np.nan)


def _place(bad: NDArray[np.bool_], rows: NDArray[np.int64]) -> tuple[int, int, int, int]:
    at = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return (int(rows[at[0]]), int(at[1]), int(at[2]), int(at[3]))


def oddities(series: GridSeries) -> list[str]:
    """Return one sentence for everything odd about `series`, most serious first."""
    if not series.num_frames:
        return ["no frames: there is nothing to learn from"]
    seen = survey(series)
    checks: tuple[Callable[[GridSeries, Survey], Iterator[str]], ...] = (
        _values, _channels, _axes, _time, _clips, _coordinates, _cells, _scale,
    )  # fmt: skip
    return [sentence for check in checks for sentence in check(series, seen)]


def _where(series: GridSeries, at: tuple[int, int, int, int]) -> str:
    return f"frame {at[0]}, channel {series.channels[at[1]]}, row {at[2]}, column {at[3]}"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100.0 * part / max(1, whole):.2g} %)"


def _values(series: GridSeries, seen: Survey) -> Iterator[str]:
    cells = seen.num_frames * int(np.prod(series.shape[1:]))
    if seen.lost:
        yield (
            f"{_share(seen.lost, cells)} cells are not finite and no mask leaves them out, first at "
            f"{_where(series, seen.lost_at)}"
        )
    if seen.outside and series.value_range is not None:
        low, high = series.value_range
        yield (
            f"{_share(seen.outside, cells)} values are outside the declared range {low:g} to {high:g}, first at "
            f"{_where(series, seen.outside_at)}"
        )


def _channels(series: GridSeries, seen: Survey) -> Iterator[str]:
    for name, low, high in zip(series.channels, seen.low, seen.high, strict=True):
        if low == high:
            yield f"channel {name} is constant at {low:g}: there is nothing to learn, and no range to scale by"
        elif np.isnan(low):
            yield f"channel {name} has no data at all"
        elif (high - low) < 1e-5 * max(abs(low), abs(high)):
            yield f"channel {name} spans {high - low:.3g} around {high:.6g}: single precision blurs it"


def _axes(series: GridSeries, seen: Survey) -> Iterator[str]:
    channels, height, width = series.shape[1:]
    if min(height, width) < _TINY:
        yield f"frames of {height} x {width} (height x width) are tiny: are the axes in the order that was meant?"
    if max(height, width) > 16 * min(height, width):
        yield f"frames of {height} x {width} (height x width) are very long: time may be in the place of one of them"
    elif series.num_frames in (height, width) and height != width:
        yield (
            f"as many frames as {'rows' if series.num_frames == height else 'columns'} ({series.num_frames}) in frames "
            f"of {height} x {width}: are time and space swapped?"
        )
    if channels > _MANY_CHANNELS and channels > min(height, width):
        yield f"{channels} channels on {height} x {width}: time, rows or columns may be in the place of the channels"
    if series.num_clips == 1 and seen.pairs > 2 and series.num_frames < 16:
        yield f"only {series.num_frames} frames in all"


def _time(series: GridSeries, seen: Survey) -> Iterator[str]:
    if series.times is not None:
        gaps = breaks(series.times, series.clip_numbers)
        if gaps.size:
            at = int(gaps[0])
            yield (
                f"{len(gaps):,} gaps: {_between(series, at)} where a step is {step_words(series.step)}, first before "
                f"frame {at}; windows do not cross them"
            )
        if gaps.size > 0.2 * max(1, series.num_frames):
            yield f"steps between frames are irregular: {_share(len(gaps), series.num_frames)} differ from most"
    if seen.frozen:
        yield (
            f"{_share(seen.frozen, seen.pairs)} frames equal the frame before them: nothing moved, or a recording that "
            "hung"
        )


def _between(series: GridSeries, at: int) -> str:
    assert series.times is not None  # asked for only where there are gaps
    return f"{step_words(series.times[at] - series.times[at - 1])} pass"


def _clips(series: GridSeries, seen: Survey) -> Iterator[str]:
    if series.num_clips == 1:
        return
    lengths = np.bincount(series.clip_numbers, minlength=series.num_clips)
    if (single := np.flatnonzero(lengths == 1)).size:
        yield f"{_share(len(single), len(lengths))} clips have a single frame: {series.clip_names[int(single[0])]}"
    if lengths.max() > 5 * np.median(lengths):
        name = series.clip_names[int(lengths.argmax())]
        yield f"clips differ much in length: {name} has {lengths.max():,} frames, the median is {np.median(lengths):g}"


def _coordinates(series: GridSeries, seen: Survey) -> Iterator[str]:
    for name, what, values in (("y", "rows", series.y), ("x", "columns", series.x)):
        if values is None or len(values) < 2:
            continue
        steps = np.diff(values)
        if (steps == 0.0).any() or (steps.min() < 0.0 < steps.max()):
            at = int(np.flatnonzero(np.sign(steps) != np.sign(steps[0]))[0]) if steps[0] else 0
            yield f"coordinates of {what} ({name}) neither rise nor fall throughout, first at {at + 1}"
        elif np.ptp(np.abs(steps)) > 0.01 * np.abs(steps).mean():
            yield f"coordinates of {what} ({name}) are not evenly spaced"
    if series.y is not None and series.x is not None and np.abs(series.y).max() > 90.0 >= np.abs(series.x).max():
        yield "rows reach beyond 90 and columns do not: if these are degrees, latitude and longitude are swapped"


def _cells(series: GridSeries, seen: Survey) -> Iterator[str]:
    moving = seen.cell_low < seen.cell_high
    data = np.isfinite(seen.cell_low)
    still = data & ~moving
    if still.any() and moving.any():
        yield f"{_share(int(still.sum()), int(data.sum()))} cells never change"
    if (empty := int((~data).all(axis=0).sum())) > 0:
        yield f"{_share(empty, series.height * series.width)} cells have no data"


def _scale(series: GridSeries, seen: Survey) -> Iterator[str]:
    low, high = float(np.nanmin(seen.low)), float(np.nanmax(seen.high))
    pictures = series.value_range is None and not series.units and series.num_channels in (1, 3)
    if pictures and seen.whole and low >= 0.0 and 1.0 < high <= 255.0 and high > 200.0:
        yield (
            f"whole numbers from {low:g} to {high:g} look like 8-bit grey values: declare the range 0 to 255, so that "
            "they are scaled by it"
        )
    if series.values.dtype.itemsize > 3 and max(abs(low), abs(high)) > _WHOLE_IN_SINGLE and seen.whole:
        yield f"whole numbers up to {max(abs(low), abs(high)):g} are beyond what single precision holds exactly"
    means = np.abs(seen.mean[np.isfinite(seen.mean)])
    if len(means) > 1 and means.min() > 0.0 and means.max() > 1e4 * means.min():
        yield f"channels differ in size by {means.max() / means.min():.2g} times: scale each by itself"
