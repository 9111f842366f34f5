"""The cities that prompts are computed for, in one order: sources first, the target city last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.graphs import DAY_SECONDS, GraphSeries


@dataclass(frozen=True, eq=False)
class Cities:
    """Series of all cities; of the target city only the days that are given."""

    series: tuple[GraphSeries, ...]
    sources: int
    """How many of them are sources."""

    @classmethod
    def gather(cls, sources: Sequence[GraphSeries], target: GraphSeries | None) -> Cities:
        """Put the cities in order.

        Raises:
            UserError: there is no source, or two cities have the same name.
        """
        if not sources:
            raise UserError("prompts: no source city; expected one or more")
        every = (*sources, *(() if target is None else (target,)))
        names = [city.name for city in every]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"prompts: two cities are called {twice!r}; expected different names")
        return cls(every, len(sources))

    @property
    def counts(self) -> list[int]:
        """Return the nodes of each city."""
        return [city.num_nodes for city in self.series]

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def source_rows(self) -> int:
        """How many of all rows, from the first on, are of source cities: statistics come from them alone."""
        return sum(self.counts[: self.sources])

    @property
    def offsets(self) -> list[int]:
        """Return the first row of each city."""
        return [sum(self.counts[:at]) for at in range(len(self.series))]

    @property
    def city_of_row(self) -> NDArray[np.int64]:
        """Return the number of the city of each row."""
        return np.repeat(np.arange(len(self.series)), self.counts)

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the city and the node id of each row."""
        cities = tuple(city.name for city in self.series for _ in city.nodes)
        return cities, tuple(node for city in self.series for node in city.nodes)


def observed(series: GraphSeries) -> Float64[ndarray, "time node"]:
    """Return the quantity that is forecast, channel 0, with NaN where it is missing."""
    return series.values[:, :, 0].astype(np.float64)


def clock(series: GraphSeries) -> NDArray[np.int64] | None:
    """Return the seconds at which rows lie, counted from a midnight; none where the series has no clock."""
    if series.times is not None:
        seconds = series.times.astype("datetime64[s]").astype(np.int64)
        return seconds - seconds[:1] // DAY_SECONDS * DAY_SECONDS
    if series.step_seconds is None:
        return None
    return (series.first_step + np.arange(series.num_steps, dtype=np.int64)) * series.step_seconds


def weekend(series: GraphSeries) -> NDArray[np.bool_] | None:
    """Return which rows lie on a Saturday or Sunday; none where there are no dates."""
    return None if series.times is None else series.day_of_week() >= 5
