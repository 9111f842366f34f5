"""A self-exciting process in time and space, fitted by maximum likelihood.

The process is that of `stcore.generate.events` (a space-time epidemic-type process: Ogata, Annals of the Institute of
Statistical Mathematics 1998, with exponential decay). Expectation-maximisation over the unknown parents: Veen and
Schoenberg, Journal of the American Statistical Association 2008. The first event of each sequence is given.

Work goes with the number of pairs of an event and one before it. The iteration therefore begins on a sample of the
sequences; the rest joins when decay is known well enough to leave out parents that can no longer matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from smash.mixture import Mixture, choose_components, extent, sharpest
from stcore.baselines import transitions
from stcore.events import EventSequences
from stcore.generate.events import SelfExciting

ITERATIONS, FINAL_ITERATIONS = 60, 25
TOLERANCE = 1e-5
"""Gain of log likelihood per event, in nats, below which the iteration ends."""
SAMPLE_PAIRS, MOST_PAIRS = 1_000_000, 16_000_000
"""Pairs of event and possible parent on which the iteration begins, and at most."""
FORGOTTEN = 20.0
"""Decay times after which a parent is left out, once decay is about known (a share of exp(-20))."""
COMPONENTS = (4, 16, 64)
"""Numbers of Gaussians of the background density that are tried."""


def fit_self_exciting(train: EventSequences) -> SelfExciting:
    """Fit background rates, offspring, decay, spread and background density.

    Args:
        train: sequences of at least two events somewhere; coordinates are taken as planar.

    Raises:
        UserError: no sequence has two events.
    """
    known = transitions(train)  # refuses a part without transitions in clear words
    marks = max(1, train.num_marks)
    gap, scale = float(known.gap.mean()), extent(known.location)
    components = _components(train)
    process = _process(train, np.full(marks, 0.5 / gap / marks), np.full((marks, marks), 0.5 / marks), 1.0 / gap,
                       0.2 * scale, Mixture.fit(known.location, components))  # fmt: skip
    some = _some_sequences(train, SAMPLE_PAIRS)
    process = _iterated(process, train.select(some), ITERATIONS, longest=np.inf)
    if len(some) == train.num_sequences:
        return process
    longest = FORGOTTEN / process.decay
    rest = train.select(_some_sequences(train, MOST_PAIRS, longest=longest))
    return _iterated(process, rest, FINAL_ITERATIONS, longest=longest)


def _components(train: EventSequences) -> int:
    """Choose the size of the background by the likelihood of the last tenth of the sequences."""
    late = max(1, train.num_sequences // 10)
    early = train.select(range(train.num_sequences - late)).location
    held_back = train.select(range(train.num_sequences - late, train.num_sequences)).location
    if len(early) < 10 or len(held_back) < 10:
        return COMPONENTS[0]
    return choose_components(early, held_back, COMPONENTS)


def _some_sequences(train: EventSequences, most_pairs: int, *, longest: float = np.inf) -> Int64[ndarray, "sequence"]:
    """Return sequences, evenly spread over all, that together have at most this many pairs (but one at least)."""
    pairs = np.array([_parents(train.time[start:end], longest)[1].sum() for start, end in _spans(train)])
    total = int(pairs.sum())
    if total <= most_pairs:
        return np.arange(train.num_sequences)
    step = -(-total // most_pairs)
    chosen = np.arange(0, train.num_sequences, step)
    return chosen if (pairs[chosen] > 0).any() else np.array([int(pairs.argmax())])


def _spans(train: EventSequences) -> list[tuple[int, int]]:
    return list(zip(train.offsets[:-1].tolist(), train.offsets[1:].tolist(), strict=True))


def _parents(
    time: Float64[ndarray, "event"], longest: float
) -> tuple[Int64[ndarray, "child"], Int64[ndarray, "child"]]:
    """Return the first possible parent of each event but the first, and how many there are (at least one)."""
    child = np.arange(1, len(time))
    first = np.searchsorted(time, time[1:] - longest) if np.isfinite(longest) else np.zeros(len(child), dtype=np.int64)
    first = np.minimum(first, child - 1)
    return first, child - first


@dataclass(frozen=True, eq=False)
class _Pairs:
    """What of the events the iteration needs again and again."""

    delay: Float32[ndarray, "pair"]
    """Time from parent to child; pairs are in the order of their children."""
    square: Float32[ndarray, "pair"]
    """Squared distance."""
    kind: Int64[ndarray, "pair"]
    """Mark of the parent times the number of marks plus the mark of the child."""
    counts: Int64[ndarray, "child"]
    """Possible parents of each child."""
    location: Float64[ndarray, "child 2"]
    mark: Int64[ndarray, "child"]
    every_mark: Int64[ndarray, "event"]
    """Marks of all events, as parents."""
    left: Float64[ndarray, "event"]
    """Time from each event to the last of its sequence."""
    exposure: float
    """Time from first to last event, summed over sequences."""

    @classmethod
    def of(cls, train: EventSequences, longest: float) -> _Pairs:
        used = [(start, end) for start, end in _spans(train) if end - start > 1]
        mark = np.zeros(train.num_events, dtype=np.int64) if train.mark is None else train.mark
        found = [_parents(train.time[start:end], longest) for start, end in used]
        first = np.concatenate([part[0] + start for part, (start, _) in zip(found, used, strict=True)])
        counts = np.concatenate([part[1] for part in found])
        children = np.concatenate([np.arange(start + 1, end) for start, end in used])
        parent = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        child = np.repeat(children, counts)
        every = np.concatenate([np.arange(start, end) for start, end in used])
        return cls(
            delay=(train.time[child] - train.time[parent]).astype(np.float32),
            square=((train.location[child] - train.location[parent]) ** 2).sum(1).astype(np.float32),
            kind=mark[parent] * train.num_marks + mark[child],
            counts=counts,
            location=train.location[children],
            mark=mark[children],
            every_mark=mark[every],
            left=np.concatenate([train.time[end - 1] - train.time[start:end] for start, end in used]),
            exposure=float(sum(train.time[end - 1] - train.time[start] for start, end in used)),
        )


@dataclass(frozen=True)
class _Limits:
    """How sharp places and how fast decay may become: the likelihood has no maximum where events coincide."""

    sharpest: float
    """Smallest standard deviation of places."""
    fastest: float
    """Largest decay: one over the time that the data can tell apart."""

    @classmethod
    def of(cls, train: EventSequences) -> _Limits:
        gap = transitions(train).gap
        apart = gap[gap > 0.0]
        fastest = 1.0 / float(np.quantile(apart, 0.01)) if len(apart) else 1.0
        return cls(sharpest(train.location), fastest)


def _iterated(process: SelfExciting, train: EventSequences, iterations: int, *, longest: float) -> SelfExciting:
    pairs, limits = _Pairs.of(train, longest), _Limits.of(train)
    before = -np.inf
    for _ in range(iterations):
        process, likelihood = _improve(process, train, pairs, limits)
        if likelihood - before < TOLERANCE:
            break
        before = likelihood
    return process


def _improve(
    process: SelfExciting, train: EventSequences, pairs: _Pairs, limits: _Limits
) -> tuple[SelfExciting, float]:
    """One iteration: the share of each possible cause of each event, then the parameters these shares make likely."""
    marks = len(process.mark_names)
    mixture = Mixture(process.centres, process.widths, process.weights)
    cause = np.exp(-process.decay * pairs.delay - 0.5 / process.spread**2 * pairs.square)
    density = process.decay / (2.0 * np.pi * process.spread**2)
    cause *= (density * process.offspring).astype(np.float32).ravel()[pairs.kind]
    first_pair = np.cumsum(pairs.counts) - pairs.counts
    triggered = np.add.reduceat(cause, first_pair, dtype=np.float64)
    rate = process.background_rate[pairs.mark]
    log_intensity, sums = mixture.explain(pairs.location, rate=rate, other=triggered)
    one_over = np.exp(np.minimum(-log_intensity, 85.0))  # far from all others: what it could be owed to is 0 as well
    cause *= np.repeat(one_over, pairs.counts).astype(np.float32)
    born = np.bincount(pairs.kind, weights=cause, minlength=marks * marks).reshape(marks, marks)
    background = np.bincount(pairs.mark, weights=1.0 - triggered * one_over, minlength=marks)

    left = np.exp(-process.decay * pairs.left)
    reached = np.bincount(pairs.every_mark, weights=1.0 - left, minlength=marks)
    descendants = process.offspring.sum(1)[pairs.every_mark]
    # The end of observation cuts the wait for descendants short: the slope of their expected number in the decay.
    unseen = float((descendants * pairs.left * left).sum())
    waited = float(np.dot(cause, pairs.delay))
    total = max(float(born.sum()), 1e-12)
    likelihood = float(log_intensity.sum() - (descendants * (1.0 - left)).sum())
    likelihood -= float(process.background_rate.sum()) * pairs.exposure
    offspring = born / np.maximum(reached, 1e-12)[:, None]
    largest = float(np.abs(np.linalg.eigvals(offspring)).max())
    improved = _process(
        train,
        np.maximum(background / pairs.exposure, 1e-12),
        offspring * min(1.0, 0.99 / max(largest, 1e-12)),
        min(total / max(waited + unseen, 1e-300), limits.fastest),
        max(float(np.sqrt(np.dot(cause, pairs.square) / (2.0 * total))), limits.sharpest),
        mixture.improved(sums, floor=limits.sharpest),
    )
    return improved, likelihood / len(pairs.mark)


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
