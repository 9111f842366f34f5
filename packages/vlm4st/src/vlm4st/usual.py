"""What is usual at a time of the day, and of the week: a naive forecast, and what anomalies are taken from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError
from vlm4st.windows import WindowSet

Channels = Int64[ndarray, "sample"]
NO_TIME = "frames without times; expected some for a historical average"


@dataclass(frozen=True, eq=False, kw_only=True)
class HistoricalAverage:
    """The mean of the training frames of the same weekday and time of day, cell by cell; where there was none, of the
    same time of day; where there was none, of all frames."""

    moments: Int64[ndarray, "moment"]
    """Seconds of the day that occur, rising."""
    table: Float32[ndarray, "key channel row column"]
    """Means by weekday and moment, then by moment, then of all frames; NaN where there was nothing."""
    by_weekday: bool = True

    @classmethod
    def fit(
        cls,
        windows: WindowSet,
        chosen: Int64[ndarray, "window"] | None,
        *,
        by_weekday: bool = True,
        at_least: int = 1,
    ) -> HistoricalAverage:
        """Average the frames of a training part, or of some of its windows, each frame once.

        Args:
            windows: of the training part.
            chosen: those that count; None for all.
            by_weekday: tell weekdays apart.
            at_least: values that a mean is made of; with fewer, there was nothing.

        Raises:
            UserError: the frames have no times.
        """
        seen: list[Int64[ndarray, "moment"]] = []
        for _, clock in windows.frames(chosen):
            if clock is None:
                raise UserError(f"training part: {NO_TIME}")
            seen.append(np.unique(clock[:, 1]))
        moments = np.unique(np.concatenate(seen))
        shape = (8 * len(moments) + 1, windows.channels, *windows.native)
        total, count = np.zeros(shape), np.zeros(shape, dtype=np.float32)
        for frames, clock in windows.frames(chosen):
            assert clock is not None  # asked for above
            known = np.isfinite(frames)
            filled = np.where(known, frames, 0.0)
            at = np.searchsorted(moments, clock[:, 1])
            keys = np.stack([clock[:, 0] * len(moments) + at, 7 * len(moments) + at, np.full(len(at), shape[0] - 1)])
            for row, places in enumerate(keys.T):
                total[places] += filled[row]
                count[places] += known[row]
        enough = np.where(np.arange(shape[0]) < shape[0] - 1, at_least, 1)[:, None, None, None]
        means = np.where(count >= enough, total / np.maximum(count, 1), np.nan).astype(np.float32)
        return cls(moments=moments, table=means, by_weekday=by_weekday)

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

    @classmethod
    def restore(cls, constants: Mapping[str, Tensor], prefix: str, *, by_weekday: bool) -> HistoricalAverage:
        """Rebuild what `constants` kept."""
        moments, table = (constants[f"{prefix}/{name}"].cpu().numpy() for name in ("moments", "table"))
        return cls(moments=moments, table=table, by_weekday=by_weekday)
