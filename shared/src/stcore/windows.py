"""Windows over a grid series: a history and the frames that follow it, never across clips or gaps in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.grids import GridSeries

Integers = NDArray[np.int64]
WindowFrames = Float[np.ndarray, "window time channel height width"]

_KTH_NEAR = ("jogging", "running")
_KTH_NEAR_STEP = 3


@dataclass(frozen=True, eq=False)
class Windows:
    """Places in a series where `history` frames and the `horizon` frames after them lie without a break."""

    series: GridSeries
    starts: Integers
    """First frame of each window."""
    history: int
    horizon: int
    offsets: Integers | None = None
    """Place of each frame of a window after its first, rising from 0; without them, frames follow one another."""

    @property
    def length(self) -> int:
        """Frames of one window."""
        return self.history + self.horizon

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, ids: Integers) -> NDArray[np.int64]:
        """Return the frame numbers (window, frame) of the windows `ids`."""
        offsets = np.arange(self.length) if self.offsets is None else self.offsets
        return self.starts[np.asarray(ids, dtype=np.int64).reshape(-1), None] + offsets

    def load(self, ids: Integers) -> tuple[WindowFrames, WindowFrames]:
        """Return history and future of the windows `ids` as float32 in the units of the data; missing cells are NaN."""
        rows = self.rows(ids)
        unique, places = np.unique(rows, return_inverse=True)
        frames = self.series.frames(unique)
        clips = frames.reshape(rows.shape + frames.shape[1:]) if len(unique) == rows.size and _rising(rows) else (
            frames[places.reshape(rows.shape)]
        )  # fmt: skip
        return clips[:, : self.history], clips[:, self.history :]

    def valid(self, ids: Integers) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return where history and future of the windows `ids` hold data."""
        rows = self.rows(ids)
        here = self.series.valid(rows.reshape(-1)).reshape(rows.shape + self.series.shape[1:])
        return here[:, : self.history], here[:, self.history :]

    def times(self, ids: Integers) -> NDArray[np.datetime64] | None:
        """Return the moment of each frame (window, frame) of the windows `ids`; none where the series has no times."""
        return None if self.series.times is None else self.series.times[self.rows(ids)]

    def names(self, ids: Integers) -> list[str]:
        """Return a name for each window: its clip, and the frame of the clip where it starts."""
        numbers = self.series.clip_numbers
        first = np.searchsorted(numbers, np.arange(self.series.num_clips))
        starts = self.starts[np.asarray(ids, dtype=np.int64).reshape(-1)]
        return [f"{self.series.clip_names[numbers[at]]}@{at - first[numbers[at]]}" for at in starts]


def _rising(rows: Integers) -> bool:
    return bool((np.diff(rows.reshape(-1)) > 0).all())


def find_windows(
    series: GridSeries,
    *,
    history: int,
    horizon: int,
    stride: int = 1,
    rule: Literal["forward", "kth"] = "forward",
    where: str = "grid",
) -> Windows:
    """Find every window of `history` and `horizon` frames that crosses neither clips nor gaps.

    Args:
        series: the frames.
        history: frames that are given, at least 1.
        horizon: frames that are to be told, at least 0.
        stride: frames from the start of one window to the start of the next, at least 1.
        rule: `kth` counts from the end of each clip back, by a whole window, and by 3 frames for jogging and running
            (OpenSTL, `dataloader_kth.py`); `stride` is not used then.
        where: what the series is, for the message.

    Raises:
        UserError: no stretch of the series is long enough.
    """
    for name, value, least in (("history", history, 1), ("horizon", horizon, 0), ("stride", stride, 1)):
        if value < least:
            raise UserError(f"data.{name}: {value}; expected at least {least}")
    length = history + horizon
    runs = series.runs()
    if rule == "kth":
        found = [_kth_starts(run, length, series.clip_names[series.clip_numbers[run.start]]) for run in runs]
    else:
        found = [np.arange(run.start, run.stop - length + 1, stride, dtype=np.int64) for run in runs]
    starts = np.concatenate([np.zeros(0, dtype=np.int64), *found])
    if not len(starts):
        longest = max((len(run) for run in runs), default=0)
        clips = f" in {series.num_clips} clips" if series.num_clips != 1 else ""
        raise UserError(
            f"{where}: {series.num_frames} frames{clips}, the longest stretch without a gap has {longest}; expected at "
            f"least {length} frames for a history of {history} and a horizon of {horizon}"
        )
    return Windows(series, starts, history, horizon)


def spaced_windows(
    series: GridSeries,
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    stride: int = 1,
    drop_last: int = 0,
    where: str = "grid",
) -> Windows:
    """Find every window whose frames lie at given places around an anchor, within clips and without gaps.

    Args:
        series: the frames.
        inputs: places of the history, rising, relative to its last frame, which is 0, such as -18, -12, -6, 0.
        outputs: places of the frames that are to be told, rising, from 1 on.
        stride: frames from one anchor to the next, at least 1.
        drop_last: windows at the end of each stretch to leave out.
        where: what the series is, for the message.

    Raises:
        UserError: places are not in order, or no stretch of the series is long enough.
    """
    places = np.array([*inputs, *outputs], dtype=np.int64)
    if not len(inputs) or inputs[-1] != 0 or (np.diff(places) <= 0).any():
        raise UserError(
            f"{where}: places {list(inputs)} and {list(outputs)}; expected rising ones, the history up to 0"
        )
    if stride < 1:
        raise UserError(f"data.stride: {stride}; expected at least 1")
    before, length = -int(places[0]), int(places[-1] - places[0]) + 1
    runs = series.runs()
    found = [np.arange(run.start, run.stop - length + 1 - drop_last, stride, dtype=np.int64) for run in runs]
    starts = np.concatenate([np.zeros(0, dtype=np.int64), *found])
    if not len(starts):
        longest = max((len(run) for run in runs), default=0)
        raise UserError(
            f"{where}: {series.num_frames} frames, the longest stretch without a gap has {longest}; expected at least "
            f"{length + drop_last} frames for places {list(inputs)} and {list(outputs)}"
        )
    return Windows(series, starts, len(inputs), len(outputs), places + before)


def _kth_starts(run: range, length: int, clip_name: str) -> Integers:
    step = _KTH_NEAR_STEP if any(name in clip_name for name in _KTH_NEAR) else length
    return np.arange(run.stop - length, run.start - 1, -step, dtype=np.int64)[::-1].copy()
