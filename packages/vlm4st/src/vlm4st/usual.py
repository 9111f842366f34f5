"""What is usual at a time of the day, and of the week: a naive forecast, and what anomalies are taken from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError
from vlm4st.averages import Placed, means, medians, pooled_means, sums_of
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
    pooled: tuple[tuple[float, float], ...] = ()
    """For each channel, the weights of what sets workdays and weekends apart from all days, and of what sets a weekday
    apart from these; empty where weekdays stand alone."""

    @property
    def plain(self) -> bool:
        """Whether it is the usual naive forecast: means of the very moments."""
        return self.average == "mean" and not self.around and not self.pooled

    @property
    def words(self) -> str:
        """What it is, in a table of forecasts."""
        if self.pooled:
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
            pooled: draw the means of a weekday towards those of workdays or weekends, and of all days (`pooled_means`);
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
        placed, weights = _placed(windows, chosen, moments), ()
        if average == "mean":
            shape = (7, len(moments), windows.channels, *windows.native)
            sums = sums_of(placed, shape)
            parts = means(sums, around, at_least)
            if pooled and by_weekday and not around:
                weekly, weights = pooled_means(sums, _placed(windows, chosen, moments), at_least)
                parts = (weekly, *parts[1:])
        else:
            parts = medians(placed, len(moments), around, at_least, by_weekday=by_weekday)
        return cls(moments=moments, table=np.concatenate(parts).astype(np.float32), by_weekday=by_weekday,
                   average=average, around=around, pooled=weights)  # fmt: skip

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
                "usual_around": self.around, "usual_pooled": [list(pair) for pair in self.pooled]}  # fmt: skip

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
                   pooled=tuple((kind, day) for kind, day in facts.get("usual_pooled", ())))  # fmt: skip


def _placed(windows: WindowSet, chosen: Int64[ndarray, "window"] | None, moments: Int64[ndarray, "moment"]) -> Placed:
    for frames, clock in windows.frames(chosen):
        assert clock is not None  # asked for before
        yield frames, clock[:, 0] * len(moments) + np.searchsorted(moments, clock[:, 1])
