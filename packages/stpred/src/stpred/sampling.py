"""True frames mixed into training: with which probability, and which steps.

Both are pure functions of seed, step and epoch, so that nothing has to be stored for a run to go on at any step.

Source: OpenSTL (Apache-2.0), `schedule_sampling` and `reserve_schedule_sampling_exp`, and its teacher forcing of
PhyDNet; constants are theirs. Differs in: probabilities come from the step in closed form, where OpenSTL adds up
rounded decrements, forgets to store them for one model, and draws from NumPy's global generator.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from stcore.sampling import derive_seed
from stpred.models.interface import Sampling

DECAY = 2e-5
"""Loss of probability per training step (scheduled)."""
STOP = 50_000
"""Training step from which on the future is the model's own (scheduled and reverse)."""
TURN = 25_000
"""Training step at which reverse sampling begins to move."""
SCALE = 5_000
"""Steps in which reverse sampling comes closer to the true history by a factor of e."""
COIN_DECAY = 0.003
"""Loss of probability per epoch (coin)."""


class TruthProbability(NamedTuple):
    """Probability that a step is fed with the true frame."""

    history: float
    """Of the second to the last frame of the history (the first is always true)."""
    future: float
    """Of all but the last frame of the future (nothing is fed after the last)."""


def truth_probability(kind: Sampling, *, step: int, epoch: int = 0) -> TruthProbability:
    """Return the probabilities that hold at a training step.

    Args:
        kind: the model's `sampling`: none, scheduled (Bengio et al. 2015), reverse (PredRNNv2), coin (PhyDNet).
        step: optimiser steps done before this one.
        epoch: passes over the training part done before this one; only a coin depends on it.

    >>> truth_probability("scheduled", step=24_999)
    TruthProbability(history=1.0, future=0.5)
    >>> truth_probability("reverse", step=0)
    TruthProbability(history=0.5, future=0.5)
    """
    if kind == "none":
        return TruthProbability(1.0, 0.0)
    if kind == "coin":
        return TruthProbability(1.0, max(0.0, 1.0 - COIN_DECAY * epoch))
    if kind == "scheduled":
        # The first step is already one decrement down.
        return TruthProbability(1.0, max(0.0, 1.0 - DECAY * (step + 1)) if step < STOP else 0.0)
    return _reverse(step)


def _reverse(step: int) -> TruthProbability:
    if step < TURN:
        return TruthProbability(0.5, 0.5)
    if step >= STOP:
        return TruthProbability(1.0, 0.0)
    past = step - TURN
    return TruthProbability(1.0 - 0.5 * math.exp(-past / SCALE), 0.5 - 0.5 * past / (STOP - TURN))


def truth_bits(
    kind: Sampling, *, batch: int, history: int, horizon: int, seed: int, step: int, epoch: int = 0, rank: int = 0
) -> Float[Tensor, "batch step"] | None:
    """Draw which steps of a batch are fed with the true frame, the argument `truth` of a model's loss.

    Args:
        kind: the model's `sampling`.
        batch: samples in the batch.
        history: frames that are given.
        horizon: frames to forecast.
        seed: of the run.
        step: optimiser steps done before this one (with several batches per step: batches).
        epoch: passes over the training part done before this one.
        rank: number of the process, so that two do not draw the same.

    Returns:
        Ones and zeros on the CPU: of `horizon - 1` steps (scheduled; coin, all equal), of `history + horizon - 2` steps
        (reverse), or None for a model that samples nothing.
    """
    if kind == "none":
        return None
    inside, after = truth_probability(kind, step=step, epoch=epoch)
    # Every batch draws from a stream of its own: a resumed run needs no position in one long stream.
    generator = torch.Generator().manual_seed(derive_seed(seed, "truth", epoch, step, rank))
    if kind == "coin":
        coin = torch.rand((1, 1), generator=generator) < after
        return coin.float().expand(batch, horizon - 1).contiguous()
    probability = torch.full((horizon - 1,), after)
    if kind == "reverse":
        probability = torch.cat([torch.full((history - 1,), inside), probability])
    return (torch.rand((batch, len(probability)), generator=generator) < probability).float()
