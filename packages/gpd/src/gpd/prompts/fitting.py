"""The short trainings behind some prompts.

They take seconds and are begun anew rather than resumed, so nothing of them is kept but the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from stcore.errors import Diverged
from stcore.sampling import derive_seed


@contextmanager
def seeded(seed: int, kind: str) -> Generator[torch.Generator, None, None]:
    """Give torch's global generator a state of its own for a while: some libraries draw from it. Yield another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "prompts", kind))
        yield torch.Generator().manual_seed(derive_seed(seed, "prompts", kind, "draws"))


def minimise(optimiser: torch.optim.Optimizer, losses: Iterator[Callable[[], Tensor]], what: str) -> list[float]:
    """Take one step for each of `losses` and return their values.

    Raises:
        Diverged: one is not finite.
    """
    values: list[float] = []
    for step, loss_of in enumerate(losses):
        optimiser.zero_grad()
        loss = loss_of()
        values.append(float(loss.detach()))
        if not math.isfinite(values[-1]):
            raise Diverged(f"{what}: step {step}: the loss is {values[-1]}; lower the learning rate")
        loss.backward()
        optimiser.step()
    return values
