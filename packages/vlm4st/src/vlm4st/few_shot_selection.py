"""Which windows of a target are seen when only a few of them may be."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from stcore.errors import UserError
from vlm4st.timestamps import DAY
from vlm4st.windows import WindowSet

DRAW = 42
"""Seed with which the original draws."""


def by_ratio(
    count: int, ratio: float, *, selection: Literal["random", "prefix"] = "random", draw: int = DRAW
) -> Int64[ndarray, "window"]:
    """Return the numbers of the windows of a share: at least one of them, or none where the share is 0.

    Args:
        count: windows of the training part.
        ratio: share of them, 0 to 1.
        selection: `random` draws as the original does, its order included (VLM4ST, `few_shot.py`); `prefix` takes the
            first ones in time (UniST).
        draw: seed of the draw.

    >>> by_ratio(7, 0.5, selection="prefix").tolist(), by_ratio(7, 0.0).tolist(), len(by_ratio(7, 0.05))
    ([0, 1, 2], [], 1)
    """
    if not ratio or not count:
        return np.zeros(0, dtype=np.int64)
    chosen = max(1, int(count * ratio))
    if selection == "prefix":
        return np.arange(chosen, dtype=np.int64)
    return np.array(random.Random(draw).sample(range(count), chosen), dtype=np.int64)


def by_days(windows: WindowSet, days: float, step: int | None, *, where: str) -> Int64[ndarray, "window"]:
    """Return the numbers of the windows that lie wholly in the last `days` days of a training part.

    Raises:
        UserError: no window is that short.
    """
    elapsed = windows.elapsed()
    length = windows.length * (step or 0)
    end = int(elapsed.max()) + length
    chosen = np.flatnonzero(elapsed >= end - round(days * DAY)).astype(np.int64)
    if not len(chosen):
        raise UserError(
            f"{where}: few-shot.days {days:g}; expected at least {length / DAY:.3g}, the days of one window"
        )
    return chosen
