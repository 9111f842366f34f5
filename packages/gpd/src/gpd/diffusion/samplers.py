"""From noise to rows: the ancestral sampler (Ho et al. 2020) and DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from gpd.diffusion.configs import SamplingConfig
from gpd.diffusion.schedule import Schedule, Tokens, noise_from, posterior

Denoise = Callable[[Tokens, int], Tokens]
"""Maps noised rows and their step to clean rows, within their bounds."""
Draw = Callable[[], Tokens]
"""Draws fresh noise for all rows."""


class Step(NamedTuple):
    """One step back: from where, and what is found there."""

    t: int
    x: Tokens
    """Rows after the step."""
    x0: Tokens
    """Clean rows as they were guessed before it."""


def ancestral_step(schedule: Schedule, x: Tokens, t: int, x0: Tokens, noise: Tokens | None) -> Tokens:
    """Return rows one step back from `x`, drawn from the posterior; without noise its mean."""
    mean, log_variance = posterior(schedule, x, _times(x, t), x0)
    return mean if noise is None else mean + (0.5 * log_variance).exp() * noise


def ddim_step(
    schedule: Schedule, x: Tokens, t: int, before: int, x0: Tokens, *, eta: float = 0.0, noise: Tokens | None = None
) -> Tokens:
    """Return rows at the step `before`, earlier than `t`; the clean ones where it is negative."""
    if before < 0:
        return x0
    now, then = schedule.alphas_cumprod[t], schedule.alphas_cumprod[before]
    sigma = eta * ((1.0 - now / then) * (1.0 - then) / (1.0 - now)).sqrt()
    direction = (1.0 - then - sigma**2).sqrt() * noise_from(schedule, x, _times(x, t), x0)
    moved = then.sqrt() * x0 + direction
    return moved if noise is None else moved + sigma * noise


def ddim_times(total: int, steps: int) -> list[int]:
    """Return the steps that DDIM visits, from the last one on, and -1 at the end.

    >>> ddim_times(50, 5)
    [49, 39, 29, 19, 9, -1]
    """
    places = torch.linspace(-1, total - 1, steps + 1)
    return [int(place) for place in places.tolist()][::-1]


def steps_back(schedule: Schedule, denoise: Denoise, draw: Draw, config: SamplingConfig) -> Iterator[Step]:
    """Go from noise to rows; the last step holds them.

    Args:
        schedule: of the noise.
        denoise: what guesses the clean rows.
        draw: noise, once for the start and once for each step that needs it.
        config: which way, and how many steps.
    """
    x = draw()
    if config.method == "ancestral":
        for t in range(len(schedule) - 1, -1, -1):
            x0 = denoise(x, t)
            x = ancestral_step(schedule, x, t, x0, draw() if t else None)
            yield Step(t, x, x0)
        return
    # More steps than there are would visit some of them twice.
    for t, before in pairwise(ddim_times(len(schedule), min(config.steps, len(schedule)))):
        x0 = denoise(x, t)
        noise = draw() if config.eta and before >= 0 else None
        x = ddim_step(schedule, x, t, before, x0, eta=config.eta, noise=noise)
        yield Step(t, x, x0)


def sample(schedule: Schedule, denoise: Denoise, draw: Draw, config: SamplingConfig) -> Tokens:
    """Return rows, from noise to the end."""
    x: Tensor | None = None
    for step in steps_back(schedule, denoise, draw, config):
        x = step.x
    if x is None:
        raise RuntimeError("a schedule without steps")
    return x


def _times(x: Tokens, t: int) -> Tensor:
    return torch.full((len(x),), t, dtype=torch.int64, device=x.device)
