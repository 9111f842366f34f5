"""Windows of one part of a data set: cut from a series, or as a file of UniST has them.

A sample is one channel of one window; sample `i` is channel `i % channels` of window `i // channels`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import batches
from stcore.grids import GridSeries
from stcore.readers.unist import StampForm, WindowArrays
from stcore.sampling import Indices
from stcore.windows import Windows, find_windows
from vlm4st.data_options import WindowShape
from vlm4st.timestamps import WEEK, clock_of_moments, clock_of_stamps, extended, second_of_week

Clock = Int64[ndarray, "frame 2"]
Block = Float32[ndarray, "frame channel row column"]


@runtime_checkable
class WindowSet(Protocol):
    """Samples of one part, by number; values are in units of the data, NaN where there are none."""

    @property
    def channels(self) -> int: ...
    @property
    def native(self) -> tuple[int, int]: ...
    @property
    def length(self) -> int: ...
    @property
    def windows(self) -> int: ...

    def __len__(self) -> int: ...

    def load(self, ids: Indices) -> Float32[ndarray, "sample frame row column"]:
        """Return all frames of the samples `ids`."""
        ...

    def clock(self, ids: Indices) -> Int64[ndarray, "sample frame 2"] | None:
        """Return weekday and second of the day of every frame; None where they are not known."""
        ...

    def elapsed(self) -> Int64[ndarray, "window"]:
        """Return the seconds from some moment to the first frame of each window."""
        ...

    def names(self, ids: Indices) -> list[str]:
        """Return what a user calls the samples `ids`."""
        ...

    def blocks(self, windows: Indices | None = None) -> Iterator[Block]:
        """Yield every frame of the part, or of some windows; some may come more than once."""
        ...

    def frames(self, windows: Indices | None = None) -> Iterator[tuple[Block, Clock | None]]:
        """Yield the frames of the part, or of some windows, each once, with their clocks."""
        ...


@dataclass(frozen=True, eq=False)
class SeriesWindows:
    """Windows over a series of frames."""

    places: Windows

    @property
    def channels(self) -> int:
        return self.places.series.num_channels

    @property
    def native(self) -> tuple[int, int]:
        return self.places.series.height, self.places.series.width

    @property
    def length(self) -> int:
        return self.places.length

    @property
    def windows(self) -> int:
        return len(self.places)

    def __len__(self) -> int:
        return self.windows * self.channels

    def load(self, ids: Indices) -> Float32[ndarray, "sample frame row column"]:
        window, channel = np.divmod(np.asarray(ids, dtype=np.int64), self.channels)
        rows = self.places.rows(window)
        unique, at = np.unique(rows, return_inverse=True)
        return self.places.series.frames(unique)[at.reshape(rows.shape), channel[:, None]]

    def times(self, ids: Indices) -> NDArray[Any] | None:
        """Return the moment of every frame (sample, frame); None where the series has none."""
        return self.places.times(np.asarray(ids, dtype=np.int64) // self.channels)

    def clock(self, ids: Indices) -> Int64[ndarray, "sample frame 2"] | None:
        times = self.times(ids)
        return None if times is None else clock_of_moments(times)

    def elapsed(self) -> Int64[ndarray, "window"]:
        times = self.places.series.times
        if times is None:
            raise UserError(f"{self.places.series.num_frames} frames without times; expected some, to count days; pass "
                            "--data.start and --data.step")  # fmt: skip
        return times[self.places.starts].astype("datetime64[s]").astype(np.int64)

    def names(self, ids: Indices) -> list[str]:
        chosen = np.asarray(ids, dtype=np.int64)
        names = self.places.names(chosen // self.channels)
        if self.channels == 1:
            return names
        which = (self.places.series.channels[number] for number in chosen % self.channels)
        return [f"{name} {channel}" for name, channel in zip(names, which, strict=True)]

    def blocks(self, windows: Indices | None = None) -> Iterator[Block]:
        for block, _ in self.frames(windows):
            yield block

    def frames(self, windows: Indices | None = None) -> Iterator[tuple[Block, Clock | None]]:
        series = self.places.series
        rows = np.arange(series.num_frames) if windows is None else np.unique(self.places.rows(windows))
        for batch in batches(len(rows), 4 * int(np.prod(series.shape[1:]))):
            times = series.times
            yield series.frames(rows[batch]), None if times is None else clock_of_moments(times[rows[batch]])


@dataclass(frozen=True, eq=False)
class ArrayWindows:
    """Windows as a file of UniST has them."""

    values: NDArray[np.float32]
    """(window, frame, row, column), mapped."""
    clocks: Int64[ndarray, "window frame 2"] | None
    moments: NDArray[Any] | None = None
    """First moment of each window, where the file has moments."""
    name: str = ""
    channels: int = 1

    @property
    def native(self) -> tuple[int, int]:
        return int(self.values.shape[2]), int(self.values.shape[3])

    @property
    def length(self) -> int:
        return int(self.values.shape[1])

    @property
    def windows(self) -> int:
        return len(self.values)

    def __len__(self) -> int:
        return self.windows

    def load(self, ids: Indices) -> Float32[ndarray, "sample frame row column"]:
        return np.asarray(self.values[np.asarray(ids, dtype=np.int64)], dtype=np.float32)

    def clock(self, ids: Indices) -> Int64[ndarray, "sample frame 2"] | None:
        return None if self.clocks is None else self.clocks[np.asarray(ids, dtype=np.int64)]

    def elapsed(self) -> Int64[ndarray, "window"]:
        if self.moments is not None:
            return self.moments.astype("datetime64[s]").astype(np.int64)
        if self.clocks is None:
            raise UserError(f"{self.name}: windows without timestamps; expected some, to count days")
        # Pairs know the place in the week alone: windows are in order of time, and no week is passed over.
        first = second_of_week(self.clocks[:, 0])
        return first[0] + np.concatenate([np.zeros(1, np.int64), np.cumsum(np.diff(first) % WEEK)])

    def names(self, ids: Indices) -> list[str]:
        return [f"{self.name}@{number}" for number in np.asarray(ids).tolist()]

    def blocks(self, windows: Indices | None = None) -> Iterator[Block]:
        chosen = np.arange(self.windows) if windows is None else np.asarray(windows, dtype=np.int64)
        for batch in batches(len(chosen), 4 * int(np.prod(self.values.shape[1:]))):
            values = self.load(chosen[batch])
            yield values.reshape(-1, 1, *values.shape[2:])

    def frames(self, windows: Indices | None = None) -> Iterator[tuple[Block, Clock | None]]:
        chosen = np.arange(self.windows) if windows is None else np.unique(np.asarray(windows, dtype=np.int64))
        new = self._new[chosen] if windows is None else self._new_frames(chosen)
        for batch in batches(len(chosen), 4 * int(np.prod(self.values.shape[1:]))):
            keep = np.arange(self.length) < new[batch][:, None]
            values, clock = self.load(chosen[batch]), self.clock(chosen[batch])
            yield values[keep][:, None], None if clock is None else clock[keep]

    @cached_property
    def _new(self) -> Int64[ndarray, "window"]:
        return self._new_frames(np.arange(self.windows))

    def _new_frames(self, chosen: NDArray[np.int64]) -> Int64[ndarray, "window"]:
        """Return how many frames of each window the next one does not begin with; the last is like the one before."""
        count = np.full(len(chosen), self.length, dtype=np.int64)
        if self.clocks is None or len(chosen) < 2:
            return count
        within = second_of_week(self.clocks[chosen])
        hit = within[:-1] == within[1:, :1]
        hit &= np.diff(chosen)[:, None] <= self.length  # windows far apart may begin at the same hour of a week
        count[:-1] = np.where(hit.any(axis=1), np.maximum(hit.argmax(axis=1), 1), self.length)
        count[-1] = count[-2]
        return count


def series_windows(series: GridSeries, shape: WindowShape, *, stride: int, where: str, timed: bool) -> SeriesWindows:
    """Return the windows of a part of a series.

    Raises:
        UserError: none fits, or times are needed and there are none.
    """
    if timed and series.times is None:
        raise UserError(f"{where}: frames without times; expected some; pass --data.start 2024-01-01T00:00 and "
                        "--data.step '30 minutes', or --data.timestamps none")  # fmt: skip
    return SeriesWindows(find_windows(series, history=shape.history, horizon=shape.horizon, stride=stride, where=where))


def array_windows(
    arrays: WindowArrays, shape: WindowShape, *, form: StampForm, slots: int, where: str, timed: bool, name: str
) -> ArrayWindows:
    """Return the windows of a part of a file of UniST; frames beyond history and horizon are not used.

    Raises:
        UserError: they are too short, or a stamp is out of range.
    """
    frames = arrays.values.shape[1]
    if frames < shape.length:
        raise UserError(f"{where}: windows of {frames} frames; expected at least {shape.length}, for a history of "
                        f"{shape.history} and a horizon of {shape.horizon}")  # fmt: skip
    values = arrays.values[:, : shape.length]
    if not timed:
        return ArrayWindows(values, None, name=name)
    if arrays.stamps.shape[1] < shape.history:
        raise UserError(f"{where}: {arrays.stamps.shape[1]} timestamps a sample; expected at least {shape.history}, "
                        "one for each frame of the history")  # fmt: skip
    clock = clock_of_stamps(np.asarray(arrays.stamps), form, slots=slots, where=f"{where}: timestamps")
    moments = np.asarray(arrays.stamps[:, 0]) if form == "text" else None
    return ArrayWindows(values, extended(clock, shape.length), moments, name=name)


def step_seconds(windows: WindowSet) -> int | None:
    """Return the seconds from one frame to the next, where they are known."""
    clock = windows.clock(np.zeros(1, dtype=np.int64)) if len(windows) else None
    if clock is None or clock.shape[1] < 2:
        return None
    steps = np.diff(second_of_week(clock[0])) % WEEK
    return int(np.median(steps)) or None


def samples_of(windows: Indices, channels: int) -> Indices:
    """Return the samples of some windows: all their channels, window after window.

    >>> samples_of(np.array([4, 1]), 2).tolist()
    [8, 9, 2, 3]
    """
    return (np.asarray(windows, dtype=np.int64)[:, None] * channels + np.arange(channels)).reshape(-1)
