"""What is usual at a time of the day, and of the week: a naive forecast, and what anomalies are taken from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError
from vlm4st.windows import WindowSet

Channels = Int64[ndarray, "sample"]
Average = Literal["mean", "median"]
KINDS = (slice(0, 5), slice(5, 7))
"""Workdays and weekends; Monday is 0."""
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
    own: tuple[float, ...] = ()
    """Weight of a weekday's own mean beside that of its kind of day, for each channel; empty where it stands alone."""

    @property
    def plain(self) -> bool:
        """Whether it is the usual naive forecast: means of the very moments."""
        return self.average == "mean" and not self.around and not self.own

    @property
    def words(self) -> str:
        """What it is, in a table of forecasts."""
        if self.own:
            return "usual (pooled weekdays)"
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
        pooled: bool = False,
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
            pooled: draw the means of a weekday towards those of its kind of day, workdays or weekends (`_pooled`);
                without weekdays, for medians and with moments around it changes nothing.

        Raises:
            UserError: the frames have no times.
        """
        seen: list[Int64[ndarray, "moment"]] = []
        for _, clock in windows.frames(chosen):
            if clock is None:
                raise UserError(f"training part: {NO_TIME}")
            seen.append(np.unique(clock[:, 1]))
        moments = np.unique(np.concatenate(seen))
        placed, own = _placed(windows, chosen, moments), ()
        if average == "mean":
            shape = (7, len(moments), windows.channels, *windows.native)
            sums = _sums(placed, shape)
            parts = _means(sums, around, at_least)
            if pooled and by_weekday and not around:
                weekly, own = _pooled(sums, _placed(windows, chosen, moments), at_least)
                parts = (weekly, *parts[1:])
        else:
            parts = _medians(placed, len(moments), around, at_least, by_weekday=by_weekday)
        return cls(moments=moments, table=np.concatenate(parts).astype(np.float32), by_weekday=by_weekday,
                   average=average, around=around, own=own)  # fmt: skip

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
                "usual_around": self.around, "usual_own": list(self.own)}  # fmt: skip

    @classmethod
    def restore(
        cls, constants: Mapping[str, Tensor], prefix: str, facts: Mapping[str, Any]
    ) -> HistoricalAverage | None:
        """Rebuild what `constants` and `facts` kept; None where nothing was taken off."""
        if "usual" not in facts:
            return None
        moments, table = (constants[f"{prefix}/{name}"].cpu().numpy() for name in ("moments", "table"))
        return cls(moments=moments, table=table, by_weekday=facts["usual"] == "week",
                   average=facts.get("usual_average", "mean"), around=facts.get("usual_around", 0),
                   own=tuple(facts.get("usual_own", ())))  # fmt: skip


Table = Float[ndarray, "_ channel row column"]


Placed = Iterator[tuple[Float32[ndarray, "frame channel row column"], Int64[ndarray, "frame"]]]
"""Frames, and which moment of the week each is of: weekday times the moments of a day, and moment."""


def _placed(windows: WindowSet, chosen: Int64[ndarray, "window"] | None, moments: Int64[ndarray, "moment"]) -> Placed:
    for frames, clock in windows.frames(chosen):
        assert clock is not None  # asked for before
        yield frames, clock[:, 0] * len(moments) + np.searchsorted(moments, clock[:, 1])


class _Sums(NamedTuple):
    """Values and how many there are, by weekday and moment of the day."""

    total: Float64[ndarray, "weekday moment channel row column"]
    number: Float64[ndarray, "weekday moment channel row column"]

    def of(self, days: slice) -> _Sums:
        """Return those of some weekdays together, as of one."""
        return _Sums(*(part[days].sum(0, keepdims=True) for part in self))

    def mean(self, least: int) -> Any:
        """Return the means; NaN where there are fewer than `least` values."""
        return np.where(self.number >= least, self.total / np.maximum(self.number, 1), np.nan)

    def without(self, frame: Any, known: Any, weekday: int, moment: int) -> Any:
        """Return the mean of a moment without one of its frames; NaN where nothing is left."""
        count = self.number[weekday, moment] - known
        return np.where(count > 0, (self.total[weekday, moment] - frame) / np.maximum(count, 1), np.nan)


def _sums(placed: Placed, shape: tuple[int, ...]) -> _Sums:
    """Add frames up, in one pass.

    Args:
        placed: frames and their moments.
        shape: weekdays, moments of a day, channels, rows and columns.
    """
    total, count = np.zeros(shape), np.zeros(shape)
    for frames, places in placed:
        known = np.isfinite(frames)
        filled = np.where(known, frames, 0.0)
        for row, place in enumerate(zip(*np.divmod(places, shape[1]), strict=True)):
            total[place] += filled[row]
            count[place] += known[row]
    return _Sums(total, count)


def _means(sums: _Sums, around: int, at_least: int) -> tuple[Table, Table, Table]:
    """Return means by moment of the week, by moment of the day, and of all.

    Args:
        sums: of the frames.
        around: moments before and after that count too.
        at_least: values that a mean is made of.
    """

    def near(part: Any) -> Any:
        reach = min(around, (len(part) - 1) // 2)  # nothing counts twice
        return sum(np.roll(part, shift, axis=0) for shift in range(-reach, reach + 1))

    weekly = _Sums(*(near(part.reshape(-1, *part.shape[2:])) for part in sums))
    daily = _Sums(*(near(part.sum(0)) for part in sums))
    whole = _Sums(*(part.sum((0, 1), keepdims=True)[0] for part in sums))
    return weekly.mean(at_least), daily.mean(at_least), whole.mean(1)


def _pooled(sums: _Sums, placed: Placed, at_least: int) -> tuple[Table, tuple[float, ...]]:
    """Return means by moment of the week, drawn towards those of all workdays or of the weekend, and the weight of a
    weekday's own mean for each channel.

    The fewer weeks there are, the more a weekday's own mean is chance. Its weight is that which forecasts every frame
    best, in least squares, out of the others of its weekday and of its kind of day.

    Args:
        sums: of the frames.
        placed: the same frames again.
        at_least: values that a mean is made of; with fewer, the kind of day stands alone.
    """
    kinds = [sums.of(days) for days in KINDS]
    gained, spread = np.zeros(sums.total.shape[2]), np.zeros(sums.total.shape[2])
    for frames, places in placed:
        for frame, place in zip(frames, places.tolist(), strict=True):
            weekday, moment = divmod(place, sums.total.shape[1])
            known = np.isfinite(frame)
            filled = np.where(known, frame, 0.0)
            common = kinds[_kind(weekday)].without(filled, known, 0, moment)
            apart = sums.without(filled, known, weekday, moment) - common
            apart = np.where(sums.number[weekday, moment] >= at_least, apart, np.nan)
            gained += np.nansum((frame - common) * apart, axis=(1, 2))
            spread += np.nansum(np.where(known, apart, np.nan) ** 2, axis=(1, 2))
    own = np.clip(np.divide(gained, spread, out=np.ones_like(gained), where=spread > 0), 0.0, 1.0)
    common = np.stack([kinds[_kind(weekday)].mean(at_least)[0] for weekday in range(7)])
    apart = sums.mean(at_least) - common
    weekly = common + own[:, None, None] * np.where(np.isnan(apart), 0.0, apart)
    return weekly.reshape(-1, *weekly.shape[2:]), tuple(own.tolist())


def _kind(weekday: int) -> int:
    """Return which kind of day a weekday is (`KINDS`)."""
    return int(weekday >= KINDS[1].start)


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
