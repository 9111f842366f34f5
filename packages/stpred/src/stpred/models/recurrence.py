"""What the recurrent models of the original share: the walk through time, the range of a forecast, the objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stcore.errors import UserError
from stpred.models.configs import ValueRange
from stpred.models.interface import FrameLoss, without_missing

State = TypeVar("State")


def walk(
    run: Callable[[Tensor | None, State, int], tuple[Tensor, State]],
    inputs: Float[Tensor, "time batch channel height width"] | None,
    state: State,
    *,
    steps: int,
    every: int,
) -> tuple[Float[Tensor, "time batch hidden height width"], State]:
    """Run one layer through time, in one go or in pieces whose inside is computed again in the backward pass.

    Args:
        run: takes inputs (None: there are none), the state before them and the number of steps.
        inputs: frames of all steps, time first.
        state: state before the first step.
        steps: steps to go.
        every: steps of a piece; 0 runs all steps at once.

    Source: gradient checkpointing, Chen et al. 2016 (arXiv 1604.06174). The convolution of the inputs lies inside a
    piece as well: only inputs and states at the seams are kept.
    """
    if steps < 1:
        raise UserError(f"history or horizon: {steps}; expected 1 or more frames")
    if not every or not torch.is_grad_enabled():
        return run(inputs, state, steps)
    outputs: list[Tensor] = []
    for start in range(0, steps, every):
        count = min(every, steps - start)
        piece = None if inputs is None else inputs[start : start + count]
        found, state = checkpoint(run, piece, state, count, use_reentrant=False, preserve_rng_state=False)
        outputs.append(found)
    return torch.cat(outputs), state


def clamp_range(frames: Float[Tensor, "*batch height width"], value_range: ValueRange) -> Tensor:
    """Bring a forecast into its range; out of it the gradient is zero."""
    if value_range == "none":
        return frames
    return frames.clamp(0.0, 1.0) if value_range == "unit" else frames.clamp_min(0.0)


def mean_squared_error(
    raw: Float[Tensor, "batch horizon channel height width"],
    future: Float[Tensor, "batch horizon channel height width"],
    *,
    value_range: ValueRange,
    valid: Bool[Tensor, "batch frame channel height width"] | None = None,
) -> FrameLoss:
    """Mean over all values, after the clamp (`value_range="none"`: without); `valid` as in `FrameModel.loss`."""
    here = None if valid is None else valid[:, -future.shape[1] :]
    total = F.mse_loss(without_missing(clamp_range(raw, value_range), future, here), future)
    return FrameLoss(total, {"mse": total})
