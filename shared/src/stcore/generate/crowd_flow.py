"""Crowds on a street grid with the rhythm of days and weeks: how many people are in each cell, half hour by half hour.

Every cell has so many homes, offices and places to go out to; main streets, every few rows and columns, add people who
pass. What is expected at a moment t in cell c is

    expected(t, c) = homes(c) · home(t) + offices(c) · work(t) + outings(c) · leisure(t)

with profiles that differ between working days and weekends. The city has better and worse spells, a factor exp(spread ·
s(t)) with s an AR(1) process of variance 1, and counts are Poisson around the product. Given the spell at a moment, the
best forecast h steps ahead is expected(t + h, c) · exp(spread · memory^h · s + spread² · (1 - memory^(2h)) / 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.sampling import derive_seed

START = np.datetime64("2024-01-01T00:00", "us")
"""A Monday."""
_DAY = 86_400
Moments = NDArray[Any]
"""Of datetime64, any unit."""


@dataclass(frozen=True, kw_only=True)
class CrowdFlow:
    """A city."""

    height: int = 8
    width: int = 8
    step_minutes: int = 30
    people: float = 40.0
    """Mean of all cells and moments, about."""
    spread: float = 0.25
    """Deviation of the spells, on the logarithm."""
    memory: float = 0.98
    """Share of a spell that is left after a step."""
    street_every: int = 3
    """Rows and columns from one main street to the next."""
    layout: int = 7
    """Seed of where homes and offices are."""

    def __post_init__(self) -> None:
        if self.height < 2 or self.width < 2:
            raise UserError(f"crowd flow: {self.height} x {self.width} cells; expected at least 2 x 2")
        if self.step_minutes < 1 or 1440 % self.step_minutes:
            raise UserError(f"crowd flow: steps of {self.step_minutes} minutes; expected a divisor of a day's 1440")
        if not 0.0 <= self.memory < 1.0 or not self.spread >= 0.0:
            raise UserError(f"crowd flow: memory {self.memory:g}, spread {self.spread:g}; expected a share from 0 to "
                            "below 1, and 0 or more")  # fmt: skip

    @property
    def steps_per_day(self) -> int:
        return 1440 // self.step_minutes

    @property
    def places(self) -> Float64[ndarray, "kind height width"]:
        """Homes, offices and places to go out to, in each cell."""
        rng = np.random.default_rng(derive_seed(self.layout, "places"))
        row, column = np.arange(self.height)[:, None], np.arange(self.width)
        middle = (row - (self.height - 1) / 2) ** 2 / self.height**2 + (
            column - (self.width - 1) / 2
        ) ** 2 / self.width**2
        street = 1.0 + ((row % self.street_every == 0) | (column % self.street_every == 0))
        uneven = np.exp(0.4 * rng.standard_normal((3, self.height, self.width)))
        offices, homes, outings = np.exp(-8.0 * middle), 1.0 - 0.7 * np.exp(-8.0 * middle), np.exp(-4.0 * middle)
        found = np.stack([homes, offices, outings]) * street * uneven
        return found * (self.people / found.mean(axis=(1, 2), keepdims=True))

    def profiles(self, times: Moments) -> Float64[ndarray, "kind time"]:
        """Return how full homes, offices and places to go out to are."""
        seconds = times.astype("datetime64[s]").astype(np.int64)
        hour = seconds % _DAY / 3600.0
        weekend = (seconds // _DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday
        work = np.where(weekend, 0.15, 1.0) * _bump(hour, 13.0, 3.5)
        late = np.where(weekend, 1.2, 0.6) * _bump(hour, 20.0, 2.5)
        home = 0.25 + 0.75 * np.maximum(_bump(hour, 2.0, 4.0), _bump(hour, 22.0, 3.0)) * (1.0 - 0.4 * work)
        return np.stack([home, work, late]) / 1.2

    def expected(self, times: Moments) -> Float64[ndarray, "time height width"]:
        """Return the mean of the counts in a spell that is neither good nor bad."""
        return np.einsum("khw,kt->thw", self.places, self.profiles(times))

    def spells(self, frames: int, *, seed: int) -> Float64[ndarray, "time"]:
        """Return the process behind better and worse spells, of variance 1."""
        rng = np.random.default_rng(derive_seed(seed, "spells"))
        fresh = rng.standard_normal(frames)
        found, stirring = np.empty(frames), np.sqrt(1.0 - self.memory**2)
        last = fresh[0] if frames else 0.0
        for at in range(frames):  # each is made of the one before
            last = last if at == 0 else self.memory * last + stirring * fresh[at]
            found[at] = last
        return found

    def counts(self, frames: int, *, seed: int, start: np.datetime64 = START) -> Int64[ndarray, "time height width"]:
        """Draw how many people there are."""
        times = self.moments(frames, start=start)
        mean = self.expected(times) * np.exp(self.spread * self.spells(frames, seed=seed))[:, None, None]
        return np.random.default_rng(derive_seed(seed, "counts")).poisson(mean).astype(np.int64)

    def moments(self, frames: int, *, start: np.datetime64 = START) -> Moments:
        """Return the moments of `frames` frames."""
        return start.astype("datetime64[us]") + np.arange(frames) * np.timedelta64(self.step_minutes, "m")

    def series(self, frames: int, *, seed: int, start: np.datetime64 = START) -> GridSeries:
        """Return counts as a series of one channel."""
        values = self.counts(frames, seed=seed, start=start).astype(np.float32)[:, None]
        return GridSeries(
            values=values, times=self.moments(frames, start=start), channels=("people",), units=("people",)
        )


def _bump(hour: NDArray[np.float64], middle: float, width: float) -> Float64[ndarray, "time"]:
    """Return a bell around an hour of the day, closed at midnight."""
    away = np.abs(hour - middle)
    return np.exp(-0.5 * (np.minimum(away, 24.0 - away) / width) ** 2)
