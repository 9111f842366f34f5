"""Series on the nodes of a graph: the container that every reader of networks makes and every method for them takes.

Values stay in their own units. A reading that is missing is NaN, and False in `valid`. Nothing is scaled here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError

if TYPE_CHECKING:
    from stcore.readers.graph_options import GraphReadOptions

Integers = NDArray[np.int64]
Stamps = NDArray[np.datetime64]

DAY_SECONDS = 86_400


@dataclass(frozen=True, eq=False)
class Adjacency:
    """Weighted directed edges between numbered nodes, each pair at most once; an edge of weight 0 is none.

    >>> graph = Adjacency.from_dense([[1.0, 0.5], [0.0, 0.0]])
    >>> graph.edges.tolist(), graph.weights.tolist(), graph.nodes
    ([[0, 0], [0, 1]], [1.0, 0.5], 2)
    """

    edges: Int64[ndarray, "2 edge"]
    """Number of the node that each edge leaves, and of the node it enters; in order."""
    weights: Float64[ndarray, "edge"]
    """Weight of each edge, above 0."""
    nodes: int
    """How many nodes there are, with edges or not."""

    def __post_init__(self) -> None:
        edges, weights = np.asarray(self.edges), np.asarray(self.weights)
        if edges.size == 0:
            edges = np.zeros((2, 0), np.int64)
        if edges.ndim != 2 or len(edges) != 2 or edges.dtype.kind not in "iu":
            raise UserError(f"adjacency: edges are {edges.dtype} of shape {edges.shape}; expected two rows of integers")
        if weights.shape != edges.shape[1:] or weights.dtype.kind not in "iufb":
            found = f"weights are {weights.dtype} of shape {weights.shape}"
            raise UserError(f"adjacency: {found}; expected one number for each of {edges.shape[1]} edges")
        edges, weights = edges.astype(np.int64), weights.astype(np.float64)
        self._check(edges, weights)
        kept = weights != 0.0
        order = np.lexsort((edges[1, kept], edges[0, kept]))
        for name, array in (("edges", edges[:, kept][:, order]), ("weights", weights[kept][order])):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def _check(self, edges: Integers, weights: NDArray[np.float64]) -> None:
        if self.nodes < 0:
            raise UserError(f"adjacency: {self.nodes} nodes; expected 0 or more")
        outside = np.flatnonzero(((edges < 0) | (edges >= self.nodes)).any(axis=0))
        if outside.size:
            pair = edges[:, outside[0]].tolist()
            raise UserError(f"adjacency: edge {pair[0]} to {pair[1]}; expected nodes 0 to {self.nodes - 1}")
        wrong = np.flatnonzero(~np.isfinite(weights) | (weights < 0.0))
        if wrong.size:
            start, end = edges[:, wrong[0]].tolist()
            kind = "negative" if weights[wrong[0]] < 0.0 else "not finite"
            raise UserError(f"adjacency: row {start}, column {end} is {weights[wrong[0]]:g} (one of {len(wrong):,} "
                            f"{kind}); expected weights of 0 or more")  # fmt: skip
        codes = np.sort(edges[0] * max(1, self.nodes) + edges[1])
        twice = np.flatnonzero(np.diff(codes) == 0)
        if twice.size:
            start, end = divmod(int(codes[twice[0]]), max(1, self.nodes))
            raise UserError(f"adjacency: edge {start} to {end} occurs twice; expected every edge once")

    @classmethod
    def from_dense(cls, matrix: Any) -> Adjacency:
        """Take the entries other than 0 of a square matrix, rows leaving and columns entering.

        Raises:
            UserError: it is not square, or an entry is negative or not finite.
        """
        dense = np.asarray(matrix)
        if dense.ndim != 2 or dense.shape[0] != dense.shape[1]:
            raise UserError(f"adjacency: matrix of shape {dense.shape}; expected a square one")
        if dense.dtype.kind not in "iufb":
            raise UserError(f"adjacency: matrix of type {dense.dtype}; expected real numbers")
        edges = np.stack(np.nonzero(dense)).astype(np.int64)
        return cls(edges, dense[edges[0], edges[1]].astype(np.float64), len(dense))

    @classmethod
    def empty(cls, nodes: int) -> Adjacency:
        """Return a graph without edges."""
        return cls(np.zeros((2, 0), np.int64), np.zeros(0), nodes)

    def dense(self) -> Float64[ndarray, "node node"]:
        """Return the matrix of weights, 0 where there is no edge."""
        matrix = np.zeros((self.nodes, self.nodes))
        matrix[self.edges[0], self.edges[1]] = self.weights
        return matrix

    def take(self, index: Sequence[int] | Integers) -> Adjacency:
        """Return the graph between the nodes `index`, numbered in that order.

        Raises:
            UserError: a number is outside, or occurs twice.
        """
        chosen = checked_index(index, self.nodes, "adjacency: node")
        place = np.full(self.nodes, -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        moved = place[self.edges]
        kept = (moved >= 0).all(axis=0)
        return Adjacency(moved[:, kept], self.weights[kept], len(chosen))

    @property
    def symmetric(self) -> bool:
        """Whether every edge has an equal one in the other direction."""
        back = np.lexsort((self.edges[0], self.edges[1]))
        return np.array_equal(self.edges[::-1, back], self.edges) and np.array_equal(self.weights[back], self.weights)

    def neighbours(self, node: int) -> Integers:
        """Return the nodes with an edge to or from `node`, rising; itself only where it has an edge to itself."""
        out, back = self.edges[1, self.edges[0] == node], self.edges[0, self.edges[1] == node]
        return np.union1d(out, back).astype(np.int64)

    def degrees(self) -> Integers:
        """Return how many other nodes each node has an edge to or from."""
        apart = self.edges[0] != self.edges[1]
        pairs = np.unique(np.sort(self.edges[:, apart], axis=0), axis=1)
        return np.bincount(pairs.reshape(-1), minlength=self.nodes).astype(np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphSeries:
    """Values (time, node, channel) and the graph between the nodes; validated, read-only.

    Channel 0 is the quantity that is forecast. A stretch of steps without a gap in the clock is a run; no window
    crosses its ends.

    >>> series = GraphSeries(values=np.ones((4, 2, 1)), adjacency=Adjacency.empty(2), step_seconds=300)
    >>> series.num_steps, series.nodes, series.steps_per_day
    (4, ('0', '1'), 288)
    """

    values: Float32[ndarray, "time node channel"]
    """Readings, NaN where there is none."""
    adjacency: Adjacency
    nodes: tuple[str, ...] = ()
    """Name of each node, all different; given as 0, 1, … when empty."""
    channels: tuple[str, ...] = ()
    """Name of each channel, all different; given as 0, 1, … when empty."""
    units: tuple[str, ...] = ()
    """Unit of each channel; empty where none is known."""
    times: Stamps | None = None
    """Moment of each step, to the second, rising; none where only the step is known, or nothing."""
    step_seconds: int | None = None
    """Time from one step to the next; taken from the times where there are any."""
    coordinates: Float64[ndarray, "node 2"] | None = None
    """Position of each node: x and y, or longitude and latitude where `degrees` is set."""
    degrees: bool = False
    """The coordinates are degrees of longitude and latitude."""
    valid: NDArray[np.bool_] | None = None
    """True where there is a reading (time, node, channel); none where there is one everywhere."""
    name: str = ""
    """Name of the city."""
    first_step: int = 0
    """Number of the first step in the series that this one was cut from; tells the time of day where there are no
    times, step 0 being midnight."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        values, valid = _readings(self.values, self.valid)
        set_(self, "values", values)
        set_(self, "valid", valid)
        steps, nodes, channels = values.shape
        if self.adjacency.nodes != nodes:
            raise UserError(
                f"graph: adjacency of {self.adjacency.nodes} nodes for values of {nodes}; expected as many; values are "
                "(time, node, channel)"
            )
        set_(self, "nodes", _names(self.nodes, nodes, "node"))
        set_(self, "channels", _names(self.channels, channels, "channel"))
        units = tuple(self.units)
        set_(self, "units", units * channels if len(units) == 1 else units)
        if self.units and len(self.units) != channels:
            raise UserError(f"graph: {len(self.units)} units; expected one for each of {channels} channels")
        if self.coordinates is not None:
            set_(self, "coordinates", _positions(self.coordinates, nodes, self.nodes, degrees=self.degrees))
        self._set_clock(steps)

    def _set_clock(self, steps: int) -> None:
        set_ = object.__setattr__
        if self.step_seconds is not None and not 0 < self.step_seconds < 2**31:
            raise UserError(f"graph: step of {self.step_seconds} seconds; expected more than 0")
        if self.first_step < 0:
            raise UserError(f"graph: first step {self.first_step}; expected 0 or more")
        if self.times is None:
            return
        set_(self, "times", _moments(self.times, steps))
        between = np.diff(self.times).astype(np.int64)
        if self.step_seconds is None and steps > 1:
            set_(self, "step_seconds", _step_of(between))
        elif self.step_seconds is not None and (wrong := np.flatnonzero(between % self.step_seconds)).size:
            raise UserError(f"graph: step {wrong[0] + 1} comes {between[wrong[0]]} seconds after the one before it; "
                            f"expected whole steps of {self.step_seconds}")  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes (time, node, channel)."""
        steps, nodes, channels = self.values.shape
        return int(steps), int(nodes), int(channels)

    @property
    def num_steps(self) -> int:
        return int(self.values.shape[0])

    @property
    def num_nodes(self) -> int:
        return int(self.values.shape[1])

    @property
    def num_channels(self) -> int:
        return int(self.values.shape[2])

    def __len__(self) -> int:
        return self.num_steps

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where there is a reading (time, node, channel)."""
        return np.ones(self.shape, np.bool_) if self.valid is None else self.valid

    @property
    def steps_per_day(self) -> int:
        """Steps in 24 hours by the clock, closed nights included; 1 where a step is a day or longer.

        Raises:
            UserError: the step is not known, or a day is no whole number of steps.
        """
        if self.step_seconds is None:
            raise UserError(f"{self.name or 'graph'}: time step not known; expected one to tell the time of day; pass "
                            "--data.step '5 minutes'")  # fmt: skip
        if self.step_seconds >= DAY_SECONDS:
            return 1
        if DAY_SECONDS % self.step_seconds:
            raise UserError(f"{self.name or 'graph'}: step of {self.step_seconds} seconds; expected one that divides "
                            "a day")  # fmt: skip
        return DAY_SECONDS // self.step_seconds

    def step_of_day(self) -> Int64[ndarray, "time"]:
        """Return the number of each step in its day, from 0 at midnight to `steps_per_day` - 1."""
        per_day = self.steps_per_day
        if self.times is None:
            return (self.first_step + np.arange(self.num_steps, dtype=np.int64)) % per_day
        if self.step_seconds is None or per_day == 1:
            return np.zeros(self.num_steps, dtype=np.int64)
        return self.times.astype(np.int64) % DAY_SECONDS // self.step_seconds

    def day_number(self) -> Int64[ndarray, "time"]:
        """Return the number of the calendar day of each step: days since 1970, or since step 0 without times."""
        if self.times is not None:
            return self.times.astype("datetime64[D]").astype(np.int64)
        if self.step_seconds is None:
            return np.zeros(self.num_steps, dtype=np.int64)
        steps = self.first_step + np.arange(self.num_steps, dtype=np.int64)
        return steps * self.step_seconds // DAY_SECONDS

    def day_of_week(self) -> Int64[ndarray, "time"]:
        """Return the day of the week of each step, 0 for Monday; without times step 0 is taken for a Monday."""
        return (self.day_number() + (3 if self.times is not None else 0)) % 7

    def runs(self) -> list[range]:
        """Return the stretches of steps without a gap in the clock, in order."""
        gaps = self.gaps().tolist()
        return [range(start, stop) for start, stop in zip([0, *gaps], [*gaps, self.num_steps], strict=True)][
            : None if self.num_steps else 0
        ]

    def gaps(self) -> Integers:
        """Return the steps that do not follow the one before them by one time step."""
        if self.times is None or self.step_seconds is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(np.diff(self.times).astype(np.int64) != self.step_seconds) + 1

    def slice(self, start: int | None, stop: int | None) -> GraphSeries:
        """Return the steps from `start` to before `stop`, as Python's slices count."""
        rows = range(self.num_steps)[start:stop]
        return replace(
            self,
            values=self.values[rows.start : rows.stop],
            valid=None if self.valid is None else self.valid[rows.start : rows.stop],
            times=None if self.times is None else self.times[rows.start : rows.stop],
            first_step=self.first_step + rows.start,
        )

    def take_nodes(self, index: Sequence[int] | Integers, *, name: str | None = None) -> GraphSeries:
        """Return the nodes `index`, in that order, and the graph between them.

        Raises:
            UserError: a number is outside, or occurs twice.
        """
        chosen = checked_index(index, self.num_nodes, "graph: node")
        return replace(
            self,
            values=self.values[:, chosen],
            valid=None if self.valid is None else self.valid[:, chosen],
            adjacency=self.adjacency.take(chosen),
            nodes=tuple(self.nodes[node] for node in chosen),
            coordinates=None if self.coordinates is None else self.coordinates[chosen],
            name=self.name if name is None else name,
        )

    def take_channels(self, names: Iterable[str]) -> GraphSeries:
        """Return the channels `names`, in that order.

        Raises:
            UserError: there is no such channel, or none is named.
        """
        wanted = list(names)
        if lost := [one for one in wanted if one not in self.channels]:
            raise UserError(f"{self.name or 'graph'}: no channel {lost[0]!r:.60}; expected {', '.join(self.channels)}")
        if not wanted:
            raise UserError(f"{self.name or 'graph'}: no channel chosen; expected one of {', '.join(self.channels)}")
        index = [self.channels.index(one) for one in wanted]
        return replace(
            self,
            values=self.values[:, :, index],
            valid=None if self.valid is None else self.valid[:, :, index],
            channels=tuple(wanted),
            units=tuple(self.units[one] for one in index) if self.units else (),
        )

    def check(self) -> list[str]:
        """Return everything odd about this series, one sentence each; an empty list when nothing is."""
        from stcore.graph_checks import oddities

        return oddities(self)

    def describe(self) -> dict[str, Any]:
        """Return sizes, times, the graph and the spread of each channel, as plain values fit for JSON."""
        from stcore.graph_checks import facts

        return facts(self)

    @classmethod
    def read(cls, source: str | Path, options: GraphReadOptions | None = None) -> GraphSeries:
        """Read a file, a folder or a named data set (see `stcore.readers.graph_files`)."""
        from stcore.readers.graph_files import read_graph
        from stcore.readers.graph_options import GraphReadOptions

        return read_graph(replace(options or GraphReadOptions(), source=(str(source),)))

    def write(self, path: str | Path) -> None:
        """Write an .npz file that `read` turns back into the same series.

        Raises:
            UserError: another ending, or it cannot be written.
        """
        from stcore.readers.graph_writing import write_graph

        write_graph(self, Path(path))


def checked_index(index: Sequence[int] | Integers, count: int, what: str) -> Integers:
    """Return `index` as an array of different numbers from 0 to `count` - 1.

    Raises:
        UserError: a number is outside, or occurs twice.
    """
    chosen = np.asarray(index, dtype=np.int64).reshape(-1)
    outside = chosen[(chosen < 0) | (chosen >= count)]
    if outside.size:
        raise UserError(f"{what} {outside[0]}; expected 0 to {count - 1}")
    found, times = np.unique(chosen, return_counts=True)
    if (times > 1).any():
        raise UserError(f"{what} {found[times > 1][0]} occurs twice; expected different ones")
    return chosen


def _readings(values: Any, valid: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Return values with NaN where there is no reading, and where there is one; none where there is one everywhere."""
    given = np.asarray(values)
    if given.ndim != 3:
        raise UserError(f"graph: values of shape {given.shape}; expected three axes: time, node, channel")
    if given.dtype.kind not in "iufb":
        raise UserError(f"graph: values of type {given.dtype}; expected real numbers")
    if min(given.shape[1:]) < 1:
        raise UserError(f"graph: values of shape {given.shape}; expected at least one node and channel")
    single = _single(given)
    if np.isinf(single).any():
        step, node, channel = np.argwhere(np.isinf(single))[0].tolist()
        raise UserError(f"graph: step {step}, node {node}, channel {channel} is {given[step, node, channel]}; expected "
                        "numbers that single precision holds")  # fmt: skip
    known = ~np.isnan(single)
    if valid is not None:
        mask = np.asarray(valid)
        if mask.dtype.kind != "b" or mask.shape != given.shape:
            raise UserError(f"graph: valid is {mask.dtype} of shape {mask.shape}; expected True or False, "
                            f"{given.shape}")  # fmt: skip
        if (known & ~mask).any():
            single = np.where(mask, single, np.float32(np.nan))
            known &= mask
    single.setflags(write=False)
    known.setflags(write=False)
    return single, None if known.all() else known


def _single(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return values in single precision; those of another series, which nobody can write to, are shared."""
    if values.dtype == np.float32 and not values.flags.writeable:
        return values
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _names(names: Sequence[str], count: int, kind: str) -> tuple[str, ...]:
    given = tuple(names) or tuple(map(str, range(count)))
    if len(given) != count:
        raise UserError(f"graph: {len(given)} {kind} names; expected {count}")
    if len(set(given)) != count:
        seen: set[str] = set()
        twice = next(name for name in given if name in seen or seen.add(name))
        raise UserError(f"graph: {kind} {twice!r:.60} occurs twice; expected different names")
    return given


def _positions(values: Any, nodes: int, names: Sequence[str], *, degrees: bool) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    if array.shape != (nodes, 2):
        raise UserError(f"graph: coordinates of shape {array.shape}; expected ({nodes}, 2), two for each node")
    lost = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if lost.size:
        raise UserError(f"graph: coordinates of node {names[lost[0]]} are {array[lost[0]].tolist()}; expected numbers")
    if degrees and (far := np.flatnonzero((np.abs(array) > (360.0, 90.0)).any(axis=1))).size:
        raise UserError(
            f"graph: coordinates of node {names[far[0]]} are longitude {array[far[0], 0]:g}, latitude "
            f"{array[far[0], 1]:g}; expected latitudes up to 90 degrees; are they swapped?"
        )
    array.setflags(write=False)
    return array


def _moments(values: Any, steps: int) -> Stamps:
    given = np.asarray(values)
    if given.dtype.kind != "M" or given.shape != (steps,):
        raise UserError(f"graph: times are {given.dtype} of shape {given.shape}; expected one moment for each of "
                        f"{steps:,} steps")  # fmt: skip
    times = given.astype("datetime64[s]")
    if (lost := np.flatnonzero(np.isnat(times))).size:
        raise UserError(f"graph: step {lost[0]} has no time; expected a moment for each")
    falls = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "s"))
    if falls.size:
        at = int(falls[0]) + 1
        found = "the same time as" if times[at] == times[at - 1] else f"{times[at]}, before {times[at - 1]} of"
        raise UserError(f"graph: step {at} has {found} the step before it ({len(falls):,} such); expected rising times")
    times.setflags(write=False)
    return times


def _step_of(between: Integers) -> int:
    """Return the most common time between steps; everything longer must be a gap of whole steps.

    Raises:
        UserError: some are shorter, or no multiple of it: the frequency is not constant.
    """
    sizes, counts = np.unique(between, return_counts=True)
    step = int(sizes[counts.argmax()])
    wrong = np.flatnonzero(between % step != 0)
    if wrong.size:
        at = int(wrong[0])
        raise UserError(f"graph: step {at + 1} comes {between[at]} seconds after the one before it where most come "
                        f"after {step} ({len(wrong):,} such); expected whole steps")  # fmt: skip
    return step
