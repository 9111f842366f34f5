"""Where the frames of a grid lie: in memory, mapped from a file, or made when asked for; all read by frame number.

A store has a shape (time, channel, height, width), a type, and `read(ids)`; it holds no more than it must. Stores nest:
one picks frames of another, joins several, or scales one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Shape = tuple[int, int, int, int]


@runtime_checkable
class FrameStore(Protocol):
    """Frames that are read by their numbers."""

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, ids: Integers) -> NDArray[Any]:
        """Return the frames `ids` (frame, channel, height, width) in the store's own type."""
        ...


def read_frames(values: Any, ids: Integers) -> NDArray[Any]:
    """Return frames `ids` of a store, a NumPy array or any lazy array that is indexed along its first axis."""
    if isinstance(values, FrameStore):
        return values.read(ids)
    if len(ids) and ids[-1] - ids[0] == len(ids) - 1 and (np.diff(ids) == 1).all():
        return np.asarray(values[int(ids[0]) : int(ids[-1]) + 1])  # a slice: no copy of what lies in memory
    return np.asarray(values[ids])


@dataclass(frozen=True, eq=False)
class ClipFrames:
    """Clips in one array whose axes lie in any order; clip after clip, never copied as a whole."""

    values: NDArray[Any]
    """Array in memory or mapped, viewed as (clip, time, channel, height, width)."""

    @property
    def shape(self) -> Shape:
        clips, time, channels, height, width = self.values.shape
        return (clips * time, channels, height, width)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, ids: Integers) -> NDArray[Any]:
        time = self.values.shape[1]
        return np.asarray(self.values[ids // time, ids % time])


@dataclass(frozen=True, eq=False)
class PickedFrames:
    """Some frames of another store, in any order."""

    values: Any
    rows: Integers

    @property
    def shape(self) -> Shape:
        return (len(self.rows), *self.values.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, ids: Integers) -> NDArray[Any]:
        return read_frames(self.values, self.rows[ids])


@dataclass(frozen=True, eq=False)
class JoinedFrames:
    """Several stores one after another."""

    pieces: tuple[Any, ...]
    ends: Integers
    """Number of frames up to and with each piece."""

    @property
    def shape(self) -> Shape:
        return (int(self.ends[-1]), *self.pieces[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(piece.dtype for piece in self.pieces))

    def read(self, ids: Integers) -> NDArray[Any]:
        out = np.empty((len(ids), *self.shape[1:]), dtype=self.dtype)
        which = np.searchsorted(self.ends, ids, side="right")
        for number in np.unique(which):
            mine = which == number
            first = int(self.ends[number - 1]) if number else 0
            out[mine] = read_frames(self.pieces[number], ids[mine] - first)
        return out


@dataclass(frozen=True, eq=False)
class StackedFrames:
    """The channels of several stores of the same frames, one store after another."""

    pieces: tuple[Any, ...]

    @property
    def shape(self) -> Shape:
        first = self.pieces[0].shape
        return (first[0], sum(piece.shape[1] for piece in self.pieces), *first[2:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(piece.dtype for piece in self.pieces))

    def read(self, ids: Integers) -> NDArray[Any]:
        return np.concatenate([read_frames(piece, ids) for piece in self.pieces], axis=1, dtype=self.dtype)


@dataclass(frozen=True, eq=False)
class TurnedFrames:
    """Another store with its rows and columns in another order."""

    values: Any
    rows: Integers
    columns: Integers

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, ids: Integers) -> NDArray[Any]:
        return read_frames(self.values, ids)[:, :, self.rows[:, None], self.columns]


@dataclass(frozen=True, eq=False)
class ScaledFrames:
    """Another store times a factor plus an offset, worked out in double precision and kept in single."""

    values: Any
    factor: float
    offset: float
    missing_value: float | None = None
    """Number of the other store that stands for a missing cell; it becomes NaN."""

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def read(self, ids: Integers) -> NDArray[Any]:
        frames = read_frames(self.values, ids)
        with np.errstate(over="ignore"):  # what becomes infinite is found and named when the series is made
            scaled = (frames.astype(np.float64) * self.factor + self.offset).astype(np.float32)
        if self.missing_value is not None:
            scaled[frames == self.missing_value] = np.nan
        return scaled


@dataclass(frozen=True, eq=False)
class FilledFrames:
    """Another store with a number in place of cells that are not finite."""

    values: Any
    fill: float

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, ids: Integers) -> NDArray[Any]:
        frames = read_frames(self.values, ids)
        return np.where(np.isfinite(frames), frames, np.asarray(self.fill, dtype=frames.dtype))


def as_slice(ids: Integers) -> slice | Integers:
    """Return evenly spaced rising numbers as a slice, which lazy arrays read in one go; others as they are.

    >>> as_slice(np.array([3, 9, 15])), as_slice(np.array([3, 4, 6])).tolist()
    (slice(3, 16, 6), [3, 4, 6])
    """
    if not len(ids):
        return ids
    steps = np.diff(ids)
    step = int(steps[0]) if len(steps) else 1
    return slice(int(ids[0]), int(ids[-1]) + 1, step) if step > 0 and (steps == step).all() else ids


def spread(count: int, wanted: int, stretch: int = 16) -> Integers:
    """Return about `wanted` of `count` frames, in stretches of consecutive ones spread evenly, the last among them.

    Files unpack whole chunks, so that neighbours cost little; and only neighbours show what does not move.

    >>> spread(100, 6, 3).tolist(), spread(4, 9).tolist()
    ([0, 1, 2, 97, 98, 99], [0, 1, 2, 3])
    """
    if count <= wanted:
        return np.arange(count, dtype=np.int64)
    length = min(stretch, max(1, wanted // 2))
    starts = np.linspace(0, count - length, max(2, wanted // length)).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(length, dtype=np.int64))


def join(pieces: Sequence[Any]) -> Any:
    """Return the stores `pieces` as one; a single one stays as it is."""
    if len(pieces) == 1:
        return pieces[0]
    ends = np.cumsum([piece.shape[0] for piece in pieces], dtype=np.int64)
    return JoinedFrames(tuple(pieces), ends)


def pick(values: Any, rows: Integers) -> Any:
    """Return the frames `rows` of `values` without reading any."""
    if isinstance(values, PickedFrames):
        return PickedFrames(values.values, values.rows[rows])
    return PickedFrames(values, rows)


def batches(count: int, frame_bytes: int, budget: int = 32 * 2**20) -> Iterator[Integers]:
    """Cut `count` frames into runs that stay within `budget` bytes each."""
    size = max(1, budget // max(1, frame_bytes))
    for start, stop in pairwise([*range(0, count, size), count]):
        yield np.arange(start, stop, dtype=np.int64)
