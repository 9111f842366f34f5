"""Means and medians of frames by weekday and time of the day: what `usual` is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray

KINDS = (slice(0, 5), slice(5, 7))
"""Workdays and weekends; Monday is 0."""
Table = Float[ndarray, "_ channel row column"]
Placed = Iterator[tuple[Float32[ndarray, "frame channel row column"], Int64[ndarray, "frame"]]]
"""Frames, and which moment of the week each is of: weekday times the moments of a day, and moment."""


class Sums(NamedTuple):
    """Values and how many there are, by weekday and moment of the day."""

    total: Float64[ndarray, "weekday moment channel row column"]
    number: Float64[ndarray, "weekday moment channel row column"]

    def of(self, days: slice) -> Sums:
        """Return those of some weekdays together, as of one."""
        return Sums(*(part[days].sum(0, keepdims=True) for part in self))

    def mean(self, least: int) -> Any:
        """Return the means; NaN where there are fewer than `least` values."""
        return np.where(self.number >= least, self.total / np.maximum(self.number, 1), np.nan)

    def without(self, frame: Any, known: Any, weekday: int, moment: int) -> Any:
        """Return the mean of a moment without one of its frames; NaN where nothing is left."""
        count = self.number[weekday, moment] - known
        return np.where(count > 0, (self.total[weekday, moment] - frame) / np.maximum(count, 1), np.nan)


def sums_of(placed: Placed, shape: tuple[int, ...]) -> Sums:
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
    return Sums(total, count)


def means(sums: Sums, around: int, at_least: int) -> tuple[Table, Table, Table]:
    """Return means by moment of the week, by moment of the day, and of all.

    Args:
        sums: of the frames.
        around: moments before and after that count too.
        at_least: values that a mean is made of.
    """

    def near(part: Any) -> Any:
        reach = min(around, (len(part) - 1) // 2)  # nothing counts twice
        return sum(np.roll(part, shift, axis=0) for shift in range(-reach, reach + 1))

    weekly = Sums(*(near(part.reshape(-1, *part.shape[2:])) for part in sums))
    daily = Sums(*(near(part.sum(0)) for part in sums))
    whole = Sums(*(part.sum((0, 1), keepdims=True)[0] for part in sums))
    return weekly.mean(at_least), daily.mean(at_least), whole.mean(1)


def pooled_means(sums: Sums, placed: Placed, at_least: int) -> tuple[Table, tuple[tuple[float, float], ...]]:
    """Return means by moment of the week, drawn towards those of all workdays or of the weekend, and these towards
    those of all days; and two weights for each channel: of what sets a kind of day apart, and a weekday from it.

    The fewer weeks there are, the more a weekday's own mean is chance. The weights are those which forecast every frame
    best, in least squares, out of the other frames.

    Args:
        sums: of the frames.
        placed: the same frames again.
        at_least: values that the mean of a weekday is made of, and that of all days.
    """
    kinds, every = [sums.of(days) for days in KINDS], sums.of(slice(None))
    channels = sums.total.shape[2]
    squares, products = np.zeros((channels, 2, 2)), np.zeros((channels, 2))
    for frames, places in placed:
        for frame, place in zip(frames, places.tolist(), strict=True):
            weekday, moment = divmod(place, sums.total.shape[1])
            known = np.isfinite(frame)
            filled = np.where(known, frame, 0.0)
            day = every.without(filled, known, 0, moment)
            kind = kinds[_kind(weekday)].without(filled, known, 0, moment)
            own = sums.without(filled, known, weekday, moment)
            own = np.where((sums.number[weekday, moment] >= at_least) & np.isfinite(own), own, kind)
            given = np.stack([kind - day, own - kind], axis=1).reshape(channels, 2, -1)
            wanted = (frame - day).reshape(channels, 1, -1)
            given, wanted = (np.where(np.isfinite(given[:, :1] + wanted), part, 0.0) for part in (given, wanted))
            squares += given @ given.swapaxes(1, 2)
            products += (given @ wanted.swapaxes(1, 2))[..., 0]
    found = np.clip((np.linalg.pinv(squares, hermitian=True) @ products[..., None])[..., 0], 0.0, 1.0)
    day, kind = every.mean(at_least), np.stack([kinds[_kind(weekday)].mean(1)[0] for weekday in range(7)])
    steps = (np.nan_to_num(kind - day), np.nan_to_num(sums.mean(at_least) - kind))
    weekly = day + sum(weight[:, None, None] * step for weight, step in zip(found.T, steps, strict=True))
    return weekly.reshape(-1, *weekly.shape[2:]), tuple((of_kind, of_day) for of_kind, of_day in found.tolist())


def _kind(weekday: int) -> int:
    """Return which kind of day a weekday is (`KINDS`)."""
    return int(weekday >= KINDS[1].start)


def medians(
    placed: Placed, moments: int, around: int, at_least: int, *, by_weekday: bool
) -> tuple[Table, Table, Table]:
    """Return medians by moment of the week, by moment of the day, and of all; those that nobody asks for are left."""
    frames, places = (np.concatenate(found) for found in zip(*placed, strict=True))

    def near(places: Any, count: int) -> Any:
        found = np.full((count, *frames.shape[1:]), np.nan, dtype=np.float32)
        for key in range(count):
            apart = np.abs(places - key)
            mine = frames[np.minimum(apart, count - apart) <= around]
            if len(mine):
                found[key] = median(mine, at_least)
        return found

    week = 7 * moments
    weekly = near(places, week) if by_weekday else np.full((week, *frames.shape[1:]), np.nan, dtype=np.float32)
    return weekly, near(places % moments, moments), median(frames, 1)[None]


def median(frames: Float32[ndarray, "frame channel row column"], at_least: int) -> Any:
    """Return the median of each cell's values; NaN where there are fewer than `at_least`."""
    count = np.isfinite(frames).sum(0)
    rising = np.sort(frames, axis=0)  # what is missing comes last
    middle = (np.maximum(count - 1, 0) // 2, count // 2)
    lower, upper = (np.take_along_axis(rising, at[None], axis=0)[0] for at in middle)
    return np.where(count >= at_least, (lower + upper) / 2, np.nan)
