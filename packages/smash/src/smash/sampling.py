"""Draw the next event given the history: the closed-form sampler and the original's chain.

Three modes (`smash.config.SamplerConfig.mode`):

* `exact`: the gap by inverting its closed-form law on a grid, the mark from its distribution at that gap, a Tweedie
  step on the gap, the mark again at the denoised gap, then a short Langevin chain on the location alone.
* `batched`: the original's chain (Li et al., ICML 2024, algorithm 1) for all samples at once, weights merged.
* `reference`: the original's chain stage by stage with the network as trained.

Every event has its own seed, and products of its own shape: the samples of an event do not depend on the other
events, on the order, or on the size of the chunks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from smash.chain import FrozenEvaluator, PlainEvaluator, State, finish, restart, start, walk
from smash.config import NoiseConfig, SamplerConfig
from smash.draws import Draws, SeededDraws
from smash.frozen import FrozenScore
from smash.gap import GapLaw
from smash.loss import noise_levels
from smash.model import Smash
from smash.score import ROWS, ScoreNetwork, mark_distribution
from stcore.errors import UserError

CPU_ROWS, DEVICE_ROWS = 2400, 2**18
"""Samples in a chunk: on a CPU as many as keep the activations in cache, elsewhere enough to fill the device."""


class Samples(NamedTuple):
    """Samples of the next event in the unit box, where [0, 1] is the fitted range."""

    gap: Float[Tensor, "event sample"]
    """Normalised (log-)gap."""
    location: Float[Tensor, "event sample 2"]
    mark: Int[Tensor, "event sample"]
    """0-based marks; all 0 when unmarked."""
    probability: Float[Tensor, "event sample mark"]
    """Distribution of the mark given the sample's gap; all 1 when unmarked."""


def chunks(model: Smash, count: int, *, sampler: SamplerConfig) -> Iterator[slice]:
    """Slices of events to sample at once."""
    device = next(model.parameters()).device
    rows = CPU_ROWS if device.type == "cpu" else DEVICE_ROWS
    size = sampler.chunk_events or max(1, rows // sampler.samples)
    return (slice(begin, min(begin + size, count)) for begin in range(0, count, size))


@torch.no_grad()
def sample(
    model: Smash,
    condition: Float[Tensor, "event condition"],
    *,
    sampler: SamplerConfig,
    noise: NoiseConfig,
    seeds: Int[Tensor, "event"],
) -> Samples:
    """Draw samples of the event that follows each history.

    Args:
        model: the model.
        condition: histories, from `Smash.encode`.
        sampler: mode, number of samples and steps.
        noise: noise levels the model was trained with.
        seeds: one seed per event; the same seed and history give the same samples.
    """
    count, samples = len(condition), sampler.samples
    padded = replace(sampler, samples=_rows(samples))
    result = Samples(
        condition.new_empty(count, samples),
        condition.new_empty(count, samples, 2),
        torch.empty(count, samples, dtype=torch.int64, device=condition.device),
        condition.new_empty(count, samples, model.num_marks),
    )
    for part in _parts(model, count, sampler):
        draws = SeededDraws(seeds[part], condition)
        if model.config.law == "density":
            drawn = model.density.draw(condition[part], draws, padded.samples)
        else:
            drawn = sample_with(model.score, condition[part], draws, sampler=padded, noise=noise)
        for whole, piece in zip(result, drawn, strict=True):
            whole[part] = piece[:, :samples]
    return result


def _parts(model: Smash, count: int, sampler: SamplerConfig) -> Iterator[slice]:
    """Chunks of events; one event each for densities, whose products then have the same shapes for every event."""
    if model.config.law == "score":
        return chunks(model, count, sampler=sampler)
    if sampler.mode != "exact":
        raise UserError(f"sampler.mode: {sampler.mode!r} for a run of model.law density; expected exact")
    return (slice(index, index + 1) for index in range(count))


def sample_with(
    network: ScoreNetwork,
    condition: Float[Tensor, "event condition"],
    draws: Draws,
    *,
    sampler: SamplerConfig,
    noise: NoiseConfig,
) -> Samples:
    """Draw samples of some events at once from the given source of randomness. Call it without gradients."""
    draw = _exact if sampler.mode == "exact" else _chain
    state = draw(network, condition, draws, sampler, noise)
    unit = 0.5 * state.x + 0.5
    mark = torch.zeros_like(unit[..., 0], dtype=torch.int64) if state.mark is None else state.mark
    return Samples(unit[..., 0], unit[..., 1:], mark, state.probability)


@torch.no_grad()
def gap_law(
    model: Smash, condition: Float[Tensor, "event condition"], *, sampler: SamplerConfig, noise: NoiseConfig
) -> GapLaw:
    """Law of the next gap and mark in closed form.

    Of a score model it is smoothed by sigma_time (it knows no sharper one); of densities it is the law itself, on their
    own grid, whatever the sampler.

    Args:
        model: the model.
        condition: histories, from `Smash.encode`.
        sampler: `grid_size`; `confine` keeps the law on [0, 1], else the grid is wider by 4 sigma_time on both sides.
        noise: noise levels the model was trained with.
    """
    if model.config.law == "density":
        return model.density.gap_law(condition)
    laws = [
        _law(FrozenScore(model.score, condition[part]), sampler, noise)
        for part in chunks(model, len(condition), sampler=sampler)
    ] or [_law(FrozenScore(model.score, condition), sampler, noise)]
    return GapLaw(laws[0].grid, torch.cat([law.intensity for law in laws]), torch.cat([law.hazard for law in laws]))


def _rows(count: int) -> int:
    """The next multiple of `smash.score.ROWS`."""
    return -(-count // ROWS) * ROWS


def _law(score: FrozenScore, sampler: SamplerConfig, noise: NoiseConfig) -> GapLaw:
    edge = 1.0 if sampler.confine else 1.0 + 4.0 * noise.sigma_time
    like = score.output_bias
    grid = torch.linspace(-edge, edge, sampler.grid_size, dtype=torch.float64, device=like.device)
    values = F.pad(grid.to(like.dtype), (0, _rows(len(grid)) - len(grid))).repeat(score.events, 1)
    intensity = score.intensity(score.trunk(values))[..., : len(grid)]
    # Per unit of the unit box intensities are twice those per unit of [-1, 1].
    return GapLaw.on_grid(0.5 * grid + 0.5, 2.0 * intensity)


def _exact(network: ScoreNetwork, condition: Tensor, draws: Draws, sampler: SamplerConfig, noise: NoiseConfig) -> State:
    score = FrozenScore(network, condition)
    marked = network.num_marks > 1
    gap = 2.0 * _law(score, sampler, noise).quantile(draws.uniform(sampler.samples)) - 1.0
    gap = gap.to(condition.dtype)
    probability = mark_distribution(score.intensity(score.trunk(gap)).mT)
    mark = draws.marks(probability) if marked else None
    slope, _, _ = score.gap_score(gap, mark)
    gap = gap + noise.sigma_time**2 * slope
    trunk = score.trunk(gap)
    probability = mark_distribution(score.intensity(trunk).mT)
    mark = draws.marks(probability) if marked else None
    location = _location_chain(score, score.gap_part(trunk), draws, sampler, noise)
    x = torch.cat([gap[..., None], location.mT], dim=-1)
    return State(x.clamp_(-1.0, 1.0) if sampler.confine else x, mark, probability)


def location_steps(sampler: SamplerConfig, noise: NoiseConfig) -> int:
    """Return the steps of the location chain: those asked for, or as many as diffuse over half the fitted range.

    Steps follow the noise level, so a sharp law takes more of them to come from the start to where it has its mass.
    """
    return sampler.location_steps or max(50, math.ceil(1.0 / (sampler.location_step * noise.sigma_location**2)))


def _location_chain(
    score: FrozenScore, gap_part: Tensor, draws: Draws, sampler: SamplerConfig, noise: NoiseConfig
) -> Float[Tensor, "event 2 sample"]:
    """Langevin steps on the location with the gap fixed; the step follows the noise level, which keeps it stable."""
    variance = noise.sigma_location**2
    step = sampler.location_step * variance
    location = 0.5 * draws.normal(sampler.samples, 2).mT.contiguous()
    for _ in range(location_steps(sampler, noise)):
        noise_term = draws.normal(sampler.samples, 2).mT
        location.add_(score.location_score(location, gap_part), alpha=0.5 * step).add_(
            noise_term, alpha=math.sqrt(step)
        )
        if sampler.confine:
            location.clamp_(-1.0, 1.0)
    if sampler.denoise_location:
        location.add_(score.location_score(location, gap_part), alpha=variance)
    return location


def _chain(network: ScoreNetwork, condition: Tensor, draws: Draws, sampler: SamplerConfig, noise: NoiseConfig) -> State:
    reference = sampler.mode == "reference"
    evaluate = PlainEvaluator(network, condition) if reference else FrozenEvaluator(network, condition)
    stage = sampler.stage_steps if reference else sampler.langevin_steps
    state = start(draws, samples=sampler.samples, num_marks=network.num_marks, like=condition)
    for done in range(0, sampler.langevin_steps, stage):
        if done:
            state = restart(state, draws=draws)
        count = min(stage, sampler.langevin_steps - done)
        (state,) = deque(walk(evaluate, state, step=sampler.langevin_step, count=count, draws=draws), maxlen=1)
    return finish(
        evaluate,
        state,
        sigma=noise_levels(noise, condition),
        step=sampler.langevin_step,
        refine_steps=sampler.refine_steps,
        draws=draws,
    )
