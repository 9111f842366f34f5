"""Forecasts of frames that know next to nothing: what any model has to beat.

All are asked alike: `predict(history, horizon, times=...)`, with the moments of history and future where the data have
them; some need them. What is fitted knows the training part only. Values are in the units of the data; NaN stands for a
missing cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy import ndarray
from numpy.typing import NDArray
from torch import Tensor

from stcore.errors import UserError
from stcore.frame_stores import batches
from stcore.grids import GridSeries

_BLOCK = 256
_SIZES = {"day": 366, "month": 12, "weekday": 7, "hour": 86_400}
"""Kinds of each cycle; that of the first named here counts most in the number of a moment."""
_PAIRS = 2 * 10**9
"""Pairs of values that damping is fitted on at most; of longer series, stretches spread evenly are taken."""
Moments = NDArray[np.datetime64]
Kinds = NDArray[np.int64]
Cycle = Literal["hour", "weekday", "month", "day"]
"""What a usual frame is told apart by: time of day, day of the week, month, day of the year."""


@runtime_checkable
class FrameForecaster(Protocol):
    """Anything that continues a history of frames."""

    def predict(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]: ...


@runtime_checkable
class TimedForecaster(Protocol):
    """A forecaster that may be told the moments of history and future."""

    def predict(
        self,
        history: Float[Tensor, "batch time channel height width"],
        horizon: int,
        *,
        times: Moments | None = None,
    ) -> Float[Tensor, "batch horizon channel height width"]: ...


@runtime_checkable
class FrameSource(Protocol):
    """Frames by number, as a `GridSeries` gives them: NaN where there is no data."""

    @property
    def num_frames(self) -> int: ...

    def frames(self, ids: Int64[ndarray, "frame"], /) -> Float32[ndarray, "frame channel height width"]: ...


@dataclass(frozen=True)
class Persistence:
    """The last frame of the history stays as it is; a cell missing there takes its last known value, if it has one."""

    def predict(
        self,
        history: Float[Tensor, "batch time channel height width"],
        horizon: int,
        *,
        times: Moments | None = None,
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Repeat the last frame."""
        last = history[:, -1:]
        for time in range(history.shape[1] - 2, -1, -1):
            if not bool((missing := last.isnan()).any()):
                break
            last = torch.where(missing, history[:, time : time + 1], last)
        return last.expand(-1, horizon, -1, -1, -1)


@dataclass(frozen=True, eq=False)
class MeanFrame:
    """The mean of all training frames, whatever the history."""

    frame: Float32[Tensor, "channel height width"]

    @classmethod
    def fit(cls, train: FrameSource) -> MeanFrame:
        """Average the frames of the training part, cell by cell over the frames with data there.

        A cell without data in any frame gets the mean of its channel.

        Raises:
            UserError: no frames, or none with data.
        """
        if train.num_frames == 0:
            raise UserError("training part: no frames; expected at least one to average")
        total, count = np.float64(0.0), np.float64(0.0)
        for first in range(0, train.num_frames, _BLOCK):
            ids = np.arange(first, min(first + _BLOCK, train.num_frames))
            frames = train.frames(ids).astype(np.float64)
            counted = np.isfinite(frames)
            total = total + np.where(counted, frames, 0.0).sum(axis=0)
            count = count + counted.sum(axis=0)
        return cls(torch.from_numpy(_means(total, count)))

    def predict(
        self,
        history: Float[Tensor, "batch time channel height width"],
        horizon: int,
        *,
        times: Moments | None = None,
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Repeat the mean frame."""
        return self.frame.to(history).expand(len(history), horizon, *self.frame.shape)


def _means(total: Any, count: Any) -> NDArray[np.float32]:
    """Turn sums (channel, height, width) into means; cells without data get that of their channel."""
    channels = count.sum(axis=(1, 2), keepdims=True)
    if not channels.all():
        raise UserError(f"training part: no data in channel {int(channels.argmin()) + 1}; "
                        "expected at least one cell with a value")  # fmt: skip
    overall = total.sum(axis=(1, 2), keepdims=True) / channels
    return np.where(count > 0, total / np.maximum(count, 1.0), overall).astype(np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class Climatology:
    """The mean of the training frames of the same time of day and season, or of all of them where there are no times.

    A time that the training part never saw, such as a month of a short series, gets the mean of all frames.
    """

    by: tuple[Cycle, ...]
    """What frames are told apart by; empty for the mean of all."""
    keys: Int64[ndarray, "kind"]
    """Number of each kind of moment, rising."""
    frames: Float32[Tensor, "kind channel height width"]
    """The usual frame of each kind, and after them the mean of all frames."""

    @classmethod
    def fit(cls, train: GridSeries, *, by: Sequence[Cycle] | None = None, window_days: int = 15) -> Climatology:
        """Average the frames of the training part by kind of moment.

        Args:
            train: the training part.
            by: what to tell apart; None takes the time of day where a step is shorter than a day, and the month where
                the series is a year long; nothing where there are no times.
            window_days: days before and after that count towards a day of the year.

        Raises:
            UserError: no frames, a channel without data, or times are needed and there are none.
        """
        chosen = usual_cycles(train) if by is None else tuple(by)
        if chosen and train.times is None:
            raise UserError(f"climatology by {', '.join(chosen)}: the training part has no times; expected some; pass "
                            "--data.start and --data.step")  # fmt: skip
        if train.num_frames == 0:
            raise UserError("training part: no frames; expected at least one to average")
        codes = np.zeros(train.num_frames, np.int64) if train.times is None else moment_codes(train.times, chosen)
        keys, kinds = np.unique(codes, return_inverse=True)
        total = np.zeros((len(keys), *train.shape[1:]))
        count = np.zeros_like(total, dtype=np.float32)
        for ids in batches(train.num_frames, 8 * int(np.prod(train.shape[1:]))):
            frames = train.frames(ids)
            known = np.isfinite(frames)
            for kind in np.unique(kinds[ids]):
                mine = kinds[ids] == kind
                total[kind] += np.where(known[mine], frames[mine], 0.0).sum(axis=0, dtype=np.float64)
                count[kind] += known[mine].sum(axis=0)
        overall = _means(total.sum(axis=0), count.sum(axis=0, dtype=np.float64))
        if "day" in chosen:
            others = math.prod(_SIZES[name] for name in chosen if name != "day")
            total, count = (_over_days(keys // others, keys % others, sums, window_days) for sums in (total, count))
        means = np.where(count > 0, total / np.maximum(count, 1.0), overall).astype(np.float32)
        return cls(by=chosen, keys=keys, frames=torch.from_numpy(np.concatenate([means, overall[None]])))

    def at(self, times: Moments | None, shape: tuple[int, ...]) -> Float32[Tensor, "*shape channel height width"]:
        """Return the usual frames of moments of `shape`; where frames are not told apart, moments are not needed.

        Raises:
            UserError: there are no moments and they are needed.
        """
        return self.frames[torch.from_numpy(self.kinds(times, shape))]

    def kinds(self, times: Moments | None, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Return which of the frames is usual at moments of `shape`.

        Raises:
            UserError: there are no moments and they are needed.
        """
        if not self.by:
            return np.full(shape, len(self.frames) - 1, dtype=np.int64)
        if times is None:
            raise UserError(f"climatology by {', '.join(self.by)}: frames without times; expected the moment of each")
        codes = moment_codes(times.reshape(-1), self.by)
        places = np.minimum(np.searchsorted(self.keys, codes), len(self.keys) - 1)
        return np.where(self.keys[places] == codes, places, len(self.keys)).reshape(shape)

    def predict(
        self,
        history: Float[Tensor, "batch time channel height width"],
        horizon: int,
        *,
        times: Moments | None = None,
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Return the usual frames of the future; `times` (batch, time + horizon) are those of history and future."""
        ahead = None if times is None else times[:, -horizon:]
        return self.at(ahead, (len(history), horizon)).to(history)


def usual_cycles(series: GridSeries) -> tuple[Cycle, ...]:
    """Return what the usual frames of a series are told apart by: time of day, month, both or nothing."""
    if series.times is None or not series.num_frames:
        return ()
    day, year = np.timedelta64(1, "D"), np.timedelta64(360, "D")
    step = series.step
    monthly = step is not None and np.datetime_data(step.dtype)[0] == "M"
    if step is not None and np.datetime_data(step.dtype)[0] == "Y":
        return ()
    hours: tuple[Cycle, ...] = () if monthly or step is None or step >= day else ("hour",)
    return hours + (("month",) if series.times.max() - series.times.min() >= year else ())


def moment_codes(times: Moments, by: Sequence[Cycle]) -> NDArray[np.int64]:
    """Return a number for each moment, the same for moments of one kind; the day of the year counts most.

    >>> moment_codes(np.array(["2020-01-31T06", "2021-01-02T06"], "M8[us]"), ("hour", "month")).tolist()
    [21600, 21600]
    """
    days = times.astype("datetime64[D]")
    months, years = times.astype("datetime64[M]"), times.astype("datetime64[Y]")
    values: dict[str, Any] = {
        "day": (days - years.astype("datetime64[D]")).astype(np.int64),
        "month": (months - years.astype("datetime64[M]")).astype(np.int64),
        "weekday": (days.astype(np.int64) + 3) % 7,
        "hour": (times.astype("datetime64[s]") - days.astype("datetime64[s]")).astype(np.int64),
    }
    codes = np.zeros(times.shape, dtype=np.int64)
    for name, size in _SIZES.items():
        if name in by:
            codes = codes * size + values[name]
    return codes


def _over_days(day: Kinds, other: Kinds, sums: NDArray[Any], window: int) -> NDArray[Any]:
    """Add the sums of the days around each day of the year, of the same time of day."""
    out = np.zeros_like(sums)
    for kind in range(len(day)):
        away = np.abs(day - day[kind])
        near = np.minimum(away, _SIZES["day"] - away) <= window
        out[kind] = sums[near & (other == other[kind])].sum(axis=0)
    return out


@dataclass(frozen=True, eq=False, kw_only=True)
class DampedPersistence:
    """What was unusual about the last frame goes on, the weaker the further ahead: usual + damping × deviation."""

    climatology: Climatology
    damping: Float32[Tensor, "lead channel rows columns"]
    """Share of the deviation that is left at each lead time, for each channel or each cell."""

    @classmethod
    def fit(
        cls,
        train: GridSeries,
        *,
        leads: int | Sequence[int],
        climatology: Climatology | None = None,
        per: Literal["channel", "cell"] = "channel",
    ) -> DampedPersistence:
        """Fit the damping of each lead time by least squares on deviations from the climatology.

        Args:
            train: the training part.
            leads: number of lead times, or how many frames ahead each is.
            climatology: the usual frames; by default fitted on `train` here.
            per: one number for each channel, or for each of its cells.

        Raises:
            UserError: no stretch of the training part is longer than a lead time.
        """
        ahead = np.arange(1, leads + 1) if isinstance(leads, int) else np.asarray(leads, dtype=np.int64)
        usual = Climatology.fit(train) if climatology is None else climatology
        cells = (train.num_channels, 1, 1) if per == "channel" else train.shape[1:]
        shared, own = np.zeros((len(ahead), *cells)), np.zeros((len(ahead), *cells))
        form = "tchw,tchw->c" if per == "channel" else "tchw,tchw->chw"
        for count, rows in _stretches(train, int(ahead.max())):
            off, known = _deviations(train, rows, usual)
            for place, lead in enumerate(ahead):
                pairs = min(count, len(rows) - int(lead))
                if pairs < 1:
                    continue
                here, there = off[:pairs], slice(int(lead), int(lead) + pairs)
                shared[place] += np.einsum(form, here, off[there], dtype=np.float64).reshape(cells)
                own[place] += np.einsum(form, here, here * known[there], dtype=np.float64).reshape(cells)
        if not own.any():
            longest = max((len(run) for run in train.runs()), default=0)
            raise UserError(f"training part: the longest stretch has {longest} frames that vary; expected more than "
                            f"{int(ahead.min())}, to see how deviations last")  # fmt: skip
        damping = np.where(own > 0.0, shared / np.where(own > 0.0, own, 1.0), 0.0)
        return cls(climatology=usual, damping=torch.from_numpy(damping.astype(np.float32)))

    def predict(
        self,
        history: Float[Tensor, "batch time channel height width"],
        horizon: int,
        *,
        times: Moments | None = None,
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Damp the last deviation; a cell that the history does not know is as usual.

        Raises:
            UserError: more lead times than were fitted, or moments are needed and there are none.
        """
        if horizon > len(self.damping):
            raise UserError(f"damped persistence: horizon {horizon}; expected at most {len(self.damping)}, as fitted")
        last = Persistence().predict(history, 1)
        now = None if times is None else times[:, -horizon - 1 : times.shape[1] - horizon]
        deviation = (last - self.climatology.at(now, (len(history), 1)).to(history)).nan_to_num(nan=0.0)
        usual = self.climatology.predict(history, horizon, times=times)
        return usual + self.damping[:horizon].to(history) * deviation


def _stretches(train: GridSeries, furthest: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield frames without a gap, and how many of them begin pairs; the others lie ahead of those."""
    size = max(1, 2**25 // (4 * int(np.prod(train.shape[1:]))), furthest // 4)
    pieces = [(run, first) for run in train.runs() for first in range(run.start, run.stop, size)]
    work = train.num_frames * int(np.prod(train.shape[1:])) * furthest
    for run, first in pieces[:: max(1, -(-work // _PAIRS))]:
        count = min(size, run.stop - first)
        yield count, np.arange(first, min(first + count + furthest, run.stop), dtype=np.int64)


def _deviations(
    train: GridSeries, rows: NDArray[np.int64], usual: Climatology
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return frames less the usual ones, 0 where nothing is known, and where something is."""
    times = None if train.times is None else train.times[rows]
    off = train.frames(rows) - usual.at(times, (len(rows),)).numpy()
    known = np.isfinite(off)
    return np.where(known, off, np.float32(0.0)), known


@dataclass(frozen=True, eq=False)
class SeasonalNaive:
    """The frame of the same time a period before, such as yesterday or last week; only frames before the future.

    Where the series has no such frame, the last known one stays.
    """

    series: GridSeries
    """All frames that may be looked up, with times; those after the history of a forecast are never used."""
    period: np.timedelta64

    def __post_init__(self) -> None:
        if self.series.times is None or self.series.num_clips != 1:
            raise UserError("seasonal naive: a series without times, or of several clips; expected one clip with times")
        if self.period <= np.timedelta64(0, "us"):
            raise UserError(f"seasonal naive: period {self.period}; expected more than no time")

    def predict(
        self,
        history: Float[Tensor, "batch time channel height width"],
        horizon: int,
        *,
        times: Moments | None = None,
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Look up the frames; `times` (batch, time + horizon) are those of history and future.

        Raises:
            UserError: no times are given.
        """
        known = self.series.times
        if times is None or known is None:
            raise UserError("seasonal naive: frames without times; expected the moment of each")
        last, ahead = times[:, -horizon - 1 : times.shape[1] - horizon], times[:, -horizon:]
        periods = np.ceil((ahead - last) / self.period).astype(np.int64)
        wanted = (ahead - periods * self.period).reshape(-1)
        rows = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        found = torch.from_numpy(known[rows] == wanted).reshape(*ahead.shape, 1, 1, 1)
        frames = torch.from_numpy(self.series.frames(rows)).reshape(*ahead.shape, *history.shape[2:])
        stays = Persistence().predict(history, horizon, times=times)
        return torch.where(found.to(history.device) & ~frames.isnan().to(history.device), frames.to(history), stays)
