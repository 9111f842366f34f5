"""Learning rates of the published runs as pure functions of the step or of the epoch.

Both agree with the schedulers that the original takes from torch and timm; as functions they need no state.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from stcore.errors import UserError


class OneCycle(NamedTuple):
    """What an optimiser step is done with."""

    lr: float
    beta1: float
    """Of Adam; it goes down while the learning rate goes up, and up again with it coming down."""


def one_cycle(
    step: int,
    *,
    max_lr: float,
    total_steps: int,
    warmup: float = 0.3,
    start_divisor: float = 25.0,
    final_divisor: float = 1e4,
    beta1: tuple[float, float] = (0.85, 0.95),
) -> OneCycle:
    """Learning rate and momentum of an optimiser step: a half cosine one way, then one back (Smith and Topin 2018).

    Args:
        step: optimiser steps done before this one; past the end the last values stay.
        max_lr: the highest rate.
        total_steps: optimiser steps of the run.
        warmup: share of the steps on the way up.
        start_divisor: `max_lr` over the first rate.
        final_divisor: first rate over the last one.
        beta1: lowest and highest momentum.

    Source: torch, `OneCycleLR` with cosine annealing and two phases.

    >>> [round(one_cycle(step, max_lr=1.0, total_steps=10).lr, 4) for step in (0, 2, 9)]
    [0.04, 1.0, 0.0]
    >>> [one_cycle(step, max_lr=1.0, total_steps=10).beta1 for step in (0, 2, 9)]
    [0.95, 0.85, 0.95]
    """
    if total_steps < 1 or not 0.0 <= warmup < 1.0:
        raise UserError(f"one-cycle: {total_steps} steps, warm-up {warmup}; expected 1 or more, and a share below 1")
    start = max_lr / start_divisor
    low, high = beta1
    top, last = warmup * total_steps - 1.0, total_steps - 1.0
    if step <= top:
        share = step / top if top > 0 else 1.0
        return OneCycle(_half_cosine(start, max_lr, share), _half_cosine(high, low, share))
    # In a run too short for a way up the top lies before the first step, as in torch.
    share = min((step - top) / (last - top), 1.0)
    return OneCycle(_half_cosine(max_lr, start / final_divisor, share), _half_cosine(low, high, share))


def cosine(
    epoch: int,
    *,
    lr: float,
    epochs: int,
    warmup_epochs: int = 5,
    warmup_lr: float = 1e-5,
    min_lr: float = 1e-6,
    k_decay: float = 1.0,
) -> float:
    """Learning rate of an epoch: a straight way up, then what is left of one half cosine down (Loshchilov and Hutter).

    Args:
        epoch: epochs done before this one.
        lr: rate at the top of the cosine, which counts from epoch 0.
        epochs: length of the cosine; from there on the lowest rate.
        warmup_epochs: epochs on the way up.
        warmup_lr: the first rate.
        min_lr: the lowest rate.
        k_decay: bends the cosine: above 1 the rate stays high for longer.

    Source: timm, `CosineLRScheduler` per epoch with `warmup_prefix=False`.

    >>> cosine(0, lr=1.0, epochs=50), cosine(50, lr=1.0, epochs=50)
    (1e-05, 1e-06)
    """
    if epoch < warmup_epochs:
        return warmup_lr + (lr - warmup_lr) * epoch / warmup_epochs
    return _half_cosine(lr, min_lr, min(epoch / epochs, 1.0) ** k_decay)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * share))
