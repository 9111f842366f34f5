"""What is usual at a time of the day, and of the week: a naive forecast, and what anomalies are taken from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError
from vlm4st.windows import WindowSet

Channels = Int64[ndarray, "sample"]
Average = Literal["mean", "median"]
NO_TIME = "frames without times; expected some for a historical average"


@dataclass(frozen=True, eq=False, kw_only=True)
class HistoricalAverage:
    """The mean or median of the training frames of the same weekday and time of day, cell by cell; where there was
    none, of the same time of day; where there was none, of all frames."""

    moments: Int64[ndarray, "moment"]
    """Seconds of the day that occur, rising."""
    table: Float32[ndarray, "key channel row column"]
    """Averages by weekday and moment, then by moment, then of all frames; NaN where there was nothing."""
    by_weekday: bool = True
    average: Average = "mean"
    around: int = 0
    """Moments before and after that count too."""

    @property
    def plain(self) -> bool:
        """Whether it is the usual naive forecast: means of the very moments."""
        return self.average == "mean" and not self.around

    @property
    def words(self) -> str:
        """What it is, in a table of forecasts."""
        return f"usual ({self.average} of {2 * self.around + 1} moments)"

    @classmethod
    def fit(
        cls,
        windows: WindowSet,
        chosen: Int64[ndarray, "window"] | None,
        *,
        by_weekday: bool = True,
        at_least: int = 1,
        average: Average = "mean",
        around: int = 0,
    ) -> HistoricalAverage:
        """Average the frames of a training part, or of some of its windows, each frame once.

        Args:
            windows: of the training part.
            chosen: those that count; None for all.
            by_weekday: tell weekdays apart.
            at_least: values that an average is made of; with fewer, there was nothing.
            average: `mean`, which squared errors ask for; or `median`, which absolute errors do, and which holds all of
                the frames in memory.
            around: moments before and after that count too; Monday follows Sunday, and without weekdays the day itself.

        Raises:
            UserError: the frames have no times.
        """
        seen: list[Int64[ndarray, "moment"]] = []
        for _, clock in windows.frames(chosen):
            if clock is None:
                raise UserError(f"training part: {NO_TIME}")
            seen.append(np.unique(clock[:, 1]))
        moments = np.unique(np.concatenate(seen))
        shape = (7, len(moments), windows.channels, *windows.native)
        parts = _parts(average, _placed(windows, chosen, moments), shape, around, at_least, by_weekday=by_weekday)
        return cls(moments=moments, table=np.concatenate(parts).astype(np.float32), by_weekday=by_weekday,
                   average=average, around=around)  # fmt: skip

    def of_other_days(
        self, windows: WindowSet, chosen: Int64[ndarray, "window"] | None, *, at_least: int = 1
    ) -> HistoricalAverage:
        """Return what is usual at a time of the day on days of other weekdays: what to train against where the days
        known are a week at most. An average that holds a frame itself is nearer to it than to any frame to come, the
        more so the fewer days there are.

        Args:
            windows: of the training part.
            chosen: those that count; None for all.
            at_least: values that an average is made of; with fewer, the day itself counts too.
        """
        count, shape = len(self.moments), (7, len(self.moments), windows.channels, *windows.native)
        table = self.table.copy()
        for weekday in range(7):
            others = _placed(windows, chosen, self.moments, without=weekday)
            table[weekday * count : (weekday + 1) * count] = _parts(self.average, others, shape, self.around, at_least)[
                1
            ]
        return replace(self, table=table, by_weekday=True)

    def at(
        self, clocks: Int64[ndarray, "sample frame 2"], channels: Channels
    ) -> Float32[ndarray, "sample frame row column"]:
        """Return what is usual at some moments, for a channel of each sample."""
        count = len(self.moments)
        place = np.minimum(np.searchsorted(self.moments, clocks[..., 1]), count - 1)
        place = np.where(self.moments[place] == clocks[..., 1], place, -1)
        overall = np.full_like(place, 8 * count)
        fallback = np.where(place >= 0, 7 * count + place, overall)
        keys = np.where(place >= 0, clocks[..., 0] * count + place, overall) if self.by_weekday else fallback
        found = self.table[keys, channels[:, None]]
        for other in (fallback, overall):
            if not (lost := np.isnan(found)).any():
                break
            found = np.where(lost, self.table[other, channels[:, None]], found)
        return found

    def predict(
        self,
        history: Float32[ndarray, "sample time row column"],
        clocks: Int64[ndarray, "sample frame 2"] | None,
        channels: Channels,
        horizon: int,
    ) -> Float32[ndarray, "sample horizon row column"]:
        """Return what is usual at the moments of the last `horizon` frames, as a naive forecast."""
        if clocks is None:
            raise UserError(NO_TIME)
        return self.at(clocks[:, -horizon:], channels)

    def off(self, frames: Float32[ndarray, "frame channel row column"], clock: Int64[ndarray, "frame 2"]) -> Any:
        """Return frames of all channels less what is usual at their moments."""
        channels = np.arange(frames.shape[1])
        clocks = np.broadcast_to(clock, (len(channels), *clock.shape))
        return frames - np.nan_to_num(self.at(clocks, channels)).swapaxes(0, 1)

    def constants(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps, under names that begin with `prefix`."""
        return {f"{prefix}/moments": torch.from_numpy(self.moments.copy()),
                f"{prefix}/table": torch.from_numpy(self.table.copy())}  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside them."""
        return {"usual": "week" if self.by_weekday else "day", "usual_average": self.average,
                "usual_around": self.around}  # fmt: skip

    @classmethod
    def restore(
        cls, constants: Mapping[str, Tensor], prefix: str, facts: Mapping[str, Any]
    ) -> HistoricalAverage | None:
        """Rebuild what `constants` and `facts` kept; None where nothing was taken off."""
        if "usual" not in facts:
            return None
        moments, table = (constants[f"{prefix}/{name}"].cpu().numpy() for name in ("moments", "table"))
        return cls(moments=moments, table=table, by_weekday=facts["usual"] == "week",
                   average=facts.get("usual_average", "mean"), around=facts.get("usual_around", 0))  # fmt: skip


Table = Float[ndarray, "_ channel row column"]


Placed = Iterator[tuple[Float32[ndarray, "frame channel row column"], Int64[ndarray, "frame"]]]
"""Frames, and which moment of the week each is of: weekday times the moments of a day, and moment."""


def _placed(
    windows: WindowSet, chosen: Int64[ndarray, "window"] | None, moments: Int64[ndarray, "moment"], without: int = -1
) -> Placed:
    """Yield frames, but for those of one weekday."""
    for frames, clock in windows.frames(chosen):
        assert clock is not None  # asked for before
        kept = clock[:, 0] != without
        yield frames[kept], (clock[:, 0] * len(moments) + np.searchsorted(moments, clock[:, 1]))[kept]


def _parts(
    average: Average, placed: Placed, shape: tuple[int, ...], around: int, at_least: int, *, by_weekday: bool = False
) -> tuple[Table, Table, Table]:
    """Return averages by moment of the week, where anybody asks for them, by moment of the day, and of all.

    Args:
        average: mean or median.
        placed: frames and their moments.
        shape: weekdays, moments of a day, channels, rows and columns.
        around: moments before and after that count too.
        at_least: values that an average is made of; NaN where there are fewer.
        by_weekday: whether averages by moment of the week are asked for.
    """
    if average == "mean":
        return _means(placed, shape, around, at_least)
    return _medians(placed, shape[1], around, at_least, by_weekday=by_weekday)


def _means(placed: Placed, shape: tuple[int, ...], around: int, at_least: int) -> tuple[Table, Table, Table]:
    """Return means, in one pass."""
    total, count = np.zeros(shape), np.zeros(shape)
    for frames, places in placed:
        known = np.isfinite(frames)
        filled = np.where(known, frames, 0.0)
        for row, place in enumerate(zip(*np.divmod(places, shape[1]), strict=True)):
            total[place] += filled[row]
            count[place] += known[row]

    def mean(of: tuple[Any, Any], least: int) -> Any:
        return np.where(of[1] >= least, of[0] / np.maximum(of[1], 1), np.nan)

    def near(sums: Any) -> Any:
        reach = min(around, (len(sums) - 1) // 2)  # nothing counts twice
        return sum(np.roll(sums, shift, axis=0) for shift in range(-reach, reach + 1))

    weekly = tuple(near(part.reshape(-1, *shape[2:])) for part in (total, count))
    daily = tuple(near(part.sum(0)) for part in (total, count))
    whole = tuple(part.sum((0, 1), keepdims=True)[0] for part in (total, count))
    return mean(weekly, at_least), mean(daily, at_least), mean(whole, 1)


def _medians(
    placed: Placed, moments: int, around: int, at_least: int, *, by_weekday: bool
) -> tuple[Table, Table, Table]:
    """Return medians, with all frames in memory; those that nobody asks for are left."""
    frames, places = (np.concatenate(found) for found in zip(*placed, strict=True))

    def medians(places: Any, count: int) -> Any:
        found = np.full((count, *frames.shape[1:]), np.nan, dtype=np.float32)
        for key in range(count):
            apart = np.abs(places - key)
            mine = frames[np.minimum(apart, count - apart) <= around]
            if len(mine):
                found[key] = _median(mine, at_least)
        return found

    week = 7 * moments
    weekly = medians(places, week) if by_weekday else np.full((week, *frames.shape[1:]), np.nan, dtype=np.float32)
    return weekly, medians(places % moments, moments), _median(frames, 1)[None]


def _median(frames: Float32[ndarray, "frame channel row column"], at_least: int) -> Any:
    """Return the median of each cell's values; NaN where there are fewer than `at_least`."""
    if not len(frames):
        return np.full(frames.shape[1:], np.nan, dtype=np.float32)
    count = np.isfinite(frames).sum(0)
    rising = np.sort(frames, axis=0)  # what is missing comes last
    middle = (np.maximum(count - 1, 0) // 2, count // 2)
    lower, upper = (np.take_along_axis(rising, at[None], axis=0)[0] for at in middle)
    return np.where(count >= at_least, (lower + upper) / 2, np.nan)
