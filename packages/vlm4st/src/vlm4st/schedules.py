"""Learning rates as pure functions of the epoch or of the step; nothing has to be remembered to resume.

Source: VLM4ST, `train.py` (a way up outside the scheduler, then torch's `CosineAnnealingLR` or `StepLR`).
"""

from __future__ import annotations

import math

from vlm4st.config import ScheduleConfig

LOWEST = 0.01
"""Share of the highest rate that the cosine ends at."""


def epoch_rate(epoch: int, *, rate: float, epochs: int, schedule: ScheduleConfig) -> float:
    """Learning rate of an epoch, as the original has it.

    Args:
        epoch: epochs done before this one.
        rate: the highest learning rate.
        epochs: epochs of the run.
        schedule: which course; the way up is the same for all.

    The epoch after the way up still has the highest rate. A way up that takes the whole run never comes down; the
    original divides by a length that is not positive then.

    >>> [epoch_rate(epoch, rate=1.0, epochs=4, schedule=ScheduleConfig(warmup_epochs=2)) for epoch in range(4)]
    [0.5, 1.0, 1.0, 0.505]
    """
    warmup = schedule.warmup_epochs
    if epoch < warmup:
        return rate * (epoch + 1) / warmup
    done = epoch - warmup
    if schedule.kind == "cosine":
        return _half_cosine(rate, min(done / max(epochs - warmup, 1), 1.0))
    if schedule.kind == "step":
        return rate * 0.1 ** (done // max(epochs // 3, 1))
    return rate


def step_rate(step: int, *, rate: float, steps: int, schedule: ScheduleConfig) -> float:
    """Learning rate of an optimiser step: a straight way up, then half a cosine down to a hundredth.

    Args:
        step: optimiser steps done before this one; past the end the lowest rate stays.
        rate: the highest learning rate.
        steps: optimiser steps of the run.
        schedule: how long the way up is.

    >>> [step_rate(step, rate=1.0, steps=10, schedule=ScheduleConfig(warmup_share=0.2)) for step in (0, 2, 10)]
    [0.5, 1.0, 0.01]
    """
    warmup = round(schedule.warmup_share * steps)
    if step < warmup:
        return rate * (step + 1) / warmup
    return _half_cosine(rate, min((step - warmup) / max(steps - warmup, 1), 1.0))


def _half_cosine(rate: float, share: float) -> float:
    lowest = LOWEST * rate
    return lowest + 0.5 * (rate - lowest) * (1.0 + math.cos(math.pi * share))
