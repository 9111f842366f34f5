"""Where densities start: the law of the training part without any history, and the scale of its features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smash.data import EncodedEvents, Features, consecutive
from smash.density import DensityNetwork
from smash.history import HistoryFeatures

SCALING_TOKENS = 16_384
"""Padded events whose features are held at once."""
PSEUDO_COUNT = 0.5
"""Added to each mark's count, so that none is impossible."""


@torch.no_grad()
def start_density(network: DensityNetwork, train: EncodedEvents, features: Features, *, seed: int) -> None:
    """Set everything in a network that is fitted before training.

    Args:
        network: corrections of zero, as made.
        train: features of the training part.
        features: its scaling.
        seed: of the background's start.
    """
    later = _later(train)
    mean_gap = float(features.gap(train.gap[later]).mean())
    low, high = float(features.scaler.low[0]), float(features.scaler.high[0])
    network.history.set_scale(low=low, span=high - low, log_gap=features.log_gap, mean_gap=mean_gap,
                              shares=_shares(train, later, features.num_marks))  # fmt: skip
    network.start_from(train.gap[later], train.location[later], seed=seed)
    _standardise(network.history, train)


def _later(events: EncodedEvents) -> Tensor:
    """Numbers of the events that are predicted: all but the first of each sequence."""
    first: NDArray[np.bool_] = np.zeros(len(events.gap), dtype=bool)
    first[events.offsets[:-1][events.lengths > 0]] = True
    return torch.from_numpy(np.flatnonzero(~first))


def _shares(events: EncodedEvents, later: Tensor, num_marks: int) -> Tensor:
    mark = torch.zeros_like(later) if events.mark is None else events.mark[later]
    counts = torch.bincount(mark, minlength=num_marks).double() + PSEUDO_COUNT
    return counts / counts.sum()


def _standardise(history: HistoryFeatures, events: EncodedEvents) -> None:
    """Set mean and standard deviation of the features over all events."""
    total, squares, count = torch.zeros_like(history.mean), torch.zeros_like(history.mean), 0
    for ids in consecutive(events.lengths, max_tokens=SCALING_TOKENS):
        batch = events.batch(ids)
        raw = history.raw(batch.time.double(), batch.location.double(), batch.mark)
        known = raw[torch.arange(raw.shape[1]) < batch.lengths[:, None]]
        total += known.sum(0)
        squares += known.square().sum(0)
        count += len(known)
    mean = total / count
    history.mean.copy_(mean)
    history.deviation.copy_((squares / count - mean.square()).clamp_min(1e-6).sqrt())
