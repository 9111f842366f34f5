"""Fields on a grid over time: the container that every reader of frames makes and every method for frames takes.

Values stay in their own units and where they are (in memory, mapped from a file, or lazy); frames are handed out as
float32 by number. Nothing is scaled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import join, pick, read_frames
from stcore.time_steps import breaks, step_of, step_words

if TYPE_CHECKING:
    from stcore.readers.grid_options import GridReadOptions

Integers = NDArray[np.int64]
Frames = Float[np.ndarray, "frame channel height width"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Turned:
    """How rows and columns of a file were put into another order; `stcore.coordinates` undoes it."""

    rows: Integers
    """Row of the file that each row comes from."""
    columns: Integers
    y: NDArray[np.float64] | None
    """Coordinates as in the file."""
    x: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class GridSeries:
    """Frames (channel, height, width) in time, in one clip or several; validated, read-only.

    >>> series = GridSeries(values=np.zeros((5, 1, 8, 8), np.uint8), clip=[0, 0, 0, 1, 1])
    >>> series.num_frames, series.num_clips, series.frames([4]).shape
    (5, 2, (1, 1, 8, 8))
    """

    values: Any
    """Frames (time, channel, height, width): an array, a memory map, a store of `frame_stores`, or a lazy array."""
    times: NDArray[np.datetime64] | None = None
    """Moment of each frame, to the microsecond, rising within a clip; none where the files have none."""
    clip: Integers | None = None
    """Number of the clip of each frame, never falling, from 0; one clip when not given. No window crosses clips."""
    channels: tuple[str, ...] = ()
    """Names of the channels, all different; given as 0, 1, … when empty."""
    units: tuple[str, ...] = ()
    """Unit of each channel; empty where none is known."""
    y: NDArray[np.float64] | None = None
    """Coordinate of each row."""
    x: NDArray[np.float64] | None = None
    """Coordinate of each column."""
    mask: NDArray[np.bool_] | None = None
    """True where there is data: (height, width) for all frames, or like the values. Without one, everywhere."""
    clip_names: tuple[str, ...] = ()
    """Name of each clip, all different; given as 0, 1, … when empty."""
    value_range: tuple[float, float] | None = None
    """Lowest and highest value there can be, such as (0, 255) for 8-bit images; none when not known."""
    known_step: np.timedelta64 | None = None
    """Time from one frame to the next where it is known without dates, such as from the frame rate of a film."""
    axis_names: tuple[str, str] = ("y", "x")
    """What rows and columns are called; `lat` and `lon` for degrees on the globe."""
    turned: Turned | None = None
    """The order of rows and columns in the file, where it is another."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "values", _checked_values(self.values))
        count = self.num_frames
        if self.times is not None:
            set_(self, "times", _frozen(self.times, "times", "datetime64[us]", "M", (count,)))
        set_(self, "clip", _clips(self.clip, count))
        for name, size in (("y", self.height), ("x", self.width)):
            if (given := getattr(self, name)) is not None:
                set_(self, name, _frozen(given, f"coordinate {name}", np.float64, "iuf", (size,)))
        if self.mask is not None:
            set_(self, "mask", _checked_mask(self.mask, self.shape))
        self._check_names()
        self._check_times()
        if self.value_range is not None:
            low, high = (float(bound) for bound in self.value_range)
            if not low < high:
                raise UserError(f"grid: value range {low} to {high}; expected the lower bound first")
            set_(self, "value_range", (low, high))

    def _check_names(self) -> None:
        set_ = object.__setattr__
        clips = int(self.clip_numbers[-1]) + 1 if self.num_frames else 0
        set_(self, "channels", tuple(self.channels) or tuple(map(str, range(self.num_channels))))
        set_(self, "clip_names", tuple(self.clip_names) or tuple(map(str, range(clips))))
        units = tuple(self.units)
        set_(self, "units", units * self.num_channels if len(units) == 1 else units)
        for kind, names, count in (
            ("channel", self.channels, self.num_channels),
            ("clip", self.clip_names, clips),
        ):
            if len(names) != count:
                raise UserError(f"grid: {len(names)} {kind} names; expected {count}")
            if len(set(names)) != count:
                twice = next(name for index, name in enumerate(names) if name in names[:index])
                raise UserError(f"grid: {kind} name {twice!r:.60} occurs twice; expected different ones")
        if self.units and len(self.units) != self.num_channels:
            raise UserError(f"grid: {len(self.units)} units; expected one for each of {self.num_channels} channels")

    def _check_times(self) -> None:
        if self.times is None:
            return
        if (lost := np.flatnonzero(np.isnat(self.times))).size:
            raise UserError(f"grid: frame {lost[0]} has no time; expected a moment for each frame")
        within = np.diff(self.clip_numbers) == 0
        falls = np.flatnonzero((np.diff(self.times) <= np.timedelta64(0, "us")) & within)
        if falls.size:
            frame = int(falls[0]) + 1
            earlier, later = self.times[frame - 1], self.times[frame]
            found = "the same time as" if earlier == later else f"{later}, before {earlier} of"
            raise UserError(
                f"grid: frame {frame} has {found} the frame before it ({len(falls):,} such); expected rising times"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes (time, channel, height, width)."""
        return self.values.shape

    @property
    def num_frames(self) -> int:
        return int(self.values.shape[0])

    @property
    def num_channels(self) -> int:
        return int(self.values.shape[1])

    @property
    def height(self) -> int:
        return int(self.values.shape[2])

    @property
    def width(self) -> int:
        return int(self.values.shape[3])

    @property
    def num_clips(self) -> int:
        return len(self.clip_names)

    @property
    def clip_numbers(self) -> Integers:
        """Number of the clip of each frame."""
        assert self.clip is not None  # set when made
        return self.clip

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame in the type it is stored in."""
        return int(np.prod(self.shape[1:])) * self.values.dtype.itemsize

    @property
    def step(self) -> np.timedelta64 | None:
        """Time from one frame to the next (months or years where the calendar says so); none where it is not known."""
        usual = None if self.times is None else step_of(self.times, self.clip_numbers)
        return self.known_step if usual is None else usual

    def __len__(self) -> int:
        return self.num_frames

    def runs(self) -> list[range]:
        """Return the stretches of frames within one clip and without a gap in time, in order."""
        edges = np.flatnonzero(np.diff(self.clip_numbers) != 0) + 1
        if self.times is not None:
            edges = np.union1d(edges, breaks(self.times, self.clip_numbers))
        bounds = [0, *edges.tolist(), self.num_frames]
        return [range(start, stop) for start, stop in pairwise(bounds) if stop > start]

    def raw(self, ids: Sequence[int] | Integers | range) -> NDArray[Any]:
        """Return the frames `ids` in the type they are stored in.

        Raises:
            UserError: there is no such frame, or the file can no longer be read.
        """
        chosen = np.asarray(ids, dtype=np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= self.num_frames):
            raise UserError(f"grid: frames {chosen.min()} to {chosen.max()}; expected 0 to {self.num_frames - 1}")
        if not chosen.size:
            return np.empty((0, *self.shape[1:]), dtype=self.values.dtype)
        return read_frames(self.values, chosen)

    def frames(self, ids: Sequence[int] | Integers | range) -> Frames:
        """Return the frames `ids` as float32 in the units of the data; cells that the mask leaves out are NaN."""
        chosen = np.asarray(ids, dtype=np.int64).reshape(-1)
        out = self.raw(chosen).astype(np.float32)
        if self.mask is not None:
            here = self.mask if self.mask.ndim == 2 else self.mask[chosen]
            out[np.broadcast_to(~here, out.shape)] = np.nan
        return out

    def valid(self, ids: Sequence[int] | Integers | range) -> NDArray[np.bool_]:
        """Return where the frames `ids` (frame, channel, height, width) hold data."""
        chosen = np.asarray(ids, dtype=np.int64).reshape(-1)
        shape = (len(chosen), *self.shape[1:])
        if self.mask is None:
            return np.ones(shape, dtype=np.bool_)
        return np.broadcast_to(self.mask if self.mask.ndim == 2 else self.mask[chosen], shape).copy()

    def select(self, ids: slice | Sequence[int] | Integers | range) -> GridSeries:
        """Return the frames `ids`, in rising order, without reading them; clips that lose all frames go."""
        rows = np.arange(self.num_frames)[ids] if isinstance(ids, slice) else np.asarray(ids, np.int64).reshape(-1)
        if rows.size and (rows.min() < 0 or rows.max() >= self.num_frames or (np.diff(rows) <= 0).any()):
            raise UserError(f"grid: frames {rows.min()} to {rows.max()}; expected rising, 0 to {self.num_frames - 1}")
        clips = self.clip_numbers[rows]
        kept, numbers = np.unique(clips, return_inverse=True)
        return replace(
            self,
            values=pick(self.values, rows.astype(np.int64)),
            times=None if self.times is None else self.times[rows],
            clip=numbers.astype(np.int64),
            mask=self.mask[rows] if self.mask is not None and self.mask.ndim == 4 else self.mask,
            clip_names=tuple(self.clip_names[number] for number in kept),
        )

    def select_clips(self, clips: Sequence[int] | Integers | range) -> GridSeries:
        """Return all frames of the clips `clips`."""
        return self.select(np.flatnonzero(np.isin(self.clip_numbers, np.asarray(clips, dtype=np.int64))))

    def check(self) -> list[str]:
        """Return everything odd about these frames, one sentence each; an empty list when nothing is."""
        from stcore.grid_checks import oddities

        return oddities(self)

    def describe(self) -> dict[str, Any]:
        """Return sizes, times and the spread of each channel, as plain values fit for JSON."""
        from stcore.grid_checks import survey

        seen = survey(self)
        lengths = np.bincount(self.clip_numbers, minlength=self.num_clips)
        facts: dict[str, Any] = {
            "frames": self.num_frames,
            "clips": self.num_clips,
            "channels": list(self.channels),
            "units": list(self.units),
            "height": self.height,
            "width": self.width,
            "type": str(self.values.dtype),
            "values": dict(zip(self.channels, seen.spreads(), strict=True)),
        }
        if self.num_clips > 1:
            facts["clip_length"] = {"min": int(lengths.min()), "max": int(lengths.max())}
        if self.value_range is not None:
            facts["value_range"] = list(self.value_range)
        if self.times is not None and self.num_frames:
            facts["times"] = {"first": str(self.times.min()), "last": str(self.times.max())}
            facts["gaps"] = len(breaks(self.times, self.clip_numbers))
        if self.step is not None:
            facts["step"] = step_words(self.step)
        if self.mask is not None:
            facts["missing_share"] = float(1.0 - self.mask.mean())
        if seen.sampled:
            facts["looked_at_frames"] = seen.num_frames
        return facts

    @classmethod
    def read(cls, source: str | Path, options: GridReadOptions | None = None) -> GridSeries:
        """Read a file, a folder or a named data set (see `stcore.readers.grids`)."""
        from stcore.readers.grid_options import GridReadOptions
        from stcore.readers.grids import read_grid

        return read_grid(str(source), options or GridReadOptions())

    def write(self, path: str | Path) -> None:
        """Write a .npz file or a .zarr folder that `read` turns back into the same frames.

        Raises:
            UserError: another ending, or it cannot be written.
        """
        from stcore.readers.grid_writing import write_grid

        write_grid(self, Path(path))


def concatenate(parts: Sequence[GridSeries]) -> GridSeries:
    """Put the clips of several series one after another; where names repeat, the number of the part goes before them.

    Raises:
        UserError: nothing to join, or frame sizes, channels, units, coordinates or masks differ.
    """
    if not parts:
        raise UserError("grid: nothing to join; expected at least one series")
    first = parts[0]
    for number, part in enumerate(parts[1:], 1):
        for name in ("shape", "channels", "units"):
            mine, theirs = getattr(part, name), getattr(first, name)
            if (mine[1:] != theirs[1:]) if name == "shape" else (mine != theirs):
                raise UserError(f"grid: part {number} has {name} {mine}; expected {theirs} as part 0")
    names = [name for part in parts for name in part.clip_names]
    if len(set(names)) != len(names):
        names = [f"{number}/{name}" for number, part in enumerate(parts) for name in part.clip_names]
    ends = np.cumsum([0, *(part.num_clips for part in parts)])
    timed = all(part.times is not None for part in parts)
    return replace(
        first,
        values=join([part.values for part in parts]),
        times=np.concatenate([part.times for part in parts if part.times is not None]) if timed else None,
        clip=np.concatenate([part.clip_numbers + end for part, end in zip(parts, ends[:-1], strict=True)]),
        mask=_joined_masks(parts),
        clip_names=tuple(names),
        value_range=first.value_range if len({part.value_range for part in parts}) == 1 else None,
    )


def _joined_masks(parts: Sequence[GridSeries]) -> NDArray[np.bool_] | None:
    masks = [part.mask for part in parts]
    if all(mask is None for mask in masks):
        return None
    some = masks[0]
    if some is not None and some.ndim == 2 and all(mask is not None and np.array_equal(mask, some) for mask in masks):
        return some
    return np.concatenate([part.valid(range(part.num_frames)) for part in parts])


def _checked_values(values: Any) -> Any:
    """Return `values`, read-only where they are an array in memory, or say what is wrong with their shape or type."""
    given = np.asarray(values) if isinstance(values, list | tuple) else values
    shape, dtype = getattr(given, "shape", None), getattr(given, "dtype", None)
    if shape is None or dtype is None:
        raise UserError(f"grid: values are a {type(values).__name__}; expected an array (time, channel, height, width)")
    if len(shape) != 4:
        raise UserError(f"grid: values of shape {tuple(shape)}; expected four axes: time, channel, height, width")
    if dtype.kind not in "iufb":
        raise UserError(f"grid: values of type {dtype}; expected real numbers")
    if min(shape[1:]) < 1:
        raise UserError(f"grid: values of shape {tuple(shape)}; expected at least one channel, row and column")
    if isinstance(given, np.ndarray):
        given = given.view()
        given.setflags(write=False)
    return given


def _frozen(values: Any, kind: str, dtype: Any, kinds: str, shape: tuple[int, ...]) -> NDArray[Any]:
    given = np.asarray(values)
    if given.dtype.kind not in kinds and given.size:
        raise UserError(f"grid: {kind} of type {given.dtype}; expected {np.dtype(dtype).name}")
    if given.shape != shape:
        raise UserError(f"grid: {kind} of shape {given.shape}; expected {shape}")
    array = np.array(given, dtype=dtype)
    array.setflags(write=False)
    return array


def _clips(clip: Any, count: int) -> Integers:
    if clip is None:
        clip = np.zeros(count, dtype=np.int64)
    numbers = _frozen(clip, "clip numbers", np.int64, "iu", (count,))
    steps = np.diff(numbers, prepend=0)
    if count and (numbers[0] != 0 or steps.min() < 0 or steps.max() > 1):
        frame = int(np.flatnonzero((steps < 0) | (steps > 1) | ((numbers != 0) & (np.arange(count) == 0)))[0])
        raise UserError(
            f"grid: clip number {numbers[frame]} at frame {frame}; expected 0, 1, … in order, each clip in one piece"
        )
    return numbers


def _checked_mask(mask: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    given = np.asarray(mask)
    if given.dtype.kind != "b":
        raise UserError(f"grid: mask of type {given.dtype}; expected True where there is data, False where not")
    if given.shape not in (shape[2:], shape):
        raise UserError(f"grid: mask of shape {given.shape}; expected {shape[2:]} or {shape}")
    if given.size and not given.any():
        raise UserError("grid: the mask is False everywhere; expected True where there is data")
    array = given.view() if given.flags.c_contiguous else given.copy()
    array.setflags(write=False)
    return array
