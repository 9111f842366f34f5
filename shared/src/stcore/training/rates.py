"""Learning rates that step or epoch alone decide, so that a resumed run has nothing to remember of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class RateOfTime:
    """A schedule (`loop.Schedule`) that does nothing; what extends it sets the rate at steps, at epochs or at both.

    Args:
        optimiser: whose groups all get the rate.
    """

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self._optimiser = optimiser

    def epoch_start(self, epoch: int) -> None:
        """Do nothing."""

    def step_end(self, step: int) -> None:
        """Do nothing."""

    def evaluated(self, value: float) -> None:
        """Do nothing: the rate does not depend on results."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""

    def set_rate(self, rate: float) -> None:
        """Give all groups of the optimiser this learning rate."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate


class RateByEpoch(RateOfTime):
    """The learning rate at the start of an epoch, as a function of the epoch alone.

    Args:
        optimiser: whose groups all get the rate.
        rate: of an epoch, counted from 0.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, rate: Callable[[int], float]) -> None:
        super().__init__(optimiser)
        self._rate = rate

    def epoch_start(self, epoch: int) -> None:
        """Set the rate of the epoch."""
        self.set_rate(self._rate(epoch))
