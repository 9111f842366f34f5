"""Classical point processes fitted by maximum likelihood on the training part, as rivals in the table of scores.

`fit_self_exciting` fits the self-exciting process of `stcore.generate.events` (a space-time epidemic-type process:
Ogata, Annals of the Institute of Statistical Mathematics 1998, with exponential decay) by expectation-maximisation over
the unknown parents (Veen and Schoenberg, Journal of the American Statistical Association 2008).
`InhomogeneousPoisson` has a rate that depends on the time since the start of a sequence and on the place, and on
nothing that happened. Both condition on the first event of each sequence, as every forecast does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray

from stcore.baselines import EventForecaster, EventSamples, generator, transitions
from stcore.events import EventSequences
from stcore.generate.events import SelfExciting, TrueForecaster

COMPONENTS = 12
"""Gaussians of the background density."""
ITERATIONS = 60
TOLERANCE = 1e-5
"""Gain of log likelihood per event, in nats, below which the iteration ends."""
RATE_BINS = 20
"""Bins of the time since a sequence's start; each holds as many training events."""


def fit_rivals(train: EventSequences, test: EventSequences) -> dict[str, EventForecaster]:
    """Fit the classical processes on `train` and return them as forecasters of every later event of `test`.

    Args:
        train: the training part.
        test: sequences to forecast, marks numbered as in `train`.
    """
    process = fit_self_exciting(train)
    return {
        "inhomogeneous Poisson": InhomogeneousPoisson.fit(train, test),
        "self-exciting": TrueForecaster(process, test),
    }


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of round Gaussians on the plane."""

    centres: Float64[ndarray, "component 2"]
    widths: Float64[ndarray, "component"]
    weights: Float64[ndarray, "component"]

    @classmethod
    def start(cls, location: Float64[ndarray, "event 2"], *, seed: int = 0) -> Mixture:
        """Begin at events drawn with distances in mind (k-means++ seeding), all equally wide."""
        rng = np.random.Generator(np.random.Philox(key=seed))
        chosen = [location[rng.integers(len(location))]]
        while len(chosen) < min(COMPONENTS, len(np.unique(location, axis=0))):
            square = np.min([((location - centre) ** 2).sum(1) for centre in chosen], axis=0)
            chosen.append(location[rng.choice(len(location), p=square / square.sum())])
        width = max(float(location.std()), 1e-6) / len(chosen) ** 0.5
        return cls(np.array(chosen), np.full(len(chosen), width), np.full(len(chosen), 1.0 / len(chosen)))

    def densities(self, location: Float64[ndarray, "event 2"]) -> Float64[ndarray, "event component"]:
        """Evaluate the weighted density of each component."""
        square = ((location[:, None] - self.centres) ** 2).sum(-1) / self.widths**2
        return self.weights * np.exp(-0.5 * square) / (2.0 * np.pi * self.widths**2)

    def fitted(
        self, location: Float64[ndarray, "event 2"], share: Float64[ndarray, "event component"], *, floor: float
    ) -> Mixture:
        """Return the mixture that is most likely given the shares of the events in each component."""
        mass = share.sum(0) + 1e-12
        centres = share.T @ location / mass[:, None]
        square = np.stack([((location - centre) ** 2).sum(1) for centre in centres], axis=1)
        widths = np.sqrt((share * square).sum(0) / (2.0 * mass) + floor**2)
        return Mixture(centres, widths, mass / mass.sum())

    def draw(self, count: int, rng: np.random.Generator) -> Float64[ndarray, "sample 2"]:
        """Draw locations."""
        component = rng.choice(len(self.weights), size=count, p=self.weights)
        return self.centres[component] + self.widths[component, None] * rng.normal(size=(count, 2))


class _Sequence(NamedTuple):
    """One training sequence: each of its events but the first is explained by those before it."""

    time: Float64[ndarray, "event"]
    location: Float64[ndarray, "event 2"]
    mark: Int64[ndarray, "event"]

    @property
    def delay(self) -> Float64[ndarray, "child parent"]:
        """Time since every event before; infinite where there is none."""
        delay = self.time[1:, None] - self.time[:-1]
        return np.where(np.tri(len(delay), dtype=bool), delay, np.inf)

    @property
    def square(self) -> Float64[ndarray, "child parent"]:
        """Squared distance."""
        return ((self.location[1:, None] - self.location[:-1]) ** 2).sum(-1)

    @property
    def left(self) -> Float64[ndarray, "event"]:
        """Time from each event to the last of the sequence."""
        return self.time[-1] - self.time


def fit_self_exciting(train: EventSequences) -> SelfExciting:
    """Fit background rates, offspring, decay, spread and background density by expectation-maximisation.

    Args:
        train: sequences of at least two events somewhere; coordinates are taken as planar.

    Raises:
        UserError: no sequence has two events.
    """
    known = transitions(train)  # refuses a part without transitions in clear words
    marks = max(1, train.num_marks)
    gap, scale = float(known.gap.mean()), float(known.location.std())
    process = _process(train, np.full(marks, 0.5 / gap / marks), np.full((marks, marks), 0.5 / marks), 1.0 / gap,
                       0.2 * scale, Mixture.start(known.location))  # fmt: skip
    before = -np.inf
    for _ in range(ITERATIONS):
        process, likelihood = _improve(process, train, floor=1e-3 * scale)
        if likelihood - before < TOLERANCE:
            break
        before = likelihood
    return process


def _improve(process: SelfExciting, train: EventSequences, *, floor: float) -> tuple[SelfExciting, float]:
    """One iteration: the share of each possible cause of each event, then the parameters these shares make likely."""
    marks, events = len(process.mark_names), 0
    mixture = Mixture(process.centres, process.widths, process.weights)
    background, born, reached = np.zeros(marks), np.zeros((marks, marks)), np.zeros(marks)
    waited = unseen = spread = exposure = likelihood = 0.0
    places: list[ndarray] = []
    shares: list[ndarray] = []
    for sequence in _sequences(train):
        delay, square, child, parent = sequence.delay, sequence.square, sequence.mark[1:], sequence.mark[:-1]
        fading = np.exp(-process.decay * delay)
        cause = process.offspring[parent][:, child].T * process.decay * fading
        cause *= np.exp(-0.5 * square / process.spread**2) / (2.0 * np.pi * process.spread**2)
        spontaneous = process.background_rate[child, None] * mixture.densities(sequence.location[1:])
        intensity = cause.sum(1) + spontaneous.sum(1) + 1e-300
        cause, spontaneous = cause / intensity[:, None], spontaneous / intensity[:, None]
        for mark in range(marks):
            np.add.at(born[:, mark], parent, cause[child == mark].sum(0))
        background += np.bincount(child, weights=spontaneous.sum(1), minlength=marks)
        waited += float((cause * np.where(np.isfinite(delay), delay, 0.0)).sum())
        spread += float((cause * square).sum())
        left = np.exp(-process.decay * sequence.left)
        reached += np.bincount(sequence.mark, weights=1.0 - left, minlength=marks)
        descendants = process.offspring.sum(1)[sequence.mark]
        unseen += float((descendants * sequence.left * left).sum())
        exposure += float(sequence.left[0])
        likelihood += float(np.log(intensity).sum() - (descendants * (1.0 - left)).sum())
        places.append(sequence.location[1:])
        shares.append(spontaneous)
        events += len(child)
    likelihood -= float(process.background_rate.sum()) * exposure
    triggered = max(float(born.sum()), 1e-12)
    offspring = born / np.maximum(reached, 1e-12)[:, None]
    largest = float(np.abs(np.linalg.eigvals(offspring)).max())
    improved = _process(
        train,
        np.maximum(background / exposure, 1e-12),
        offspring * min(1.0, 0.99 / max(largest, 1e-12)),
        triggered / (waited + unseen),
        max(np.sqrt(spread / (2.0 * triggered)), floor),
        mixture.fitted(np.concatenate(places), np.concatenate(shares), floor=floor),
    )
    return improved, likelihood / events


def _process(
    train: EventSequences, rate: ndarray, offspring: ndarray, decay: float, spread: float, mixture: Mixture
) -> SelfExciting:
    return SelfExciting(
        background_rate=rate,
        offspring=offspring,
        decay=decay,
        spread=float(spread),
        centres=mixture.centres,
        widths=mixture.widths,
        weights=mixture.weights,
        mark_names=train.mark_names or ("event",),
        time_unit=train.time_unit,
    )


def _sequences(train: EventSequences) -> Iterator[_Sequence]:
    mark = np.zeros(train.num_events, dtype=np.int64) if train.mark is None else train.mark
    for start, end in zip(train.offsets[:-1], train.offsets[1:], strict=True):
        if end - start > 1:
            yield _Sequence(train.time[start:end], train.location[start:end], mark[start:end])


@dataclass(frozen=True, eq=False)
class InhomogeneousPoisson:
    """Events at a rate that is a step function of the time since the first event; places from a mixture."""

    edges: Float64[ndarray, "edge"]
    """Bin edges of the time since a sequence's first event, from 0."""
    rate: Float64[ndarray, "bin"]
    """Events per unit of time in each bin; the last holds for ever."""
    mixture: Mixture
    shares: Float64[ndarray, "mark"]
    marked: bool
    elapsed: Float64[ndarray, "event"]
    """Time from the first event of the sequence to the last known one, for each predicted event."""

    @classmethod
    def fit(cls, train: EventSequences, test: EventSequences) -> InhomogeneousPoisson:
        """Fit on `train`; `test` says where in its sequence each forecast starts."""
        sequences = list(_sequences(train))
        since = np.concatenate([sequence.time[1:] - sequence.time[0] for sequence in sequences])
        ends = np.array([sequence.left[0] for sequence in sequences])
        inner = np.unique(np.quantile(since, np.linspace(0.0, 1.0, RATE_BINS + 1)[1:-1]))
        edges = np.array([0.0, *inner[inner > 0.0]])
        exposure = (np.clip(ends[:, None], edges, np.append(edges[1:], np.inf)) - edges).sum(0)
        counts = np.histogram(since, np.append(edges, np.inf))[0]
        location = np.concatenate([sequence.location[1:] for sequence in sequences])
        mixture, floor = Mixture.start(location), 1e-3 * float(location.std())
        for _ in range(ITERATIONS):
            densities = mixture.densities(location) + 1e-300
            mixture = mixture.fitted(location, densities / densities.sum(1, keepdims=True), floor=floor)
        marks = np.bincount(np.concatenate([sequence.mark[1:] for sequence in sequences]),
                            minlength=max(1, train.num_marks)).astype(np.float64)  # fmt: skip
        marks[marks == 0.0] = 0.5
        elapsed = [sequence.time[:-1] - sequence.time[0] for sequence in _sequences(test)]
        return cls(edges, np.maximum(counts, 0.5) / np.maximum(exposure, 1e-12), mixture, marks / marks.sum(),
                   train.mark is not None, np.concatenate(elapsed))  # fmt: skip

    def sample(self, indices: Int64[ndarray, "event"], samples: int, *, seed: int) -> EventSamples:
        """Draw the next event for the predicted events with these indices."""
        drawn = [self._draw(index, samples, generator(seed, index)) for index in indices.tolist()]
        gap, location, mark = (torch.from_numpy(np.stack([one[column] for one in drawn])) for column in range(3))
        shares = torch.from_numpy(self.shares).expand(len(indices), -1)
        return EventSamples(gap=gap, location=location, mark=mark if self.marked else None,
                            mark_probability=shares if self.marked else None)  # fmt: skip

    def _draw(self, index: int, samples: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
        # The integrated rate is piecewise linear: a gap is where it has grown by an Exp(1) number.
        grown = np.append(0.0, np.cumsum(np.diff(self.edges) * self.rate[:-1]))
        now = self.elapsed[index]
        target = self._integrated(now, grown) + rng.exponential(1.0, samples)
        bin_ = np.searchsorted(grown, target, side="right") - 1
        gap = self.edges[bin_] + (target - grown[bin_]) / self.rate[bin_] - now
        location = self.mixture.draw(samples, rng)
        return gap, location, rng.choice(len(self.shares), size=samples, p=self.shares)

    def _integrated(self, time: float, grown: Float64[ndarray, "bin"]) -> float:
        bin_ = int(np.searchsorted(self.edges, time, side="right")) - 1
        return float(grown[bin_] + (time - self.edges[bin_]) * self.rate[bin_])
