"""A self-exciting marked process in time and space whose intensity, and law of the next event, are known exactly.

    λ_k(t, x | history) = μ_k b(x) + Σ_{t_j < t} A[m_j, k] β exp(-β (t - t_j)) N(x; x_j, s² I)

Background events of mark k come at rate μ_k with density b, a mixture of Gaussians on the plane; an event of mark m
brings forth on average A[m, k] events of mark k, exponentially delayed and scattered around it. Nothing is cut off at
a border, so that no formula below is approximate. The process starts empty at time 0.

Source: Hawkes, Biometrika 1971; Ogata, Annals of the Institute of Statistical Mathematics 1998 (space-time ETAS); the
exact draw of the next gap as the smaller of two independent waiting times: Dassios and Zhao, Electronic Communications
in Probability 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from stcore.baselines import EventSamples, generator
from stcore.errors import UserError
from stcore.events import EventSequences


@dataclass(frozen=True, eq=False, kw_only=True)
class SelfExciting:
    """The truth: parameters of the process, its intensity, and its law of the next event given a history."""

    background_rate: Float64[ndarray, "mark"]
    """μ, events per unit of time for each mark; above 0 in sum."""
    offspring: Float64[ndarray, "parent child"]
    """A: mean number of direct descendants by mark of the parent (row) and of the child (column)."""
    decay: float
    """β, 1 / unit of time."""
    spread: float
    """s, standard deviation of a child's location around its parent."""
    centres: Float64[ndarray, "component 2"]
    """Means of the background mixture."""
    widths: Float64[ndarray, "component"]
    """Standard deviations of its components."""
    weights: Float64[ndarray, "component"]
    """Shares of its components, summing to 1."""
    mark_names: tuple[str, ...]
    time_unit: str = "days"

    def __post_init__(self) -> None:
        marks = len(self.mark_names)
        if self.background_rate.shape != (marks,) or self.offspring.shape != (marks, marks):
            raise UserError(f"self-exciting process: {self.background_rate.shape} rates and {self.offspring.shape} "
                            f"offspring; expected ({marks},) and ({marks}, {marks})")  # fmt: skip
        if (self.background_rate < 0.0).any() or self.background_rate.sum() <= 0.0 or (self.offspring < 0.0).any():
            raise UserError("self-exciting process: a negative rate; expected rates and offspring of at least 0")
        if self.branching_ratio >= 1.0:
            raise UserError(f"self-exciting process: branching ratio {self.branching_ratio:.3g}; expected below 1")
        if min(self.decay, self.spread, float(self.widths.min())) <= 0.0 or abs(self.weights.sum() - 1.0) > 1e-9:
            raise UserError("self-exciting process: decay, spread, widths and weights; expected positive numbers, "
                            "weights that sum to 1")  # fmt: skip

    @property
    def branching_ratio(self) -> float:
        """Spectral radius of the offspring matrix: the share of events that were triggered, in the long run."""
        return float(np.abs(np.linalg.eigvals(self.offspring)).max())

    @property
    def stationary_rate(self) -> Float64[ndarray, "mark"]:
        """Mean events per unit of time for each mark, long after the start: (I - Aᵀ)⁻¹ μ."""
        return np.linalg.solve(np.eye(len(self.mark_names)) - self.offspring.T, self.background_rate)

    def simulate(self, sequences: int, *, duration: float, seed: int) -> EventSequences:
        """Simulate independent sequences over [0, duration], generation by generation, without approximation.

        Sequence i depends on seed and i alone.
        """
        parts = [self._simulate_one(duration, generator(seed, index)) for index in range(sequences)]
        time, location, mark = (np.concatenate([part[column] for part in parts]) for column in range(3))
        return EventSequences(
            time=time,
            location=location,
            offsets=np.cumsum([0, *(len(part[0]) for part in parts)]),
            mark=mark,
            mark_names=self.mark_names,
            time_unit=self.time_unit,
            coordinates="planar",
        )

    def _simulate_one(self, duration: float, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
        marks = np.arange(len(self.mark_names))
        mark = np.repeat(marks, rng.poisson(self.background_rate * duration))
        time, location = rng.uniform(0.0, duration, len(mark)), self.background_locations(len(mark), rng)
        born = [(time, location, mark)]
        while len(mark):
            children = rng.poisson(self.offspring[mark])  # [parent mark]
            parent = np.repeat(np.arange(len(mark)), children.sum(axis=1))
            mark = np.repeat(np.tile(marks, len(children)), children.ravel())
            time = time[parent] + rng.exponential(1.0 / self.decay, len(parent))
            location = location[parent] + self.spread * rng.normal(size=(len(parent), 2))
            inside = time <= duration
            time, location, mark = time[inside], location[inside], mark[inside]
            born.append((time, location, mark))
        time, location, mark = (np.concatenate([generation[column] for generation in born]) for column in range(3))
        order = np.argsort(time, kind="stable")
        return time[order], location[order], mark[order]

    def background_locations(self, count: int, rng: np.random.Generator) -> Float64[ndarray, "event 2"]:
        """Draw locations from b."""
        component = rng.choice(len(self.weights), size=count, p=self.weights)
        return self.centres[component] + self.widths[component, None] * rng.normal(size=(count, 2))

    def background_density(self, location: Float64[ndarray, "point 2"]) -> Float64[ndarray, "point"]:
        """Evaluate b, 1 / unit of area."""
        square = ((location[:, None, :] - self.centres) ** 2).sum(axis=-1) / self.widths**2
        return (np.exp(-0.5 * square) * self.weights / (2.0 * np.pi * self.widths**2)).sum(axis=1)

    def intensity(
        self, time: Float64[ndarray, "point"], location: Float64[ndarray, "point 2"], *, history: EventSequences
    ) -> Float64[ndarray, "point mark"]:
        """Evaluate λ_k at points given one sequence of events (those before each point), per time and area."""
        excitation = self._excitation(time, history)  # [point event mark]
        square = ((location[:, None, :] - history.location) ** 2).sum(axis=-1) / self.spread**2
        scatter = np.exp(-0.5 * square) / (2.0 * np.pi * self.spread**2)
        triggered = np.einsum("pe,pek->pk", scatter, excitation)
        return self.background_rate * self.background_density(location)[:, None] + triggered

    def rate(self, time: Float64[ndarray, "point"], *, history: EventSequences) -> Float64[ndarray, "point mark"]:
        """Evaluate ∫ λ_k dx at times given one sequence of events, events per unit of time and mark."""
        return self.background_rate + self._excitation(time, history).sum(axis=1)

    def _excitation(
        self, time: Float64[ndarray, "point"], history: EventSequences
    ) -> Float64[ndarray, "point event mark"]:
        delay = time[:, None] - history.time
        trigger = np.where(delay > 0.0, self.decay * np.exp(-self.decay * np.abs(delay)), 0.0)
        return trigger[:, :, None] * self.offspring[_marks(history)]

    def excitation_after(self, events: EventSequences) -> Float64[ndarray, "event mark"]:
        """Sum, right after each event, the triggered rate of each mark by its sequence so far."""
        result = np.empty((events.num_events, len(self.mark_names)))
        gap, first, mark = events.gaps(), np.zeros(events.num_events, dtype=bool), _marks(events)
        first[events.offsets[:-1][np.diff(events.offsets) > 0]] = True
        level = np.zeros(len(self.mark_names))
        for index in range(events.num_events):  # each level decays from the one before
            level = 0.0 if first[index] else level * np.exp(-self.decay * gap[index])
            result[index] = level = level + self.decay * self.offspring[mark[index]]
        return result

    def compensator(self, events: EventSequences) -> Float64[ndarray, "event"]:
        """Integrate the total rate over the gap before each event: independent Exp(1) by the time-rescaling theorem."""
        gap, before = events.gaps(), self._excitation_before(events).sum(axis=1)
        return self.background_rate.sum() * gap - before * np.expm1(-self.decay * gap) / self.decay

    def gap_log_density(self, events: EventSequences) -> Float64[ndarray, "event"]:
        """Evaluate the log density of the gap before each event given what came before it, nats."""
        return np.log(self.rates_at(events).sum(axis=1)) - self.compensator(events)

    def mark_probability(self, events: EventSequences) -> Float64[ndarray, "event mark"]:
        """Evaluate the probability of each mark at the true time of each event."""
        rates = self.rates_at(events)
        return rates / rates.sum(axis=1, keepdims=True)

    def rates_at(self, events: EventSequences) -> Float64[ndarray, "event mark"]:
        """Evaluate the rate of each mark just before each event, events per unit of time."""
        decayed = self._excitation_before(events) * np.exp(-self.decay * events.gaps())[:, None]
        return self.background_rate + decayed

    def _excitation_before(self, events: EventSequences) -> Float64[ndarray, "event mark"]:
        """Take the triggered rate at the start of the gap before each event."""
        before = np.roll(self.excitation_after(events), 1, axis=0)
        before[events.offsets[:-1][np.diff(events.offsets) > 0]] = 0.0
        return before


def _marks(events: EventSequences) -> Int64[ndarray, "event"]:
    return np.zeros(events.num_events, dtype=np.int64) if events.mark is None else events.mark


class TrueForecaster:
    """The truth as a forecaster of every event but the first of each sequence, in the order of the sequences."""

    def __init__(self, truth: SelfExciting, events: EventSequences) -> None:
        self._truth, self._events = truth, events
        sequence = np.repeat(np.arange(events.num_sequences), events.lengths)
        later = np.flatnonzero(sequence[1:] == sequence[:-1])
        self._last = later
        self._start = events.offsets[sequence[later]]
        self._after = truth.excitation_after(events)

    def sample(self, indices: Int64[ndarray, "event"], samples: int, *, seed: int) -> EventSamples:
        """Draw the next event given its true history, for the predicted events with these indices."""
        drawn = [self._draw(index, samples, generator(seed, index)) for index in indices.tolist()]
        gap, location, mark, probability = (
            torch.from_numpy(np.stack([one[column] for one in drawn])) for column in range(4)
        )
        return EventSamples(gap=gap, location=location, mark=mark, mark_probability=probability)

    def _draw(self, index: int, samples: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        truth, last = self._truth, int(self._last[index])
        excited = self._after[last]
        gap = _next_gap(truth, float(excited.sum()), samples, rng)
        triggered = excited * np.exp(-truth.decay * gap)[:, None]
        rates = truth.background_rate + triggered
        probability = rates / rates.sum(axis=1, keepdims=True)
        mark = (rng.random((samples, 1)) > probability.cumsum(axis=1)[:, :-1]).sum(axis=1)
        own = np.arange(samples), mark
        from_parent = rng.random(samples) * rates[own] < triggered[own]
        location = truth.background_locations(samples, rng)
        parent = self._parents(slice(int(self._start[index]), last + 1), mark, rng.random(samples))
        scattered = self._events.location[parent] + truth.spread * rng.normal(size=(samples, 2))
        return gap, np.where(from_parent[:, None], scattered, location), mark, probability

    def _parents(
        self, history: slice, mark: Int64[ndarray, "sample"], uniform: Float64[ndarray, "sample"]
    ) -> Int64[ndarray, "sample"]:
        """Draw the parent of each triggered sample; all decay alike, so the weights at the last event will do."""
        truth, time = self._truth, self._events.time[history]
        fading = np.exp(-truth.decay * (time[-1] - time))
        weight = fading[:, None] * truth.offspring[_marks(self._events)[history]]
        total = weight.cumsum(axis=0)
        chosen = np.empty(len(mark), dtype=np.int64)
        for kind in np.unique(mark):
            of_kind = mark == kind
            chosen[of_kind] = np.searchsorted(total[:, kind], uniform[of_kind] * total[-1, kind], side="right")
        return history.start + chosen.clip(max=len(time) - 1)


def _next_gap(
    truth: SelfExciting, excitation: float, samples: int, rng: np.random.Generator
) -> Float64[ndarray, "sample"]:
    """Draw gaps with rate μ + Ψ exp(-β g): the smaller of an exponential and a triggered wait, which may be endless."""
    background = rng.exponential(1.0 / truth.background_rate.sum(), samples)
    hazard = rng.exponential(1.0, samples)
    remaining = 1.0 - truth.decay * hazard / max(excitation, 1e-300)
    triggered = np.where(remaining > 0.0, -np.log(np.maximum(remaining, 1e-300)) / truth.decay, np.inf)
    return np.minimum(background, triggered)


def clustered_city(*, seed_rate: float = 0.3) -> SelfExciting:
    """Make the world of the demo: three kinds of events in four districts, some kinds setting off others.

    Args:
        seed_rate: background events per day, all kinds together.
    """
    return SelfExciting(
        background_rate=seed_rate * np.array([0.6, 0.3, 0.1]),
        offspring=np.array([[0.6, 0.1, 0.0], [0.15, 0.4, 0.2], [0.8, 0.3, 0.15]]),
        decay=3.0,
        spread=0.25,
        centres=np.array([[2.0, 2.5], [6.5, 3.0], [4.0, 7.0], [8.0, 8.0]]),
        widths=np.array([0.8, 1.0, 1.2, 0.6]),
        weights=np.array([0.35, 0.3, 0.2, 0.15]),
        mark_names=("theft", "assault", "fire"),
    )
