"""What is odd about a series on a graph, in words: not wrong enough to refuse, but worth knowing before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.graphs import DAY_SECONDS, GraphSeries
from stcore.time_steps import step_words

_HELD_STEPS = 24
"""Steps of one value in a row from which on a node is said to hang."""
_OFTEN_ZERO = 0.3


def facts(series: GraphSeries) -> dict[str, Any]:
    """Return sizes, times, the graph and the spread of each channel, as plain values fit for JSON."""
    degrees, graph = series.adjacency.degrees(), series.adjacency
    found: dict[str, Any] = {
        "name": series.name,
        "steps": series.num_steps,
        "nodes": series.num_nodes,
        "channels": list(series.channels),
        "units": list(series.units),
        "values": dict(zip(series.channels, _spreads(series), strict=True)),
        "edges": int(graph.edges.shape[1]),
        "neighbours": {"min": int(degrees.min()), "mean": float(degrees.mean()), "max": int(degrees.max())},
        "symmetric": graph.symmetric,
        "positions": series.coordinates is not None,
        "missing_share": float(1.0 - series.valid.mean()) if series.valid is not None else 0.0,
    }
    if series.step_seconds is not None:
        found["step"] = step_words(np.timedelta64(series.step_seconds, "s"))
        found["days"] = len(np.unique(series.day_number()))
    if series.times is not None and series.num_steps:
        found["times"] = {"first": str(series.times[0]), "last": str(series.times[-1])}
        found["gaps"] = len(series.gaps())
    return found


def _spreads(series: GraphSeries) -> list[dict[str, float]]:
    spreads: list[dict[str, float]] = []
    for channel in range(series.num_channels):
        values = series.values[:, :, channel]
        known = values[np.isfinite(values)].astype(np.float64)
        low, mean, high = (known.min(), known.mean(), known.max()) if known.size else (np.nan, np.nan, np.nan)
        spreads.append({"min": float(low), "mean": float(mean), "max": float(high)})
    return spreads


def oddities(series: GraphSeries) -> list[str]:
    """Return one sentence for everything odd about `series`, most serious first."""
    if not series.num_steps:
        return ["no steps: there is nothing to learn from"]
    checks: tuple[Callable[[GraphSeries], Iterator[str]], ...] = (_values, _nodes, _clock, _graph, _axes, _places)
    return [sentence for check in checks for sentence in check(series)]


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({100.0 * part / max(1, whole):.2g} %)"


def _some(series: GraphSeries, which: NDArray[np.int64]) -> str:
    """Return the names of the first few nodes."""
    names = ", ".join(series.nodes[node] for node in which[:3])
    return names if len(which) <= 3 else f"{names}, …"


def _values(series: GraphSeries) -> Iterator[str]:
    if series.valid is not None:
        lost = int((~series.valid).sum())
        step, node, channel = np.argwhere(~series.valid)[0].tolist()
        yield (
            f"{_share(lost, series.valid.size)} readings are missing, first at step {step}, node {series.nodes[node]}, "
            f"channel {series.channels[channel]}"
        )
    for name, channel in zip(series.channels, range(series.num_channels), strict=True):
        values = series.values[:, :, channel]
        zeros = int((values == 0.0).sum())
        if zeros > _OFTEN_ZERO * values.size:
            yield f"{_share(zeros, values.size)} readings of channel {name} are 0: are they readings, or missing ones?"
        if (below := int((values < 0.0).sum())) and below < 0.05 * values.size:
            yield f"{_share(below, values.size)} readings of channel {name} are negative: are they missing ones?"


def _nodes(series: GraphSeries) -> Iterator[str]:
    first = series.values[:, :, 0]
    known = np.isfinite(first)
    low, high = np.where(known, first, np.inf).min(axis=0), np.where(known, first, -np.inf).max(axis=0)
    empty, still = np.flatnonzero(~known.any(axis=0)), np.flatnonzero(low == high)
    if empty.size:
        yield f"{_share(len(empty), series.num_nodes)} nodes have no reading: {_some(series, empty)}"
    if still.size:
        yield f"{_share(len(still), series.num_nodes)} nodes never change: {_some(series, still)}"
    if series.num_steps > _HELD_STEPS:
        held = _longest_hold(first)
        long = np.flatnonzero((held >= _HELD_STEPS) & (low < high))
        if long.size:
            worst = int(long[np.argmax(held[long])])
            yield (
                f"{_share(len(long), series.num_nodes)} nodes hold one value other than 0 for {_HELD_STEPS} steps or "
                f"more, the longest {series.nodes[worst]} for {held[worst]:,}: filled by hand, or a sensor that hung?"
            )


def _longest_hold(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how many steps in a row each node has one value, 0 not counted."""
    same = (np.diff(values, axis=0) == 0.0) & (values[1:] != 0.0)
    longest, current = np.zeros(values.shape[1], np.int64), np.zeros(values.shape[1], np.int64)
    for row in same:  # a run is known only from the step before
        current = np.where(row, current + 1, 0)
        longest = np.maximum(longest, current)
    return longest + (longest > 0)


def _clock(series: GraphSeries) -> Iterator[str]:
    if series.step_seconds is None:
        yield "the time step is not known: days cannot be told apart; pass --data.step '5 minutes'"
        return
    if series.times is None and series.step_seconds < DAY_SECONDS:
        yield "no step has a date: the first is taken for midnight of a Monday; pass --data.start"
    if series.times is not None and (gaps := series.gaps()).size:
        lengths = np.diff(series.times).astype(np.int64)[gaps - 1]
        nights = len(np.unique(series.day_number())) - 1
        words = step_words(np.timedelta64(int(lengths[0]), "s"))
        if (
            len(gaps) == nights
            and (lengths < 4 * DAY_SECONDS).all()
            and (np.diff(series.day_number())[gaps - 1] > 0).all()
        ):
            yield f"closed at night: {len(gaps):,} gaps, the first of {words}; windows do not cross them"
        else:
            yield (
                f"{len(gaps):,} gaps in the clock, the first of {words} before step {gaps[0]}; windows do not cross "
                "them"
            )
    days = series.num_steps * series.step_seconds / DAY_SECONDS
    if days < 7.0 and series.step_seconds < DAY_SECONDS:
        yield f"only {days:.3g} days: no week can be learned"


def _graph(series: GraphSeries) -> Iterator[str]:
    graph = series.adjacency
    degrees = graph.degrees()
    if not degrees.any():
        yield "no node has a neighbour: every node is on its own"
        return
    alone = np.flatnonzero(degrees == 0)
    if alone.size:
        yield f"{_share(len(alone), series.num_nodes)} nodes have no neighbour: {_some(series, alone)}"
    loops = int((graph.edges[0] == graph.edges[1]).sum())
    if 0 < loops < series.num_nodes:
        yield f"{_share(loops, series.num_nodes)} nodes have an edge to themselves: expected all or none"
    if not graph.symmetric:
        yield "the graph is directed: an edge may have no equal one in the other direction"
    if degrees.max() > 0.5 * series.num_nodes and series.num_nodes > 20:
        worst = int(degrees.argmax())
        yield f"node {series.nodes[worst]} has {degrees[worst]} of {series.num_nodes - 1} others as neighbours"


def _axes(series: GraphSeries) -> Iterator[str]:
    if series.num_nodes > series.num_steps:
        yield f"more nodes ({series.num_nodes:,}) than steps ({series.num_steps:,}): are time and nodes swapped?"
    if series.num_channels > max(16, series.num_nodes):
        yield f"{series.num_channels:,} channels of {series.num_nodes:,} nodes: are nodes and channels swapped?"


def _places(series: GraphSeries) -> Iterator[str]:
    points = series.coordinates
    if points is None:
        return
    _, counts = np.unique(points, axis=0, return_counts=True)
    if (counts > 1).any():
        yield f"{_share(int(counts[counts > 1].sum()), series.num_nodes)} nodes share their position with another"
    if series.degrees and series.num_nodes > 2 and np.ptp(points, axis=0).max() > 30.0:
        spans = np.ptp(points, axis=0)
        yield f"positions span {spans[0]:.3g} by {spans[1]:.3g} degrees: more than a city"
