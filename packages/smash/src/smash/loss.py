"""Denoising score matching and the mark loss (Li et al., ICML 2024, eqs. 9 to 11).

Differs from the paper as the authors' code does: the squared error is weighted by sigma squared and averaged over
the three coordinates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from smash.config import LossConfig, NoiseConfig
from smash.score import FLOOR, Prepared, ScoreNetwork


class LossTerms(NamedTuple):
    """The loss of each target and perturbation, before weights."""

    denoise: Float[Tensor, "target perturbation 3"]
    """Half the squared error of sigma times the score, for gap, x, y; 0.5 is the mean for a score of zero."""
    mark: Float[Tensor, "target perturbation"] | None
    """Smoothed cross-entropy of the mark at the perturbed gap, in nats; None when unmarked."""


def noise_levels(noise: NoiseConfig, like: Tensor) -> Float[Tensor, "3"]:
    """Standard deviations of the noise on (gap, x, y), in box units."""
    sigma = (noise.sigma_time, noise.sigma_location, noise.sigma_location)
    return torch.tensor(sigma, dtype=like.dtype, device=like.device)


def mark_loss(
    probability: Float[Tensor, "target perturbation mark"],
    mark: Int[Tensor, "target"],
    *,
    smoothing: float,
    normalised: bool,
) -> Float[Tensor, "target perturbation"]:
    """Cross-entropy of the mark in nats, with label smoothing.

    Args:
        probability: distribution of the mark at the perturbed gap.
        mark: true marks, 0-based.
        smoothing: share of the label that is spread over all marks, in [0, 1).
        normalised: give the true mark 1 - smoothing + smoothing / K, so that weights sum to 1; the original gives
            it 1 - smoothing.
    """
    true = F.one_hot(mark, probability.shape[-1]).to(probability)
    weights = label_weights(true, smoothing=smoothing, normalised=normalised)
    return -(weights[:, None] * torch.log(probability + FLOOR)).sum(-1)


def label_weights(
    true: Float[Tensor, "target mark"], *, smoothing: float, normalised: bool
) -> Float[Tensor, "target mark"]:
    """Weight of the log probability of each mark in `mark_loss`, given a one at the true mark and zeros elsewhere."""
    spread = smoothing / true.shape[-1]
    return (1.0 - smoothing) * true + spread * (1.0 if normalised else 1.0 - true)


def score_matching(
    network: ScoreNetwork,
    prepared: Prepared,
    target: Float[Tensor, "target 3"],
    mark: Int[Tensor, "target"] | None,
    draws: Float[Tensor, "target perturbation 3"],
    *,
    noise: NoiseConfig,
    loss: LossConfig,
) -> LossTerms:
    """Perturb each target by every draw and compare the score with the one that undoes the noise.

    Args:
        network: the score network.
        prepared: its view of the condition of each target.
        target: (gap, x, y) of the next event in the unit box.
        mark: its mark, 0-based; None when unmarked.
        draws: standard normal draws.
        noise: noise levels, in box units.
        loss: smoothing of the mark loss.
    """
    sigma = noise_levels(noise, draws)
    x = torch.addcmul((2.0 * target - 1.0)[:, None], draws, sigma)
    marks = None if mark is None else mark[:, None].expand(-1, draws.shape[1])
    score, probability = network(x, marks, prepared)
    denoise = 0.5 * torch.addcmul(draws, score, sigma).square()
    if mark is None:
        return LossTerms(denoise, None)
    return LossTerms(
        denoise, mark_loss(probability, mark, smoothing=loss.smoothing, normalised=loss.normalised_smoothing)
    )


class MeanLoss(NamedTuple):
    """Means over targets and perturbations; each a scalar."""

    total: Float[Tensor, ""]
    """What is minimised (`total_loss`)."""
    gap_score: Float[Tensor, ""]
    """Half the squared error of sigma times the score of the gap; 0.5 is the mean for a score of zero."""
    location_score: Float[Tensor, ""]
    """The same for the location, averaged over both coordinates."""
    mark: Float[Tensor, ""] | None
    """Smoothed cross-entropy of the mark, in nats; None when unmarked."""


def mean_loss(terms: LossTerms, loss: LossConfig) -> MeanLoss:
    """Average the terms of targets and perturbations, and weigh them up."""
    mark = None if terms.mark is None else terms.mark.mean()
    gap, location = terms.denoise[..., 0].mean(), terms.denoise[..., 1:].mean()
    return MeanLoss(total_loss(terms, loss), gap, location, mark)


def total_loss(terms: LossTerms, loss: LossConfig) -> Float[Tensor, ""]:
    """Mean over targets, perturbations and coordinates, plus the weighted mean mark loss.

    `location_weight` counts only for marked events, as in the original.
    """
    if terms.mark is None:
        return terms.denoise.mean()
    weights = coordinate_weights(loss, marked=True, like=terms.denoise)
    return (terms.denoise * weights).mean() + loss.mark_weight * terms.mark.mean()


def coordinate_weights(loss: LossConfig, *, marked: bool, like: Tensor) -> Float[Tensor, "3"]:
    """Weights of (gap, x, y) in `total_loss`."""
    location = loss.location_weight if marked else 1.0
    return torch.tensor([1.0, location, location], dtype=like.dtype, device=like.device)
