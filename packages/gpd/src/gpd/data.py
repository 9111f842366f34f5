"""The cities of a run: sources with all their time, a target with a few days and a test part.

Series are read by the core (`stcore.readers`); the cities of the demo are simulated. How time is cut says
`pretrain.split`, for every city alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpd.config import DataConfig, RunConfig
from stcore.errors import UserError
from stcore.graph_windows import few_shot, require_windows, split_graph
from stcore.graphs import GraphSeries

SIMULATED = "simulated"
"""Source and target that name the cities of the demo: three sources and one target, with a law in common."""


@dataclass(frozen=True)
class Target:
    """The city to forecast for."""

    series: GraphSeries
    """All that there is."""
    few: GraphSeries
    """The days that are known."""
    test: GraphSeries
    """What forecasts are scored on; no method sees it."""

    @property
    def name(self) -> str:
        """Name of the city."""
        return self.series.name


def read_sources(config: RunConfig) -> tuple[GraphSeries, ...]:
    """Read or simulate the source cities.

    Raises:
        UserError: none is named, one cannot be read or is too short, or two have the same name.
    """
    data = config.data
    if not data.source:
        raise UserError("--data: no source city; expected one or more; pass --data FILE FILE …, or --preset")
    if data.source == (SIMULATED,):
        return checked_sources(simulated(config.seed)[:-1], config)
    from stcore.readers.graph_files import read_graphs

    return checked_sources(read_graphs(data), config)


def checked_sources(sources: Sequence[GraphSeries], config: RunConfig) -> tuple[GraphSeries, ...]:
    """Return the source cities, each with a part to train on.

    Raises:
        UserError: two have the same name or other channels, or one is too short.
    """
    names = [series.name for series in sources]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--data: two cities are called {twice[0]!r}; expected different names; rename a file")
    for series in sources:
        same_channels(sources[0], series)
        require_windows(series, config.model.history, config.model.horizon, what="series")
        require_windows(training_part(series, config), config.model.history, config.model.horizon, what="training part")
    return tuple(sources)


def read_target(config: RunConfig) -> Target:
    """Read or simulate the target city.

    Raises:
        UserError: none is named, it cannot be read, or has too few days.
    """
    data = config.data
    if not data.target:
        raise UserError("--target: no target city; expected the one to forecast for; pass --target FILE --days N")
    if data.target == SIMULATED:
        return target_of(simulated(config.seed)[-1], config)
    return target_of(read_city(data.target, replace(data, adjacency=data.target_adjacency or data.adjacency)), config)


def target_of(series: GraphSeries, config: RunConfig) -> Target:
    """Cut a target city: the few days from the end of its training part, and its test part.

    Raises:
        UserError: it has too few days, or none of them holds a window.
    """
    parts = split_graph(series, config.pretrain.split)
    few = few_shot(parts.train, config.data.days)
    days = f"{config.data.days} days of the target"
    require_windows(few, config.model.history, config.model.horizon, what=days)
    return Target(series, few, parts.test)


def read_city(source: str, data: DataConfig) -> GraphSeries:
    """Read one city."""
    from stcore.readers.graph_files import read_graph

    return read_graph(replace(data, source=(source,)))


def training_part(series: GraphSeries, config: RunConfig) -> GraphSeries:
    """Return the time of a source city that may be learnt from."""
    return split_graph(series, config.pretrain.split).train


def same_channels(one: GraphSeries, other: GraphSeries) -> None:
    """Refuse cities whose channels differ in number: one network cannot read both.

    Raises:
        UserError: names both.
    """
    if one.num_channels != other.num_channels:
        raise UserError(f"{other.name}: {other.num_channels} channels ({', '.join(other.channels)}); expected "
                        f"{one.num_channels} as {one.name} has; choose with --data.features")  # fmt: skip


def chosen_nodes(series: GraphSeries, limit: int) -> list[int] | None:
    """Return the numbers of at most `limit` nodes, spread evenly; none for all.

    >>> from stcore.graphs import Adjacency
    >>> series = GraphSeries(values=np.ones((1, 9, 1)), adjacency=Adjacency.empty(9))
    >>> chosen_nodes(series, 3), chosen_nodes(series, 0)
    ([0, 4, 8], None)
    """
    if not 0 < limit < series.num_nodes:
        return None
    return np.linspace(0, series.num_nodes - 1, limit).round().astype(int).tolist()


def digest(series: GraphSeries) -> str:
    """Return the SHA-256 of everything a series says: values, graph, names, clock.

    >>> from stcore.graphs import Adjacency
    >>> one = GraphSeries(values=np.ones((2, 3, 1)), adjacency=Adjacency.empty(3), name="a")
    >>> digest(one) == digest(replace(one)) != digest(replace(one, step_seconds=60))
    True
    """
    facts = (series.nodes, series.channels, series.units, series.step_seconds, series.first_step, series.degrees)
    state = hashlib.sha256(repr(facts).encode())
    arrays: list[NDArray[np.generic] | None] = [
        series.values, series.adjacency.edges, series.adjacency.weights, series.times, series.coordinates,
    ]  # fmt: skip
    for array in arrays:
        state.update(b"-" if array is None else repr((array.shape, array.dtype.str)).encode())
        state.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def simulated(seed: int) -> list[GraphSeries]:
    """Return the cities of the demo, the target last."""
    from stcore.generate.traffic import simulate_cities

    return simulate_cities(seed)
