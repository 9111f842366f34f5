"""What is usual at a time of the day, and of the week: a naive forecast, and what anomalies are taken from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        placed = _placed(windows, chosen, moments)
        if average == "mean":
            parts = _means(placed, (7, len(moments), windows.channels, *windows.native), around, at_least)
        else:
            parts = _medians(placed, len(moments), around, at_least, by_weekday=by_weekday)
        return cls(moments=moments, table=np.concatenate(parts).astype(np.float32), by_weekday=by_weekday,
                   average=average, around=around)  # fmt: skip

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

    def whole_table(self) -> Float32[ndarray, "key channel row column"]:
        """Return what is usual at every weekday and moment, in their order, and last at any other moment; 0 where the
        training part had nothing."""
        days, moments = np.indices((7, len(self.moments)))
        clock = np.stack([days.ravel(), self.moments[moments.ravel()]], axis=-1)
        clock = np.concatenate([clock, [[0, -1]]])
        channels = np.arange(self.table.shape[1])
        found = self.at(np.broadcast_to(clock, (len(channels), *clock.shape)), channels)
        return np.nan_to_num(found).swapaxes(0, 1)

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


def _placed(windows: WindowSet, chosen: Int64[ndarray, "window"] | None, moments: Int64[ndarray, "moment"]) -> Placed:
    for frames, clock in windows.frames(chosen):
        assert clock is not None  # asked for before
        yield frames, clock[:, 0] * len(moments) + np.searchsorted(moments, clock[:, 1])


def _means(placed: Placed, shape: tuple[int, ...], around: int, at_least: int) -> tuple[Table, Table, Table]:
    """Return means by moment of the week, by moment of the day, and of all, in one pass.

    Args:
        placed: frames and their moments.
        shape: weekdays, moments of a day, channels, rows and columns.
        around: moments before and after that count too.
        at_least: values that a mean is made of.
    """
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
    """Return medians by moment of the week, by moment of the day, and of all; those that nobody asks for are left."""
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
    count = np.isfinite(frames).sum(0)
    rising = np.sort(frames, axis=0)  # what is missing comes last
    middle = (np.maximum(count - 1, 0) // 2, count // 2)
    lower, upper = (np.take_along_axis(rising, at[None], axis=0)[0] for at in middle)
    return np.where(count >= at_least, (lower + upper) / 2, np.nan)
