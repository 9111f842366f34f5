"""What the denoiser is trained on: the error of its output, weighted by step (section 4.2 of the paper)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gpd.diffusion.configs import DiffusionConfig, Target
from gpd.diffusion.schedule import Schedule, Times, Tokens, velocity


def goal_of(schedule: Schedule, target: Target, x0: Tokens, t: Times, noise: Tokens) -> Tokens:
    """Return what the denoiser should tell."""
    if target == "v":
        return velocity(schedule, x0, t, noise)
    return noise if target == "noise" else x0


def losses_of(
    schedule: Schedule,
    config: DiffusionConfig,
    output: Tokens,
    x0: Tokens,
    t: Times,
    noise: Tokens,
    *,
    trained: Bool[Tensor, "token channel"] | None = None,
) -> Float[Tensor, " row"]:
    """Return the loss of each row: its mean error over the numbers that count, times the weight of its step.

    Args:
        schedule: of the noise.
        config: which target and which error.
        output: of the denoiser at the noised rows.
        x0: clean rows.
        t: step of each row.
        noise: that was added.
        trained: which numbers of the tokens count: no padding, and none that never influence a forecast.
    """
    goal = goal_of(schedule, config.objective, x0, t, noise)
    error = F.mse_loss if config.loss == "l2" else F.l1_loss
    errors = error(output, goal, reduction="none")
    means = errors.mean((1, 2)) if trained is None else errors.where(trained, 0.0).sum((1, 2)) / trained.sum()
    return means * schedule.loss_weight(config.objective).to(t.device)[t]
