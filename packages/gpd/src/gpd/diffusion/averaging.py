"""The moving average of the denoiser's weights, as the original keeps it, through ema-pytorch."""

from __future__ import annotations

from typing import Any

from torch import nn


def average_weights(model: nn.Module, decay: float, *, after: int = 100, every: int = 10) -> Any:
    """Return an exponential moving average of the weights of `model`; None where `decay` is 0.

    Calls are numbered from 1. Only every `every`-th acts, the first included: up to call `after` + 1 it copies, then it
    averages with a decay of 1 - (1 + e)^(-2/3), e calls later, up to `decay`.

    Args:
        model: the network that is trained.
        decay: largest decay of the average.
        after: calls before averaging begins.
        every: calls from one update to the next.
    """
    if decay == 0.0:
        return None
    from ema_pytorch import EMA

    return EMA(model, beta=decay, update_after_step=after, update_every=every, include_online_model=False)
