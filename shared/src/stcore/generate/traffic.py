"""Cities with a known truth: speeds on random road networks that all obey one law.

Each city is a network of its own. A road is a place between the outskirts, where mornings are slow, and the centre,
where evenings are; the usual speed of a road follows the time of day, weakly at weekends. What is unusual about it
fades, the slower the busier the road, and is handed on to the roads beside it. The best forecast that there can be is
therefore known: usual speed plus what is left of the deviations of the road and its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray

from stcore.errors import UserError
from stcore.graphs import Adjacency, GraphSeries
from stcore.sampling import derive_seed

START = np.datetime64("2024-01-01T00:00:00", "s")
"""The first step of every city, a Monday."""
_LINKS = 3
_WEEKEND = 0.35


@dataclass(frozen=True, kw_only=True)
class TrafficLaw:
    """What all cities have in common."""

    step_minutes: int = 15
    free_speed: tuple[float, float] = (45.0, 75.0)
    """Speed at night in the outskirts and in the centre, in km/h: slower towards the centre."""
    rush: tuple[float, float] = (12.0, 26.0)
    """How many km/h a rush hour takes in the outskirts and in the centre."""
    memory: tuple[float, float] = (0.86, 0.96)
    """Share of a deviation that is left after a step, on a quiet road and on a busy one."""
    handed_on: float = 0.3
    """Share of what is left that comes from the roads beside it."""
    noise: float = 1.6
    """Deviation of what is new in each step, in km/h."""

    def __post_init__(self) -> None:
        if self.step_minutes < 1 or 1440 % self.step_minutes:
            raise UserError(f"step-minutes: {self.step_minutes}; expected a divisor of the 1440 minutes of a day")
        if not 0.0 <= self.memory[0] <= self.memory[1] < 1.0 or not 0.0 <= self.handed_on <= 1.0:
            raise UserError(f"memory {self.memory}, handed on {self.handed_on}; expected shares, memory below 1")

    @property
    def steps_per_day(self) -> int:
        return 1440 // self.step_minutes


@dataclass(frozen=True, eq=False, kw_only=True)
class TrafficCity:
    """A road network and what the law makes of it.

    >>> city = TrafficCity.make(8, seed=0)
    >>> city.series(2, seed=1).shape
    (192, 8, 1)
    """

    law: TrafficLaw
    name: str
    adjacency: Adjacency
    points: Float64[ndarray, "node 2"]
    """Positions in kilometres."""
    usual: Float64[ndarray, "step_of_week node"]
    """Usual speed in each step of a week that begins on Monday, in km/h."""
    transfer: Float64[ndarray, "node node"]
    """What is left of deviations (column) in the next step (row)."""

    @classmethod
    def make(cls, nodes: int, *, seed: int, law: TrafficLaw | None = None, name: str = "city") -> TrafficCity:
        """Draw a road network of `nodes` roads.

        Raises:
            UserError: fewer than 4 nodes.
        """
        if nodes < 4:
            raise UserError(f"nodes: {nodes}; expected at least 4 for a road network")
        law = TrafficLaw() if law is None else law
        rng = np.random.default_rng(derive_seed(seed, "traffic network"))
        points = rng.uniform(-1.0, 1.0, (nodes, 2)) * np.sqrt(nodes) / 3.0
        graph = _network(points)
        away = np.linalg.norm(points - points.mean(axis=0), axis=1)
        centre = 1.0 - away / away.max()
        beside = graph.dense() - np.eye(nodes)
        beside = beside / beside.sum(axis=1, keepdims=True)
        busy = law.memory[0] + (law.memory[1] - law.memory[0]) * centre
        transfer = busy[:, None] * ((1.0 - law.handed_on) * np.eye(nodes) + law.handed_on * beside)
        character = np.clip(centre + rng.normal(0.0, 0.1, nodes), 0.0, 1.0)
        return cls(law=law, name=name, adjacency=graph, points=points, usual=_usual(law, character), transfer=transfer)

    def series(self, days: int, *, seed: int) -> GraphSeries:
        """Return `days` days from a Monday midnight on, that began long before.

        Raises:
            UserError: less than a day.
        """
        if days < 1:
            raise UserError(f"days: {days}; expected at least 1")
        rng = np.random.default_rng(derive_seed(seed, "traffic days"))
        steps, nodes = days * self.law.steps_per_day, len(self.points)
        warm = 4 * int(1.0 / (1.0 - self.law.memory[1])) + 1
        fresh = self.law.noise * rng.standard_normal((warm + steps, nodes))
        off, now = np.empty((steps, nodes)), np.zeros(nodes)
        for step in range(warm + steps):  # each step follows from the one before
            now = self.transfer @ now + fresh[step]
            if step >= warm:
                off[step - warm] = now
        values = self.usual[np.arange(steps) % len(self.usual)] + off
        return GraphSeries(
            values=values[:, :, None],
            adjacency=self.adjacency,
            channels=("speed",),
            units=("km/h",),
            times=START + np.timedelta64(60 * self.law.step_minutes, "s") * np.arange(steps),
            coordinates=1000.0 * self.points,
            name=self.name,
        )

    def usual_of(self, series: GraphSeries) -> Float64[ndarray, "time node"]:
        """Return the usual speed in every step of a series of this city."""
        return self.usual[series.day_of_week() * self.law.steps_per_day + series.step_of_day()]

    def best_forecast(
        self, series: GraphSeries, starts: Int64[ndarray, "window"], history: int, horizon: int
    ) -> Float32[ndarray, "window horizon node"]:
        """Return the conditional means of the steps after the first `history` of each window."""
        usual = self.usual_of(series)
        off = (series.values[:, :, 0] - usual)[starts + history - 1]
        ahead: list[Float[ndarray, "window node"]] = []
        for step in range(horizon):
            off = off @ self.transfer.T
            ahead.append(usual[starts + history + step] + off)
        return np.stack(ahead, axis=1).astype(np.float32)

    def least_rmse(self, horizon: int) -> Float64[ndarray, "horizon"]:
        """Return the error of the best forecast at each number of steps ahead, over all nodes."""
        spread, errors = np.zeros_like(self.transfer), np.empty(horizon)
        for step in range(horizon):
            spread = self.transfer @ spread @ self.transfer.T + self.law.noise**2 * np.eye(len(self.transfer))
            errors[step] = np.sqrt(np.trace(spread) / len(spread))
        return errors


def simulate_cities(
    seed: int,
    cities: int = 4,
    *,
    nodes: int | Sequence[int] = 24,
    days: int | Sequence[int] = 14,
    law: TrafficLaw | None = None,
) -> list[GraphSeries]:
    """Return the series of `cities` cities of one law, each with a network of its own.

    Args:
        seed: of networks and days.
        cities: how many.
        nodes: roads of each city, or of all.
        days: days of each city, or of all.
        law: what they have in common.

    Raises:
        UserError: numbers of nodes or days for another number of cities.
    """
    sizes, lengths = ([given] * cities if isinstance(given, int) else list(given) for given in (nodes, days))
    for what, given in (("nodes", sizes), ("days", lengths)):
        if len(given) != cities:
            raise UserError(f"{what}: {len(given)} numbers for {cities} cities; expected one for each")
    return [
        TrafficCity.make(size, seed=derive_seed(seed, "city", number), law=law, name=f"city-{number + 1}").series(
            length, seed=derive_seed(seed, "days", number)
        )
        for number, (size, length) in enumerate(zip(sizes, lengths, strict=True))
    ]


def _network(points: Float64[ndarray, "node 2"]) -> Adjacency:
    """Join each point with its nearest ones and, so that nobody is cut off, along a shortest tree; weights fall with
    the distance, and every node has an edge of weight 1 to itself."""
    away = np.linalg.norm(points[:, None] - points[None], axis=2)
    joined = np.zeros(away.shape, np.bool_)
    near = np.argsort(away, axis=1)[:, 1 : _LINKS + 1]
    np.put_along_axis(joined, near, values=True, axis=1)
    inside = np.zeros(len(points), np.bool_)
    inside[0] = True
    while not inside.all():
        between = np.where(inside[:, None] & ~inside, away, np.inf)
        one, other = np.unravel_index(int(np.argmin(between)), away.shape)
        joined[one, other] = inside[other] = True
    joined |= joined.T
    np.fill_diagonal(joined, val=False)
    weights = np.where(joined, np.exp(-np.square(away / away[joined].mean()) / 2.0), 0.0)
    np.fill_diagonal(weights, 1.0)
    return Adjacency.from_dense(weights)


def _usual(law: TrafficLaw, character: Float64[ndarray, "node"]) -> Float64[ndarray, "step_of_week node"]:
    """Return the usual speed in a week; the outskirts are slow in the morning, the centre in the evening."""
    hour = np.arange(law.steps_per_day) * law.step_minutes / 60.0
    morning, evening = (np.exp(-0.5 * np.square((hour - at) / 1.3)) for at in (8.0, 17.5))
    share = (1.0 - character) * morning[:, None] + character * evening[:, None] + 0.25 * (morning + evening)[:, None]
    depth = law.rush[0] + (law.rush[1] - law.rush[0]) * character
    free = law.free_speed[1] - (law.free_speed[1] - law.free_speed[0]) * character
    days = [1.0] * 5 + [_WEEKEND] * 2
    return np.concatenate([free - weight * depth * share for weight in days])
