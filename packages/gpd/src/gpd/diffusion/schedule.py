"""The noise schedule and what follows from it (Ho et al. 2020, arXiv 2006.11239; Salimans and Ho 2022 for v).

All values are computed in float64 and kept in float32, step by step (t = 0 is the first step away from a clean row).
Source: `GaussianDiffusion1D` of the original, after denoising-diffusion-pytorch; written anew.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpd.diffusion.configs import BetaScale, ScheduleKind, Target, betas

Steps = Float[Tensor, " step"]
Tokens = Float[Tensor, "row token channel"]
Times = Int[Tensor, " row"]
_LEAST = 1e-20
"""Smallest variance whose logarithm is taken; that of the last step back is 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """Coefficients of the forward and of the reverse process, one of each per step."""

    betas: Steps
    """Variance that a step adds."""
    alphas_cumprod: Steps
    """Share of the clean row's variance that is left (alpha bar)."""
    alphas_cumprod_prev: Steps
    sqrt_alphas_cumprod: Steps
    sqrt_one_minus_alphas_cumprod: Steps
    log_one_minus_alphas_cumprod: Steps
    sqrt_recip_alphas_cumprod: Steps
    sqrt_recipm1_alphas_cumprod: Steps
    posterior_variance: Steps
    """Of the row one step back, given this one and the clean one."""
    posterior_log_variance_clipped: Steps
    posterior_mean_coef1: Steps
    """Weight of the clean row in the posterior's mean."""
    posterior_mean_coef2: Steps
    """Weight of the noised row in it."""
    signal_to_noise: Steps
    """Variance of the clean row over that of the noise, as much of both as is left."""

    @classmethod
    def make(cls, steps: int, kind: ScheduleKind = "linear", beta_scale: BetaScale = "auto") -> Schedule:
        """Compute the schedule of so many steps."""
        beta = torch.tensor(betas(steps, kind, beta_scale), dtype=torch.float64)
        alpha = 1.0 - beta
        bar = alpha.cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
        variance = beta * (1.0 - before) / (1.0 - bar)
        found = {
            "betas": beta,
            "alphas_cumprod": bar,
            "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": bar.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1.0 - bar).sqrt(),
            "log_one_minus_alphas_cumprod": (1.0 - bar).log(),
            "sqrt_recip_alphas_cumprod": (1.0 / bar).sqrt(),
            "sqrt_recipm1_alphas_cumprod": (1.0 / bar - 1.0).sqrt(),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": variance.clamp_min(_LEAST).log(),
            "posterior_mean_coef1": beta * before.sqrt() / (1.0 - bar),
            "posterior_mean_coef2": (1.0 - before) * alpha.sqrt() / (1.0 - bar),
            "signal_to_noise": bar / (1.0 - bar),
        }
        return cls(**{name: value.float() for name, value in found.items()})

    def __len__(self) -> int:
        return len(self.betas)

    def to(self, device: torch.device) -> Schedule:
        """Return the schedule on another device."""
        return Schedule(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def loss_weight(self, target: Target) -> Steps:
        """Return the weight of each step in the loss: as if the error were that of the noise, of the clean row times
        its ratio r of signal to noise, or of the velocity times r / (r + 1), which is alpha bar.
        """
        if target == "v":
            return self.alphas_cumprod
        return self.signal_to_noise if target == "x0" else torch.ones_like(self.betas)


def at(values: Steps, t: Times) -> Float[Tensor, "row 1 1"]:
    """Return the values of the steps `t`, to be multiplied with tokens."""
    return values[t][:, None, None]


def noised(schedule: Schedule, x0: Tokens, t: Times, noise: Tokens) -> Tokens:
    """Return rows as they are after step `t`: q(x_t | x_0)."""
    return at(schedule.sqrt_alphas_cumprod, t) * x0 + at(schedule.sqrt_one_minus_alphas_cumprod, t) * noise


def velocity(schedule: Schedule, x0: Tokens, t: Times, noise: Tokens) -> Tokens:
    """Return v = sqrt(alpha bar) noise - sqrt(1 - alpha bar) x_0."""
    return at(schedule.sqrt_alphas_cumprod, t) * noise - at(schedule.sqrt_one_minus_alphas_cumprod, t) * x0


def clean_from(schedule: Schedule, target: Target, x: Tokens, t: Times, output: Tokens) -> Tokens:
    """Return the clean row that a denoiser's output at `x` stands for."""
    if target == "v":
        return at(schedule.sqrt_alphas_cumprod, t) * x - at(schedule.sqrt_one_minus_alphas_cumprod, t) * output
    if target == "noise":
        return at(schedule.sqrt_recip_alphas_cumprod, t) * x - at(schedule.sqrt_recipm1_alphas_cumprod, t) * output
    return output


def noise_from(schedule: Schedule, x: Tokens, t: Times, x0: Tokens) -> Tokens:
    """Return the noise that leads from the clean row `x0` to `x`."""
    return (at(schedule.sqrt_recip_alphas_cumprod, t) * x - x0) / at(schedule.sqrt_recipm1_alphas_cumprod, t)


def posterior(schedule: Schedule, x: Tokens, t: Times, x0: Tokens) -> tuple[Tokens, Float[Tensor, "row 1 1"]]:
    """Return mean and logarithm of the variance of q(x_{t-1} | x_t, x_0)."""
    mean = at(schedule.posterior_mean_coef1, t) * x0 + at(schedule.posterior_mean_coef2, t) * x
    return mean, at(schedule.posterior_log_variance_clipped, t)
