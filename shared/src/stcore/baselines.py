"""Forecasts of the next event that know next to nothing: what any model has to beat.

Constant predictors give one value for all events; the marginal and the constant-rate forecaster ignore the history and
draw samples in the format of every sampler, so that the same scores apply to them. All are fitted on the training part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from stcore.errors import UserError
from stcore.metrics.scores import geometric_median

if TYPE_CHECKING:
    from stcore.events import EventSequences


@dataclass(frozen=True, eq=False)
class Transitions:
    """Every event but the first of its sequence: what is predicted, and the event before it."""

    gap: Float64[ndarray, "event"]
    """Time since the event before."""
    location: Float64[ndarray, "event 2"]
    previous_location: Float64[ndarray, "event 2"]
    mark: Int64[ndarray, "event"] | None
    previous_mark: Int64[ndarray, "event"] | None
    sequence: Int64[ndarray, "event"]
    """Index of the sequence."""
    num_marks: int
    """1 when unmarked."""


def transitions(events: EventSequences) -> Transitions:
    """List the predicted events of sequences, in order."""
    sequence = np.repeat(np.arange(len(events.offsets) - 1), np.diff(events.offsets))
    later = np.flatnonzero(sequence[1:] == sequence[:-1]) + 1
    return Transitions(
        gap=events.time[later] - events.time[later - 1],
        location=events.location[later],
        previous_location=events.location[later - 1],
        mark=None if events.mark is None else events.mark[later],
        previous_mark=None if events.mark is None else events.mark[later - 1],
        sequence=sequence[later],
        num_marks=events.num_marks,
    )


@dataclass(frozen=True, eq=False)
class EventSamples:
    """Samples of the next event, in physical units: what every sampler hands to the scores."""

    gap: Float64[Tensor, "event sample"]
    location: Float64[Tensor, "event sample 2"]
    mark: Int64[Tensor, "event sample"] | None
    mark_probability: Float64[Tensor, "event mark"] | Float64[Tensor, "event sample mark"] | None
    """P(mark), or P(mark | gap) at the gap of each sample."""


@runtime_checkable
class EventForecaster(Protocol):
    """Anything that draws samples of events by their index; the draws of an event depend on seed and index alone."""

    def sample(self, indices: Int64[ndarray, "event"], samples: int, *, seed: int) -> EventSamples: ...


def generator(seed: int, index: int) -> np.random.Generator:
    """Make the random stream of one event, the same however events are chunked or ordered."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


@dataclass(frozen=True, eq=False)
class Marginal:
    """The law of the training transitions without any history: gap, location and mark of one of them, jointly."""

    train: Transitions

    def __post_init__(self) -> None:
        _require_transitions(self.train)

    def sample(self, indices: Int64[ndarray, "event"], samples: int, *, seed: int) -> EventSamples:
        """Draw training transitions with replacement for events with these indices."""
        count = len(self.train.gap)
        drawn = _rows(indices, lambda rng: rng.integers(0, count, size=samples), seed, (samples,), np.int64)
        mark = self.train.mark
        return EventSamples(
            gap=torch.from_numpy(self.train.gap[drawn]),
            location=torch.from_numpy(self.train.location[drawn]),
            mark=None if mark is None else torch.from_numpy(mark[drawn]),
            mark_probability=_train_shares(self.train, len(indices)),
        )


@dataclass(frozen=True, eq=False)
class ConstantRate:
    """A homogeneous Poisson process: exponential gaps of the training mean, locations uniform in the training box."""

    train: Transitions

    def __post_init__(self) -> None:
        _require_transitions(self.train)

    def sample(self, indices: Int64[ndarray, "event"], samples: int, *, seed: int) -> EventSamples:
        """Draw gaps, locations, and marks by their training shares for events with these indices."""
        uniform = _rows(indices, lambda rng: rng.random((4, samples)), seed, (4, samples), np.float64)
        low, high = self.train.location.min(axis=0), self.train.location.max(axis=0)
        shares = _train_shares(self.train, len(indices))
        mark = None
        if shares is not None:
            mark = torch.searchsorted(shares[:1].cumsum(1)[0], torch.from_numpy(uniform[:, 3].copy()), right=True)
            mark = mark.clamp_max(shares.shape[1] - 1)
        return EventSamples(
            gap=torch.from_numpy(-self.train.gap.mean() * np.log1p(-uniform[:, 0])),
            location=torch.from_numpy(low + (high - low) * np.stack([uniform[:, 1], uniform[:, 2]], axis=-1)),
            mark=mark,
            mark_probability=shares,
        )


def _require_transitions(train: Transitions) -> None:
    if len(train.gap) == 0:
        raise UserError("training part: no sequence has two events; expected at least one gap to learn from")


def _rows(
    indices: Int64[ndarray, "event"],
    draw: Callable[[np.random.Generator], ndarray],
    seed: int,
    shape: tuple[int, ...],
    dtype: type[np.generic],
) -> ndarray:
    result = np.empty((len(indices), *shape), dtype=dtype)
    for row, index in enumerate(indices.tolist()):  # a stream for each event
        result[row] = draw(generator(seed, index))
    return result


def _train_shares(train: Transitions, events: int) -> Float64[Tensor, "event mark"] | None:
    """Take the shares of the marks, half a count added to marks that training never saw."""
    if train.mark is None:
        return None
    counts = np.bincount(train.mark, minlength=train.num_marks).astype(np.float64)
    counts[counts == 0.0] = 0.5
    return torch.from_numpy(counts / counts.sum()).expand(events, -1)


def constant_errors(train: Transitions, test: Transitions) -> dict[str, dict[str, float]]:
    """Compute the mean errors of constant predictors, physical units and shares in %.

    Returns:
        For each predictor what it scores: `mae_gap` and `distance_location` of the training mean and median
        (of each coordinate), `distance_location` of the geometric median and of the location before, `accuracy` of
        the most frequent training mark and of the mark before.
    """
    _require_transitions(train)
    centres = {
        "training mean": (train.gap.mean(), train.location.mean(axis=0)),
        "training median": (np.median(train.gap), np.median(train.location, axis=0)),
    }
    result = {
        name: {"mae_gap": float(np.abs(test.gap - gap).mean()),
               "distance_location": float(np.linalg.norm(test.location - location, axis=1).mean())}
        for name, (gap, location) in centres.items()
    }  # fmt: skip
    central = geometric_median(torch.from_numpy(train.location)[None])[0].numpy()
    result["training geometric median"] = {
        "distance_location": float(np.linalg.norm(test.location - central, axis=1).mean())
    }
    result["event before"] = {
        "distance_location": float(np.linalg.norm(test.location - test.previous_location, axis=1).mean())
    }
    if test.mark is not None and train.mark is not None:
        majority = int(np.bincount(train.mark).argmax())
        result["training majority"] = {"accuracy": 100.0 * float((test.mark == majority).mean())}
        result["event before"]["accuracy"] = 100.0 * float((test.mark == test.previous_mark).mean())
    return result
