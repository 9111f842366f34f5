"""From events to what the model sees, and back: gap features, scaling fitted on the training part, batches.

Preprocessing follows the original (github.com/zichongli5/SMASH, `dataset.py` and `app.py`) but for its leak: the
constants come from the training part alone, and values outside the fitted range are left outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smash.config import TrainConfig
from smash.model import Batch
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.sampling import Indices, derive_seed, length_batches, random_stream
from stcore.scaling import LogTransform, MinMaxScaler

GAP_FLOOR = 1e-4
"""Smallest gap whose logarithm is taken, in the data's unit of time, as in the original."""


@dataclass(frozen=True)
class Features:
    """How events of one training set become numbers near [0, 1], and samples become events again."""

    scaler: MinMaxScaler
    """Over the columns (gap feature, x, y)."""
    log_gap: bool
    mark_names: tuple[str, ...]
    """Names of the marks in the order of their numbers; empty for unmarked events."""
    time_unit: str
    coordinates: str

    @classmethod
    def fit(cls, train: EventSequences, *, log_gap: bool) -> Features:
        """Fit the scaling on the training part.

        Raises:
            UserError: a column is constant, so there is nothing to scale by.
        """
        columns = np.column_stack([_gap_feature(train.gaps(), log_gap), train.location])
        for name, column in zip(("gap", "x", "y"), columns.T, strict=True):
            if column.min() == column.max():
                raise UserError(f"training part: every {name} is {column[0]:g}; expected a {name} that varies")
        return cls(MinMaxScaler.fit(columns), log_gap, train.mark_names, train.time_unit, train.coordinates)

    @property
    def num_marks(self) -> int:
        """Kinds of events; 1 for unmarked ones and for a single mark, which is no choice."""
        return max(1, len(self.mark_names))

    def encode(self, events: EventSequences) -> EncodedEvents:
        """Turn events into features.

        Raises:
            UserError: the events have marks that training did not, or none where it had some.
        """
        known = events.with_mark_names(self.mark_names)
        columns = np.column_stack([_gap_feature(events.gaps(), self.log_gap), events.location])
        unit = self.scaler.transform(columns)
        return EncodedEvents(
            time=torch.from_numpy(events.time.astype(np.float32)),
            gap=torch.from_numpy(unit[:, 0].astype(np.float32)),
            location=torch.from_numpy(unit[:, 1:].astype(np.float32)),
            mark=None if self.num_marks == 1 or known.mark is None else torch.from_numpy(known.mark.copy()),
            offsets=events.offsets,
        )

    def gap(self, unit: Tensor) -> Tensor:
        """Turn normalised gaps into gaps in the data's unit of time, in float64."""
        low, high = float(self.scaler.low[0]), float(self.scaler.high[0])
        feature = unit.double() * (high - low) + low
        return feature.exp() if self.log_gap else feature

    def location(self, unit: Tensor) -> Tensor:
        """Turn normalised locations into coordinates, in float64."""
        low, high = (torch.tensor(bound[1:], device=unit.device) for bound in (self.scaler.low, self.scaler.high))
        return unit.double() * (high - low) + low

    def gap_unit(self, gap: Tensor) -> Tensor:
        """Normalise gaps, in float64."""
        low, high = float(self.scaler.low[0]), float(self.scaler.high[0])
        feature = gap.double().clamp_min(GAP_FLOOR).log() if self.log_gap else gap.double()
        return (feature - low) / (high - low)

    def log_gap_slope(self, gap: Tensor) -> Tensor:
        """Logarithm of the slope of `gap_unit`; added to a log density of normalised gaps it makes one in time."""
        span = float(self.scaler.high[0]) - float(self.scaler.low[0])
        slope = torch.full_like(gap, 1.0 / span, dtype=torch.float64)
        return (slope / gap.double().clamp_min(GAP_FLOOR)).log() if self.log_gap else slope.log()

    def constants(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint keeps."""
        return {f"scaler/{name}": torch.tensor(value) for name, value in self.scaler.state().items()}

    def facts(self) -> dict[str, Any]:
        """Return the facts that a checkpoint keeps."""
        return {
            "log_gap": self.log_gap,
            "mark_names": list(self.mark_names),
            "time_unit": self.time_unit,
            "coordinates": self.coordinates,
        }

    @classmethod
    def restore(cls, constants: dict[str, Tensor], facts: dict[str, Any]) -> Features:
        """Rebuild what `constants` and `facts` kept."""
        state = {name.removeprefix("scaler/"): value.numpy() for name, value in constants.items()}
        return cls(MinMaxScaler.from_state(state), facts["log_gap"], tuple(facts["mark_names"]), facts["time_unit"],
                   facts["coordinates"])  # fmt: skip


@dataclass(frozen=True, eq=False)
class EncodedEvents:
    """Features of all events, flat; sequence i is the slice `offsets[i]:offsets[i + 1]`."""

    time: Tensor
    gap: Tensor
    location: Tensor
    mark: Tensor | None
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def batch(self, ids: Indices) -> Batch:
        """Pad the sequences `ids` on the right with zeros."""
        return Batch(
            time=self._padded(self.time, ids),
            gap=self._padded(self.gap, ids),
            location=self._padded(self.location, ids),
            mark=None if self.mark is None else self._padded(self.mark, ids),
            lengths=torch.from_numpy(self.lengths[ids]),
        )

    def _padded(self, column: Tensor, ids: Indices) -> Tensor:
        rows = [column[self.offsets[i] : self.offsets[i + 1]] for i in ids]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """The batches of an epoch with their noise, for the training loop.

    The noise of a sequence depends on seed, epoch and sequence alone, so neither batches nor processes change it.
    """

    events: EncodedEvents
    sequence_id: tuple[str, ...]
    config: TrainConfig

    def order(self, epoch: int) -> list[Indices]:
        data, usable = self.config.data, predictable(self.events.lengths)
        if data.epoch_share < 1.0:
            count = max(1, round(data.epoch_share * len(usable)))
            usable = np.sort(random_stream(self.config.seed, "share", epoch).choice(usable, count, replace=False))
        batches = length_batches(self.events.lengths[usable], seed=self.config.seed, epoch=epoch,
                                 max_samples=data.batch_sequences, max_tokens=data.batch_tokens)  # fmt: skip
        return [usable[batch] for batch in batches]

    def load(self, epoch: int, ids: Indices) -> tuple[Batch, Tensor]:
        return self.events.batch(ids), draws(self.events, ids, self.config, "noise", epoch)

    def names(self, ids: Indices) -> list[str]:
        return [self.sequence_id[i] for i in ids]


def draws(events: EncodedEvents, ids: Indices, config: TrainConfig, *stream: str | int) -> Tensor:
    """Return standard normal draws (target, perturbation, 3) for the predicted events of the sequences `ids`.

    Densities are trained without noise: none are drawn then.
    """
    count = config.loss.perturbations if config.model.law == "score" else 0
    rows = [
        random_stream(config.seed, *stream, int(i)).standard_normal((max(0, length - 1), count, 3), dtype=np.float32)
        for i, length in zip(ids, events.lengths[ids], strict=True)
    ]
    return torch.from_numpy(np.concatenate(rows))


def prefix(events: EventSequences, count: int) -> EventSequences:
    """Return the first `count` events of a single sequence."""
    mark = None if events.mark is None else events.mark[:count]
    return replace(events, time=events.time[:count], location=events.location[:count], mark=mark,
                   offsets=np.array([0, count]))  # fmt: skip


def predictable(lengths: NDArray[np.int64]) -> Indices:
    """Return the sequences in which something is predicted: those of two events or more."""
    return np.flatnonzero(lengths >= 2)


def consecutive(lengths: NDArray[np.int64], *, max_tokens: int) -> Iterator[Indices]:
    """Cut sequences into batches in the order of the data, within `max_tokens` padded events each."""
    start = 0
    longest = 0
    for stop, length in enumerate(lengths):
        longest = max(longest, int(length))
        if stop > start and longest * (stop - start + 1) > max_tokens:
            yield np.arange(start, stop)
            start, longest = stop, int(length)
    if start < len(lengths):
        yield np.arange(start, len(lengths))


def event_seed(seed: int, sequence_id: str, event: int) -> int:
    """Return the seed of the samples of one event: a function of its name, not of its place in a batch."""
    return derive_seed(seed, "samples", sequence_id, event)


def _gap_feature(gaps: NDArray[np.float64], log_gap: bool) -> NDArray[np.float64]:
    return LogTransform(GAP_FLOOR).transform(gaps) if log_gap else gaps
