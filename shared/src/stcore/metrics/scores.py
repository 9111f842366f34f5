"""Proper scores and point errors of sampled forecasts: one number per event, vectorised over events.

Units are those of the data (gap in its time unit, location in its coordinates, planar distance). Arithmetic is in
float64 whatever comes in. A NaN in the samples or the truth of an event makes the result of that event NaN and of no
other; nothing is dropped. Every function treats events independently, so that events may be scored in chunks.

Source: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_NUMBERS = 1 << 19


def crps(
    samples: Float[Tensor, "event sample"], truth: Float[Tensor, "event"], *, fair: bool = False
) -> Float[Tensor, "event"]:
    """Compute the continuous ranked probability score of a scalar, in its unit, from samples; lower is better.

    The score is mean |x - y| - c Σ_ij |x_i - x_j|. By default c = 1 / (2 S²): the exact score of the empirical law of
    the S samples, at least 0, and on average larger by about E|x - x'| / (2 S) than that of the law behind them. With
    `fair` c = 1 / (2 S (S - 1)): unbiased for the law behind the samples, may be negative for an event.
    The pair sum is taken over the sorted samples, O(S log S).
    """
    ordered = samples.double().sort(dim=-1).values
    size = ordered.shape[-1]
    rank_weight = 2.0 * torch.arange(size, dtype=torch.float64, device=ordered.device) - (size - 1)
    # Samples relative to their median: the pair sum is invariant, and large offsets cancel before the products.
    spread = 2.0 * ((ordered - ordered[:, size // 2, None]) * rank_weight).sum(-1)
    return (ordered - truth.double()[:, None]).abs().mean(-1) - spread / _pair_divisor(size, fair)


def energy_score(
    samples: Float[Tensor, "event sample axis"], truth: Float[Tensor, "event axis"], *, fair: bool = False
) -> Float[Tensor, "event"]:
    """Compute the energy score, the CRPS of a vector, in the coordinates' unit, from samples; lower is better.

    mean |x - y| - c Σ_ij |x_i - x_j| with Euclidean norms and c as in `crps`.
    """
    points = samples.double()
    size = points.shape[1]
    to_truth = torch.linalg.vector_norm(points - truth.double()[:, None, :], dim=-1).mean(-1)
    # A few events at a time, so that the pairs stay in cache; exact differences, since the matrix-product shortcut
    # loses half of the digits for close pairs.
    parts = points.split(max(1, _BLOCK_NUMBERS // (size * size)))
    pairs = [torch.cdist(part, part, compute_mode="donot_use_mm_for_euclid_dist").sum((-1, -2)) for part in parts]
    return to_truth - torch.cat(pairs) / _pair_divisor(size, fair)


def _pair_divisor(size: int, fair: bool) -> float:
    return 2.0 * size * max(size - 1, 1) if fair else 2.0 * size * size


def quantiles(samples: Float[Tensor, "event sample"], levels: Float[Tensor, "level"]) -> Float[Tensor, "event level"]:
    """Estimate quantiles at levels in [0, 1] from samples.

    Level q is the order statistic at position q (S + 1), linearly interpolated and held at the ends (the rule of
    Weibull), so that a further draw from the same law falls below it with probability exactly q (for
    1 / (S + 1) ≤ q ≤ S / (S + 1)); numpy's default rule undercovers.
    """
    ordered = samples.double().sort(dim=-1).values
    size = ordered.shape[-1]
    position = (levels.to(ordered) * (size + 1) - 1.0).clamp(0.0, size - 1.0)
    below = position.floor().long()
    above = (below + 1).clamp_max(size - 1)
    between = torch.lerp(ordered[:, below], ordered[:, above], (position - below).expand(len(ordered), -1))
    return torch.where(ordered[:, -1:].isnan(), torch.nan, between)  # NaN sorts last


def pinball(
    samples: Float[Tensor, "event sample"], truth: Float[Tensor, "event"], levels: Float[Tensor, "level"]
) -> Float[Tensor, "event level"]:
    """Compute the quantile (pinball) loss of the sample `quantiles` at levels in (0, 1), in the data's unit."""
    excess = truth.double()[:, None] - quantiles(samples, levels)
    level = levels.to(excess)
    return torch.maximum(level * excess, (level - 1.0) * excess)


def absolute_error(prediction: Float[Tensor, "event"], truth: Float[Tensor, "event"]) -> Float[Tensor, "event"]:
    """Compute |prediction - truth| of a scalar, in its unit."""
    return (prediction.double() - truth.double()).abs()


def distance(prediction: Float[Tensor, "event axis"], truth: Float[Tensor, "event axis"]) -> Float[Tensor, "event"]:
    """Compute the Euclidean distance of two points, in the coordinates' unit (degrees are treated as planar)."""
    return torch.linalg.vector_norm(prediction.double() - truth.double(), dim=-1)


def log_loss(probability: Float[Tensor, "event mark"], mark: Int[Tensor, "event"]) -> Float[Tensor, "event"]:
    """Compute -log of the probability given to the mark that came, in nats; infinite where it is 0."""
    return -probability.double().gather(1, mark.long()[:, None])[:, 0].log()


def brier(probability: Float[Tensor, "event mark"], mark: Int[Tensor, "event"]) -> Float[Tensor, "event"]:
    """Compute the Brier score Σ_k (p_k - 1[k is the mark])², in [0, 2]; lower is better."""
    hit = torch.nn.functional.one_hot(mark.long(), probability.shape[1]).double()
    return (probability.double() - hit).square().sum(-1)


def entropy(probability: Float[Tensor, "event mark"]) -> Float[Tensor, "event"]:
    """Compute -Σ_k p_k log p_k in nats: the mean log loss if marks did follow these probabilities."""
    return torch.special.entr(probability.double()).sum(-1)


def geometric_median(
    samples: Float[Tensor, "event sample axis"], *, tolerance: float = 1e-6, max_steps: int = 200
) -> Float[Tensor, "event axis"]:
    """Find the point with the least mean distance to the samples: the point forecast the mean distance asks for.

    Weiszfeld's iteration from the coordinate-wise median, with the correction that lets it leave a sample it sits on
    (within `tolerance` times the event's spread). An event stops once it moves less than that, whatever others do.
    Source: Vardi and Zhang, "The multivariate L1-median and associated data depth", PNAS 2000, eq. 2.6.
    """
    points = samples.double()
    spread = torch.linalg.vector_norm(points.std(dim=1, correction=0), dim=-1)
    centre = points.median(dim=1).values
    settled = spread <= 0.0
    for _ in range(max_steps):
        shift = points - centre[:, None, :]
        apart = shift.square().sum(-1).sqrt()
        on_it = apart <= tolerance * spread[:, None]
        weight = torch.where(on_it, 0.0, apart.reciprocal())
        pull = (weight[:, :, None] * shift).sum(1)
        held = (on_it.sum(1) / torch.linalg.vector_norm(pull, dim=-1)).nan_to_num(1.0).clamp_max(1.0)
        step = (1.0 - held[:, None]) * pull / weight.sum(1, keepdim=True).clamp_min(1e-300)
        centre = torch.where(settled[:, None], centre, centre + step)
        settled |= ~(torch.linalg.vector_norm(step, dim=-1) > tolerance * spread)
        if bool(settled.all()):
            break
    # Towards a best point that is a sample the steps shrink without end: take the nearest sample where it is better.
    nearest = (points - centre[:, None, :]).square().sum(-1).argmin(1)
    sample = points.gather(1, nearest[:, None, None].expand(-1, 1, points.shape[2]))
    away = torch.linalg.vector_norm(points - centre[:, None, :], dim=-1).sum(1)
    better = torch.linalg.vector_norm(points - sample, dim=-1).sum(1) < away
    return torch.where(better[:, None], sample[:, 0], centre)
