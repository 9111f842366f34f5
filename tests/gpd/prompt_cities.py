"""Small cities whose nodes are of a few kinds, each with a day of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stcore.graphs import Adjacency, GraphSeries

PEAKS = (6.0, 12.0, 20.0)
"""Hour at which a node of each kind is busiest."""


def city(
    name: str, *, nodes: int = 12, days: int = 4, step: int = 3600, seed: int = 0, noise: float = 0.2
) -> GraphSeries:
    """Return a city from Monday on; the kind of a node is its number modulo 3."""
    random = np.random.default_rng(seed)
    seconds = np.arange(days * 86_400 // step) * step
    hours = seconds[:, None] % 86_400 / 3600
    shape = np.exp(np.cos(2 * np.pi * (hours - np.array([PEAKS[node % 3] for node in range(nodes)])) / 24) * 2)
    values = 10.0 + shape + noise * random.normal(size=shape.shape)
    links = np.triu(random.random((nodes, nodes)) < 3 / nodes, 1)
    weights = np.where(links | links.T, 0.5 + random.random((nodes, nodes)), 0.0)
    return GraphSeries(
        values=values[..., None],
        adjacency=Adjacency.from_dense(weights),
        times=np.datetime64("2024-01-01", "s") + seconds.astype("timedelta64[s]"),
        coordinates=random.random((nodes, 2)),
        units=("vehicles",),
        name=name,
    )


def kinds(cities: Sequence[GraphSeries]) -> np.ndarray:
    """Return the kind of each row."""
    return np.concatenate([np.arange(each.num_nodes) % 3 for each in cities])


def with_values(series: GraphSeries, values: np.ndarray) -> GraphSeries:
    """Return the series with other values."""
    return replace(series, values=values.astype(np.float32), valid=None)
